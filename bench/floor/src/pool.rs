//! Connections to the backend that wait for their next request by HTTP/1.1.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::net::TcpStream;

pub(crate) struct Pool {
    address: SocketAddr,
    idle: Mutex<Vec<TcpStream>>,
}

impl Pool {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            idle: Mutex::default(),
        }
    }

    /// The connection that was used last, or a new one.
    pub(crate) async fn take(&self) -> io::Result<TcpStream> {
        while let Some(stream) = self.pop() {
            if is_quiet(&stream) {
                return Ok(stream);
            }
        }
        // It is rare, and whoever waits in here is not to have the room for it.
        Box::pin(connect(self.address)).await
    }

    /// Keeps a connection on which a response has come to its end.
    pub(crate) fn put(&self, stream: TcpStream) {
        self.idle().push(stream);
    }

    fn pop(&self) -> Option<TcpStream> {
        self.idle().pop()
    }

    /// The lock is never waited for: there is one thread.
    fn idle(&self) -> MutexGuard<'_, Vec<TcpStream>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has the backend neither closed it nor said anything? Asks the kernel only when it has reported an event.
fn is_quiet(stream: &TcpStream) -> bool {
    let read = stream.try_read(&mut [0]);
    read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

pub(crate) async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
