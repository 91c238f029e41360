//! A backend that says who it is.

use std::convert::Infallible;
use std::sync::Arc;

use http::header::SERVER;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// A port that nobody listens on, and that nobody else gets while the socket is kept.
pub(crate) fn nobody() -> (u16, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    (socket.local_addr().unwrap().port(), socket)
}

/// A server on a port of its own. It ends when it is dropped.
pub(crate) struct Origin {
    pub(crate) port: u16,
    /// Lets one request to `/held` be answered per permit.
    pub(crate) release: Arc<Semaphore>,
    /// One permit per request to `/held` that has arrived.
    pub(crate) held: Arc<Semaphore>,
    _task: JoinSet<()>,
}

impl Origin {
    /// Answers every request with `name` and the path that it got, says `Server: origin/1`, and `/held` only when it is released.
    pub(crate) async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (release, held) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let mut task = JoinSet::new();
        let gates = (Arc::clone(&release), Arc::clone(&held));
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let gates = gates.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let (release, held) = gates.clone();
                    async move {
                        if request.uri().path() == "/held" {
                            held.add_permits(1);
                            release.acquire().await.unwrap().forget();
                        }
                        let text = format!("{name} {}", request.uri().path());
                        let mut response = Response::new(Full::new(Bytes::from(text)));
                        let server = HeaderValue::from_static("origin/1");
                        response.headers_mut().insert(SERVER, server);
                        Ok::<_, Infallible>(response)
                    }
                });
                connections.spawn(async move {
                    // The gateway may close the connection whenever it wants.
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            port,
            release,
            held,
            _task: task,
        }
    }
}
