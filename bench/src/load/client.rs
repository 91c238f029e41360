//! One connection at a time: opening it and exchanging requests.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::websocket::WebSocket;
use super::{Answer, Failure, FailureKind, Version};

/// The body of a request.
pub type Body = Full<Bytes>;

/// Where a connection goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    /// Address that is connected to.
    pub address: SocketAddr,
    /// Name that is asked for and verified; `None`: no TLS.
    pub server_name: Option<ServerName<'static>>,
    /// Host and port as a URL has them.
    pub authority: Box<str>,
}

/// Opens connections.
#[derive(Clone)]
pub struct Connector {
    http1: TlsConnector,
    http2: TlsConnector,
}

impl Connector {
    /// Verifies servers with these roots. Without `resumption`, every handshake is a full one and shows the
    /// server's certificate.
    pub fn new(roots: &Arc<RootCertStore>, resumption: bool) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(Arc::clone(roots))
            .with_no_client_auth();
        Ok(Self::with(&config, resumption))
    }

    /// With a configuration of one's own.
    pub fn with(config: &ClientConfig, resumption: bool) -> Self {
        let speaking = |protocol: &[u8]| {
            let mut config = config.clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            config.resumption = if resumption {
                Resumption::in_memory_sessions(256)
            } else {
                Resumption::disabled()
            };
            TlsConnector::from(Arc::new(config))
        };
        Self {
            http1: speaking(b"http/1.1"),
            http2: speaking(b"h2"),
        }
    }

    /// Opens a connection to `target`.
    pub async fn open(&self, target: &Target, version: Version) -> Result<Connection, Failure> {
        let stream = TcpStream::connect(target.address)
            .await
            .map_err(|error| Failure::new(FailureKind::Connect, error))?;
        stream
            .set_nodelay(true)
            .map_err(|error| Failure::new(FailureKind::Connect, error))?;
        let Some(name) = &target.server_name else {
            return Connection::start(stream, version, None, false).await;
        };
        let connector = match version {
            Version::Http1 | Version::WebSocket => &self.http1,
            Version::Http2 => &self.http2,
        };
        let stream = connector
            .connect(name.clone(), stream)
            .await
            .map_err(|error| Failure::new(FailureKind::Handshake, error))?;
        let session = stream.get_ref().1;
        if version == Version::Http2 && session.alpn_protocol() != Some(b"h2") {
            let text = "the server did not choose h2";
            return Err(Failure::new(FailureKind::Handshake, text));
        }
        let leaf = session
            .peer_certificates()
            .and_then(|chain| chain.first())
            .map(|certificate| certificate.clone().into_owned());
        let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        Connection::start(stream, version, leaf, resumed).await
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

/// An open connection. It is closed when this and every [`Exchange`] is dropped.
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
    leaf: Option<CertificateDer<'static>>,
    resumed: bool,
    driver: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Sender {
    /// Taken by the one exchange that a connection of HTTP/1.1 can have at a time.
    Http1(std::sync::Mutex<Option<http1::SendRequest<Body>>>),
    Http2(http2::SendRequest<Body>),
    /// Taken by one exchange, too.
    WebSocket(std::sync::Mutex<Option<WebSocket>>),
}

impl Connection {
    async fn start<Io>(
        io: Io,
        version: Version,
        leaf: Option<CertificateDer<'static>>,
        resumed: bool,
    ) -> Result<Self, Failure>
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let refused = |error: hyper::Error| Failure::new(FailureKind::Protocol, describe(&error));
        // Errors of a driver come out of the requests on its connection.
        let (sender, driver) = match version {
            Version::Http1 => {
                let (sender, connection) =
                    http1::handshake(TokioIo::new(io)).await.map_err(refused)?;
                let driver = tokio::spawn(async move { connection.await.unwrap_or_default() });
                let sender = std::sync::Mutex::new(Some(sender));
                (Sender::Http1(sender), Some(driver))
            }
            Version::Http2 => {
                let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                    .initial_stream_window_size(1 << 20)
                    .initial_connection_window_size(8 << 20)
                    .handshake(TokioIo::new(io))
                    .await
                    .map_err(refused)?;
                let driver = tokio::spawn(async move { connection.await.unwrap_or_default() });
                (Sender::Http2(sender), Some(driver))
            }
            Version::WebSocket => {
                let socket = std::sync::Mutex::new(Some(WebSocket::new(io)));
                (Sender::WebSocket(socket), None)
            }
        };
        Ok(Self {
            sender,
            leaf,
            resumed,
            driver,
        })
    }

    /// The certificate that the server has shown.
    pub fn leaf(&self) -> Option<&CertificateDer<'static>> {
        self.leaf.as_ref()
    }

    /// Whether it has resumed a TLS session.
    pub fn resumed(&self) -> bool {
        self.resumed
    }

    /// A lane for requests. A connection of HTTP/1.1 has only one; a second one is never ready.
    pub fn exchange(&self) -> Exchange {
        Exchange(match &self.sender {
            Sender::Http1(sender) => Lane::Http1(
                sender
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .take(),
            ),
            Sender::Http2(sender) => Lane::Http2(sender.clone()),
            Sender::WebSocket(socket) => Lane::WebSocket(
                socket
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .take(),
            ),
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(driver) = &self.driver {
            driver.abort();
        }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub enum SendError {
    /// Not a byte of the request was sent, because the server had closed the connection in the meantime. It can be
    /// sent on another one.
    Unsent,
    /// It failed.
    Failed(Failure),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsent => f.write_str("the server closed the connection"),
            Self::Failed(failure) => failure.fmt(f),
        }
    }
}

impl From<Failure> for SendError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<TrySendError<Request<Body>>> for SendError {
    fn from(mut error: TrySendError<Request<Body>>) -> Self {
        if error.take_message().is_some() || told_to_go(error.error()) {
            return Self::Unsent;
        }
        Failure::new(FailureKind::Protocol, describe(error.error())).into()
    }
}

/// Whether a server that ends a connection in peace has not looked at a request: it came after the GOAWAY, or is above
/// the last stream that the GOAWAY names (RFC 9113, section 6.8).
fn told_to_go(error: &hyper::Error) -> bool {
    let cause =
        std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| {
        cause.is_go_away() && cause.is_remote() && cause.reason() == Some(h2::Reason::NO_ERROR)
    })
}

/// Sends one request after the other.
#[derive(Debug)]
pub struct Exchange(Lane);

#[derive(Debug)]
enum Lane {
    Http1(Option<http1::SendRequest<Body>>),
    Http2(http2::SendRequest<Body>),
    WebSocket(Option<WebSocket>),
}

impl Exchange {
    /// Waits until a request can be sent; false when the server has closed the connection, which it may do at any
    /// time between two requests.
    pub async fn ready(&mut self) -> bool {
        match &mut self.0 {
            Lane::Http1(Some(sender)) => sender.ready().await.is_ok(),
            Lane::Http1(None) => false,
            Lane::Http2(sender) => sender.ready().await.is_ok(),
            Lane::WebSocket(socket) => socket.is_some(),
        }
    }

    /// Sends a request and reads the whole answer.
    pub async fn send(&mut self, request: Request<Body>) -> Result<Answer, SendError> {
        if let Lane::WebSocket(Some(socket)) = &mut self.0 {
            return Ok(socket.send(request).await?);
        }
        let (parts, mut body) = self.begin(request).await?.into_parts();
        let mut length = 0;
        let mut start = BytesMut::new();
        let mut trailers = HeaderMap::new();
        while let Some(data) = next(&mut body, &mut trailers).await? {
            length += data.len() as u64;
            let room = Answer::KEPT.saturating_sub(start.len()).min(data.len());
            start.extend_from_slice(data.get(..room).unwrap_or_default());
        }
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            length,
            start: start.freeze(),
            trailers,
        })
    }

    /// Sends a request and keeps the body of the answer.
    pub async fn fetch(
        &mut self,
        request: Request<Body>,
    ) -> Result<(StatusCode, Vec<u8>), SendError> {
        let (parts, mut body) = self.begin(request).await?.into_parts();
        let mut whole = Vec::new();
        while let Some(data) = next(&mut body, &mut HeaderMap::new()).await? {
            whole.extend_from_slice(&data);
        }
        Ok((parts.status, whole))
    }

    async fn begin(&mut self, mut request: Request<Body>) -> Result<Response<Incoming>, SendError> {
        match &mut self.0 {
            Lane::Http1(Some(sender)) => {
                // On the wire: the host in a field, the path alone in the first line.
                if let Some(authority) = request.uri().authority()
                    && let Ok(host) = http::HeaderValue::from_str(authority.as_str())
                {
                    request.headers_mut().insert(http::header::HOST, host);
                }
                let path = request.uri().path_and_query().cloned();
                *request.uri_mut() = path.map_or_else(http::Uri::default, http::Uri::from);
                Ok(sender.try_send_request(request).await?)
            }
            Lane::Http1(None) | Lane::WebSocket(_) => {
                let text = "a second request on a connection that has one at a time";
                Err(Failure::new(FailureKind::Generator, text).into())
            }
            Lane::Http2(sender) => Ok(sender.try_send_request(request).await?),
        }
    }
}

/// The next bytes of a body; `None` at its end.
async fn next(body: &mut Incoming, trailers: &mut HeaderMap) -> Result<Option<Bytes>, Failure> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::new(FailureKind::Body, describe(&error)))?;
        match frame.into_data() {
            Ok(data) => return Ok(Some(data)),
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    Ok(None)
}

/// An error with its causes: hyper's own text leaves them out.
fn describe(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
