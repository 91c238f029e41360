//! Origin servers: what stands behind the gateway.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// The port that every origin listens on.
pub const PORT: u16 = 8080;

static NEXT: AtomicU8 = AtomicU8::new(100);

/// A server that answers every request with its name and the path that it was asked for. A request for `/hold` is
/// answered when [`Origin::release`] lets it go.
pub struct Origin {
    name: String,
    address: IpAddr,
    held: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
    accepting: JoinHandle<()>,
}

impl Origin {
    /// Starts a server on an address of its own.
    pub async fn start(name: &str) -> Result<Self> {
        let address = IpAddr::V4(Ipv4Addr::new(
            203,
            0,
            113,
            NEXT.fetch_add(1, Ordering::Relaxed),
        ));
        let listener = TcpListener::bind(SocketAddr::new(address, PORT))
            .await
            .with_context(|| format!("origin {name} on {address}"))?;
        let held = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(Semaphore::new(0));
        let accepting = tokio::spawn(accept(
            listener,
            name.to_owned(),
            held.clone(),
            gate.clone(),
        ));
        Ok(Self {
            name: name.to_owned(),
            address,
            held,
            gate,
            accepting,
        })
    }

    /// Its name, as its answers begin with it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address for an `EndpointSlice`.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many requests for `/hold` wait here.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }

    /// Lets that many waiting requests go.
    pub fn release(&self, requests: usize) {
        self.gate.add_permits(requests);
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, name: String, held: Arc<AtomicUsize>, gate: Arc<Semaphore>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (name, held, gate) = (name.clone(), held.clone(), gate.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                answer(request, name.clone(), held.clone(), gate.clone())
            });
            // A client that goes away is no failure of the origin.
            let _closed = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    name: String,
    held: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    if path == "/hold" {
        held.fetch_add(1, Ordering::SeqCst);
        if let Ok(permit) = gate.acquire().await {
            permit.forget();
        }
        held.fetch_sub(1, Ordering::SeqCst);
    }
    let header = |name: &str| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("-")
            .to_owned()
    };
    let text = format!(
        "{name} {path}\nhost: {}\nx-forwarded-proto: {}\nx-forwarded-for: {}\n",
        header("host"),
        header("x-forwarded-proto"),
        header("x-forwarded-for"),
    );
    Ok(Response::new(Full::new(Bytes::from(text))))
}
