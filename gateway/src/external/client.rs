//! Connections to the servers that are asked.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, LazyLock, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use model::HostName;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::Service;

use crate::Shared;

/// How long an unused connection is kept, and how many there are of them to one server.
const IDLE: Duration = Duration::from_mins(1);
const MOST_IDLE: usize = 32;
/// How long a connection may take. Whoever waits for it may have gone by then.
const CONNECT: Duration = Duration::from_secs(30);
/// The header section of an answer.
const MOST_HEADERS: usize = 64 * 1024;
/// An answer's body up to this size is read and thrown away, so that the connection can be used on.
const SMALL_BODY: u64 = 64 * 1024;
const DRAIN: Duration = Duration::from_secs(5);

/// What is asked.
pub(crate) type Question = Request<Full<Bytes>>;

/// Asks; one per worker.
pub(crate) struct Client {
    shared: Arc<Shared>,
    /// Most gateways have nobody to ask.
    inner: OnceLock<legacy::Client<Connector, Full<Bytes>>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct Unanswered {
    /// Nothing has been sent: another endpoint may be asked.
    pub(crate) unsent: bool,
    /// In words for the log.
    pub(crate) cause: String,
}

impl Client {
    /// Without a connection.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            inner: OnceLock::new(),
        }
    }

    /// Asks. The URI is absolute; its host is a name or an address.
    pub(crate) async fn ask(
        &self,
        question: Question,
        patience: Duration,
    ) -> Result<Response<()>, Unanswered> {
        let client = self.inner.get_or_init(|| {
            legacy::Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(MOST_IDLE)
                .http1_max_buf_size(MOST_HEADERS)
                .build(Connector {
                    shared: Arc::clone(&self.shared),
                })
        });
        let response = match timeout(patience, client.request(question)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                return Err(Unanswered {
                    unsent: error.is_connect(),
                    cause: causes(&error),
                });
            }
            Err(_elapsed) => {
                return Err(Unanswered {
                    unsent: false,
                    cause: "it did not answer in time".to_owned(),
                });
            }
        };
        let (parts, body) = response.into_parts();
        if !body.is_end_stream() && body.size_hint().lower() <= SMALL_BODY {
            // Nobody waits for it.
            tokio::spawn(discard(body));
        }
        Ok(Response::from_parts(parts, ()))
    }
}

/// Reads a body for nobody.
async fn discard(mut body: Incoming) {
    let reading = async {
        let mut left = usize::try_from(SMALL_BODY).unwrap_or(usize::MAX);
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(length) {
                Some(less) => left = less,
                None => return,
            }
        }
    };
    // What takes longer costs a connection, and nothing else.
    let _ = timeout(DRAIN, reading).await;
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

/// Opens connections.
#[derive(Clone)]
struct Connector {
    shared: Arc<Shared>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let connecting = connect(&shared, &uri);
            match timeout(CONNECT, connecting).await {
                Ok(connected) => connected.map(TokioIo::new),
                Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
            }
        })
    }
}

async fn connect(shared: &Shared, uri: &Uri) -> io::Result<Stream> {
    let https = uri.scheme_str() == Some("https");
    let host = uri.host().unwrap_or_default();
    let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<SocketAddr> = if let Ok(address) = literal.parse::<IpAddr>() {
        // Who may be asked has been looked at before.
        vec![(address, port).into()]
    } else {
        let name = HostName::parse(host).map_err(|error| other(&error.to_string()))?;
        let name = shared.resolver.name(&name);
        let found = shared.resolver.addresses(&name).await;
        let found = found.map_err(|fault| other(&format!("no address: {fault:?}")))?;
        found
            .iter()
            .map(|address| (*address, port).into())
            .collect()
    };
    let stream = TcpStream::connect(addresses.as_slice()).await?;
    stream.set_nodelay(true)?;
    if !https {
        return Ok(Stream::Plain(stream));
    }
    let name =
        ServerName::try_from(literal.to_owned()).map_err(|error| other(&error.to_string()))?;
    let tls = TlsConnector::from(Arc::clone(&TLS));
    let stream = tls.connect(name, stream).await?;
    Ok(Stream::Tls(Box::new(stream)))
}

fn other(text: &str) -> io::Error {
    io::Error::other(text.to_owned())
}

/// A connection.
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

static TLS: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let anybody = Arc::new(Anybody(Arc::clone(&provider)));
    #[expect(
        clippy::expect_used,
        reason = "the provider's own versions are always consistent, and a test connects"
    )]
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has cipher suites for its versions");
    Arc::new(
        builder
            .dangerous()
            .with_custom_certificate_verifier(anybody)
            .with_no_client_auth(),
    )
});

/// Takes any certificate, as ingress-nginx does: servers in a cluster have certificates that nobody outside of it
/// knows, and there is no annotation that would say whom to trust. The connection is encrypted all the same.
#[derive(Debug)]
pub(crate) struct Anybody(Arc<CryptoProvider>);

impl Anybody {
    /// With what signatures are checked with.
    pub(crate) fn new(provider: Arc<CryptoProvider>) -> Self {
        Self(provider)
    }
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    fn shared() -> Arc<Shared> {
        let table = table::compile(&model::RoutingModel::default()).table;
        let (_writer, reader) = table::channel(table);
        Arc::new(Shared::new(crate::Settings::default(), reader))
    }

    /// Answers one connection over TLS, with a certificate that nobody knows.
    async fn server() -> SocketAddr {
        let made = rcgen::generate_simple_self_signed(vec!["judge.test".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = TlsAcceptor::from(Arc::new(config));
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let answer = b"HTTP/1.1 204 No Content\r\nx-user: anna\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            stream.flush().await.unwrap();
        });
        address
    }

    #[tokio::test]
    async fn a_server_is_asked_over_tls_whatever_its_certificate_says() {
        let client = Client::new(shared());
        let mut question = Question::new(Full::default());
        *question.uri_mut() = format!("https://{}/x", server().await).parse().unwrap();
        let response = client.ask(question, Duration::from_secs(30)).await.unwrap();
        assert_eq!(response.status(), 204);
        assert_eq!(response.headers()["x-user"], "anna");
    }

    #[tokio::test]
    async fn names_without_addresses_and_closed_ports_are_told_from_bad_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = listener.local_addr().unwrap();
        drop(listener);
        let client = Client::new(shared());
        let mut question = Question::new(Full::default());
        *question.uri_mut() = format!("http://{closed}/").parse().unwrap();
        let failed = client.ask(question, Duration::from_secs(30)).await;
        assert!(failed.is_err_and(|failed| failed.unsent));
    }
}
