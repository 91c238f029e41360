//! What the listeners of the control plane have in common: few connections of HTTP/1.1, and an end to each of them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

/// Whoever asks the control plane has few connections; more than this wait.
const MAX_CONNECTIONS: usize = 64;

/// For the header of a request, and for the time between two of them.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Nobody keeps a connection for longer than this without being able to open another.
const CONNECTION_LIFE: Duration = Duration::from_mins(10);

/// Enough for any probe, scraper and API server; a larger header is refused.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// An answer with a body that is there.
pub(crate) type Answer = Response<Full<Bytes>>;

/// Hands each connection to `serve`, until it is dropped. `name` is for the log.
pub(crate) async fn accept<F>(
    listener: TcpListener,
    name: &'static str,
    serve: impl Fn(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return; // nobody closes the semaphore
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let serve = serve(stream, peer);
                tokio::spawn(async move {
                    serve.await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "Cannot accept a connection to the {name}; trying again");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Answers the requests of one connection.
pub(crate) async fn connection<F>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: SocketAddr,
    name: &'static str,
    answer: impl Fn(Request<Incoming>) -> F,
) where
    F: Future<Output = Answer>,
{
    let service = service_fn(|request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_LIFE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%peer, %error, "A connection to the {name} failed"),
        Err(_elapsed) => debug!(%peer, "A connection to the {name} was too old"),
    }
}
