//! Connections to the backend by HTTP/2: each carries many requests at once.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::SendStream;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use http::Request;
use tokio::net::TcpStream;

use crate::held::Held;
use crate::pool;

/// Requests at once on one connection.
const STREAMS: usize = 100;
/// What the backend may send on one stream before its client has taken it.
const STREAM_WINDOW: u32 = 64 * 1024;

pub(crate) struct Links {
    address: SocketAddr,
    open: Mutex<Vec<Link>>,
    /// Whoever makes one more connection holds this.
    gate: tokio::sync::Mutex<()>,
}

struct Link {
    sender: SendRequest<Bytes>,
    streams: Arc<AtomicUsize>,
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
    pub(crate) response: ResponseFuture,
    pub(crate) body: SendStream<Bytes>,
    /// Until the response has come to its end.
    pub(crate) lease: Lease,
}

/// The same as Lockgate's.
fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(100 * STREAM_WINDOW)
        .max_header_list_size(256 * 1024)
        .max_send_buffer_size(128 * 1024);
    builder
}

impl Links {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            open: Mutex::default(),
            gate: tokio::sync::Mutex::default(),
        }
    }

    /// Sends a header section on a connection that has room for it, made if there is none.
    pub(crate) async fn send(
        &self,
        request: &mut Option<Request<()>>,
        ended: bool,
    ) -> io::Result<Call> {
        loop {
            let call = poll_fn(|cx| Poll::Ready(self.send_now(cx, request, ended))).await;
            if let Some(call) = call? {
                return Ok(call);
            }
            // It is rare, and whoever waits in here is not to have the room for it.
            Box::pin(self.make_room()).await?;
        }
    }

    fn send_now(
        &self,
        cx: &mut Context<'_>,
        request: &mut Option<Request<()>>,
        ended: bool,
    ) -> io::Result<Option<Call>> {
        let mut open = self.lock();
        let mut at = 0;
        while let Some(link) = open.get_mut(at) {
            if link.streams.load(Ordering::Relaxed) >= STREAMS {
                at += 1;
                continue;
            }
            match link.sender.poll_ready(cx) {
                Poll::Ready(Err(_)) => drop(open.remove(at)),
                Poll::Pending => at += 1,
                Poll::Ready(Ok(())) => {
                    let Some(request) = request.take() else {
                        return Ok(None);
                    };
                    let sent = link.sender.send_request(request, ended);
                    let (response, body) = sent.map_err(io::Error::other)?;
                    link.streams.fetch_add(1, Ordering::Relaxed);
                    return Ok(Some(Call {
                        response,
                        body,
                        lease: Lease(Arc::clone(&link.streams)),
                    }));
                }
            }
        }
        Ok(None)
    }

    async fn make_room(&self) -> io::Result<()> {
        let _turn = self.gate.lock().await;
        // Somebody may have made some meanwhile.
        let has_room = |link: &Link| link.streams.load(Ordering::Relaxed) < STREAMS;
        if self.lock().iter().any(has_room) {
            return Ok(());
        }
        self.connect().await
    }

    async fn connect(&self) -> io::Result<()> {
        let io = Held::new(pool::connect(self.address).await?);
        // What is written in here leaves with the first request.
        let handshake = builder().handshake::<_, Bytes>(io.clone()).await;
        let (sender, connection) = handshake.map_err(io::Error::other)?;
        tokio::spawn(drive(connection, io));
        self.lock().push(Link {
            sender,
            streams: Arc::default(),
        });
        Ok(())
    }

    /// The lock is never waited for: there is one thread.
    fn lock(&self) -> MutexGuard<'_, Vec<Link>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Moves the bytes of a connection until it ends. What requests have written since the last turn leaves together.
async fn drive(mut connection: Connection<Held<TcpStream>, Bytes>, io: Held<TcpStream>) {
    poll_fn(|cx| {
        let ended = Pin::new(&mut connection).poll(cx).is_ready();
        let broken = matches!(io.poll_out(cx), Poll::Ready(Err(_)));
        if ended || broken {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}
