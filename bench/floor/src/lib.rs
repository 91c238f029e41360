//! A yardstick, not a proxy to use: the least that a proxy on tokio, httparse, rustls and Lockgate's codec of HTTP/2 can do.
//!
//! Beside Lockgate in the same measurement it shows how much of a request is the kernel's and the libraries', which no work
//! on Lockgate itself takes away. So it has to be as quick as they allow: it reads and writes as seldom as can be, copies
//! what it must change, and looks only for what tells where a message ends. It has no routes, no limits, no timeouts, no
//! metrics, and no answers of its own: whatever it does not expect ends the connection or the stream.

mod buffers;
mod grpc;
mod http1;
mod http2;
mod links;
mod pool;
mod section;
mod socket;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use links::Links;
use pool::Pool;

/// What there is to run.
#[derive(Debug)]
pub struct Server {
    /// Takes HTTP/1.1.
    pub http: TcpListener,
    /// Takes HTTP/1.1 and HTTP/2 over TLS.
    pub https: TcpListener,
    /// Certificate and protocols of `https`.
    pub tls: Arc<ServerConfig>,
    /// Where all requests go.
    pub backend: SocketAddr,
}

/// Connections to the backend.
struct Backend {
    /// HTTP/1.1.
    pool: Pool,
    /// HTTP/2.
    links: Links,
}

/// What the backend is told about a client.
struct Client {
    address: String,
    scheme: &'static str,
    /// Both as fields of HTTP/1.1, and the name of the one for the host.
    fields: String,
}

impl Client {
    fn new(address: SocketAddr, scheme: &'static str) -> Self {
        let address = address.ip().to_string();
        Self {
            fields: format!(
                "X-Forwarded-For: {address}\r\nX-Forwarded-Proto: {scheme}\r\nX-Forwarded-Host: "
            ),
            address,
            scheme,
        }
    }
}

impl Server {
    /// Serves both listeners, until one of them fails.
    pub async fn run(self) -> io::Result<()> {
        let Self {
            http,
            https,
            tls,
            backend,
        } = self;
        let backend = Arc::new(Backend {
            pool: Pool::new(backend),
            links: Links::new(backend),
        });
        let plain = accept(&http, |stream, address| {
            let backend = Arc::clone(&backend);
            let client = Client::new(address, "http");
            // How a connection ends concerns nobody else.
            tokio::spawn(async move { drop(http1::serve(stream, &client, &backend).await) });
        });
        let acceptor = TlsAcceptor::from(tls);
        let secure = accept(&https, |stream, address| {
            let (backend, acceptor) = (Arc::clone(&backend), acceptor.clone());
            let client = Client::new(address, "https");
            tokio::spawn(async move { drop(handshake(stream, acceptor, client, backend).await) });
        });
        tokio::try_join!(plain, secure).map(drop)
    }
}

async fn accept(
    listener: &TcpListener,
    mut begin: impl FnMut(TcpStream, SocketAddr),
) -> io::Result<()> {
    loop {
        let (stream, address) = listener.accept().await?;
        stream.set_nodelay(true)?;
        begin(stream, address);
    }
}

async fn handshake(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    client: Client,
    backend: Arc<Backend>,
) -> io::Result<()> {
    let stream = acceptor.accept(stream).await?;
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        http2::serve(stream, &client, &backend).await
    } else {
        http1::serve(stream, &client, &backend).await
    }
}

/// Serves HTTP/2 and HTTP/1.1 with the certificate chain and the key in these PEM files.
pub fn tls(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
    let unusable = |path: &Path| format!("cannot use {}", path.display());
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .with_context(|| unusable(certificate))?;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| unusable(key))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// What came is not what is expected here.
fn unexpected(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
