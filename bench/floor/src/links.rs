//! Connections to the backend by HTTP/2: each carries many requests at once.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use ::http2::{Connection, Settings, Stream, Writer};
use tokio::net::TcpStream;

use crate::pool;
use crate::socket::Io;

/// Requests at once on one connection.
const STREAMS: u32 = 100;
const MOST_STREAMS: usize = STREAMS as usize;
/// What the backend may send on one stream before its client has taken it.
const STREAM_WINDOW: u32 = 64 * 1024;

/// The same as Lockgate's.
const SETTINGS: Settings = Settings {
    max_streams: STREAMS,
    stream_window: STREAM_WINDOW,
    connection_window: STREAMS * STREAM_WINDOW,
    max_header_list: 256 * 1024,
};

pub(crate) struct Links {
    address: SocketAddr,
    open: Mutex<Vec<Link>>,
    /// Whoever makes one more connection holds this.
    gate: tokio::sync::Mutex<()>,
}

struct Link {
    http2: Connection,
    streams: Arc<AtomicUsize>,
}

impl Link {
    fn has_room(&self) -> bool {
        let most = self.http2.peer_streams().min(MOST_STREAMS);
        self.streams.load(Ordering::Relaxed) < most
    }
}

/// A place among the requests of a connection; dropping it gives the place back.
pub(crate) struct Lease(Arc<AtomicUsize>);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request whose header section is on its way.
pub(crate) struct Call {
    pub(crate) stream: Stream,
    /// Until the response has come to its end.
    pub(crate) lease: Lease,
}

impl Links {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            open: Mutex::default(),
            gate: tokio::sync::Mutex::default(),
        }
    }

    /// Begins a request, which `fields` writes, on a connection that has room for it, made if there is none; `ends` if it
    /// has no content.
    pub(crate) async fn open(
        &self,
        ends: bool,
        fields: impl Fn(&mut Writer<'_>),
    ) -> io::Result<Call> {
        loop {
            if let Some(call) = self.open_now(ends, &fields) {
                return Ok(call);
            }
            // It is rare, and whoever waits in here is not to have the room for it.
            Box::pin(self.make_room()).await?;
        }
    }

    fn open_now(&self, ends: bool, fields: &impl Fn(&mut Writer<'_>)) -> Option<Call> {
        let mut open = self.lock();
        while let Some(at) = open.iter().position(Link::has_room) {
            let link = open.get(at)?;
            if let Ok(stream) = link.http2.open(ends, fields) {
                link.streams.fetch_add(1, Ordering::Relaxed);
                let lease = Lease(Arc::clone(&link.streams));
                return Some(Call { stream, lease });
            }
            // The backend takes no more requests on it.
            open.remove(at);
        }
        None
    }

    async fn make_room(&self) -> io::Result<()> {
        let _turn = self.gate.lock().await;
        // Somebody may have made some meanwhile.
        if self.lock().iter().any(Link::has_room) {
            return Ok(());
        }
        let socket = pool::connect(self.address).await?;
        let http2 = Connection::client(&SETTINGS);
        // What is written at the beginning leaves with the first request.
        tokio::spawn(drive(socket, http2.clone()));
        self.lock().push(Link {
            http2,
            streams: Arc::default(),
        });
        Ok(())
    }

    /// The lock is never waited for: there is one thread.
    fn lock(&self) -> MutexGuard<'_, Vec<Link>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Moves the octets of a connection until it ends. What requests have written since the last turn leaves together.
async fn drive(socket: TcpStream, http2: Connection) {
    let mut io = Io::new(socket);
    poll_fn(|cx| {
        loop {
            let blocked = !http2.wants_input();
            match io.poll_in(cx, &http2) {
                Poll::Ready(Ok(())) => continue,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            match io.poll_out(cx, &http2) {
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) if http2.is_closing() && !http2.has_streams() => {
                    return Poll::Ready(());
                }
                // Some of it had to leave before more is taken.
                Poll::Ready(Ok(())) if blocked => {}
                Poll::Ready(Ok(())) => {
                    http2.wake_for_output(cx);
                    return Poll::Pending;
                }
                // The socket says when there is room again.
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    http2.lost();
}
