//! An HTTP client that says where it connects to and shows the certificate that it was given.

use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// The version of HTTP that a client speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, by ALPN over TLS and with prior knowledge without.
    Http2,
}

/// Sends requests to one gateway, whatever their host is.
#[derive(Clone)]
pub struct Client {
    gateway: IpAddr,
    version: Version,
    tls: Arc<ClientConfig>,
}

/// The certificate that a gateway shows.
pub type Certificate = CertificateDer<'static>;

/// What bytes go through, with TLS or without.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// The version of HTTP that it came with.
    pub version: http::Version,
    /// Its header.
    pub headers: HeaderMap,
    /// Its body, where it is text.
    pub body: String,
    /// Its body, whatever it is.
    pub bytes: Bytes,
    /// What came after the body.
    pub trailers: HeaderMap,
}

impl Reply {
    /// The first line of the body: an origin's name and the path that it was asked for.
    pub fn origin(&self) -> &str {
        self.body.lines().next().unwrap_or_default()
    }

    /// The body of an origin in a pod: what it was asked.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body)
            .with_context(|| format!("{} and no JSON: {}", self.status, self.body))
    }

    /// The pod that answered, empty where none did.
    pub fn pod(&self) -> &str {
        self.header("x-backend")
    }

    /// The value of a header, empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

impl Client {
    /// A client of the gateway at `gateway` that speaks HTTP/1.1 and trusts nobody.
    pub fn new(gateway: IpAddr) -> Result<Self> {
        Self {
            gateway,
            version: Version::Http1,
            tls: Arc::new(config(RootCertStore::empty())?),
        }
        .speaking(Version::Http1)
    }

    /// The same client, trusting `roots`.
    pub fn trusting(mut self, roots: RootCertStore) -> Result<Self> {
        self.tls = Arc::new(config(roots)?);
        let version = self.version;
        self.speaking(version)
    }

    /// The same client, speaking another version.
    pub fn speaking(mut self, version: Version) -> Result<Self> {
        let mut tls = ClientConfig::clone(&self.tls);
        tls.alpn_protocols = match version {
            Version::Http1 => vec![b"http/1.1".to_vec()],
            Version::Http2 => vec![b"h2".to_vec()],
        };
        self.version = version;
        self.tls = Arc::new(tls);
        Ok(self)
    }

    /// One request on a connection of its own.
    pub async fn get(&self, url: &str) -> Result<Reply> {
        self.connect(url).await?.get(url).await
    }

    /// Any request, its target a whole URL, on a connection of its own.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Reply> {
        let mut connection = self.connect(&request.uri().to_string()).await?;
        connection.send(request).await
    }

    /// Opens a connection for the host of `url`.
    pub async fn connect(&self, url: &str) -> Result<Connection> {
        tokio::time::timeout(DEADLINE, self.open(url))
            .await
            .with_context(|| format!("connecting for {url} takes longer than {DEADLINE:?}"))?
    }

    /// The bare stream for the host of `url`: TLS is done, HTTP is the caller's.
    pub async fn stream(&self, url: &str) -> Result<Box<dyn Stream>> {
        let opened = tokio::time::timeout(DEADLINE, self.reach(url)).await;
        let opened = opened.with_context(|| format!("connecting for {url}: no answer"))?;
        Ok(opened?.0)
    }

    async fn open(&self, url: &str) -> Result<Connection> {
        let (stream, certificate) = self.reach(url).await?;
        Ok(Connection {
            sender: self.handshake(stream).await?,
            certificate,
        })
    }

    async fn reach(&self, url: &str) -> Result<(Box<dyn Stream>, Option<Certificate>)> {
        let uri: Uri = url.parse()?;
        let host = uri.host().context("the URL has no host")?.to_owned();
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = TcpStream::connect(SocketAddr::new(self.gateway, port))
            .await
            .with_context(|| format!("connecting to {}:{port}", self.gateway))?;
        stream.set_nodelay(true)?;
        if !secure {
            return Ok((Box::new(stream), None));
        }
        let name = ServerName::try_from(host)?;
        let stream = TlsConnector::from(self.tls.clone())
            .connect(name, stream)
            .await
            .with_context(|| format!("TLS handshake for {url}"))?;
        let (_, session) = stream.get_ref();
        let certificate = session
            .peer_certificates()
            .and_then(<[_]>::first)
            .map(|certificate| certificate.clone().into_owned());
        let wanted: &[u8] = match self.version {
            Version::Http1 => b"http/1.1",
            Version::Http2 => b"h2",
        };
        if session.alpn_protocol() != Some(wanted) {
            bail!("{url}: the gateway does not agree to {:?}", self.version);
        }
        Ok((Box::new(stream), certificate))
    }

    async fn handshake(&self, stream: impl Stream + 'static) -> Result<Sender> {
        let stream = TokioIo::new(stream);
        // What ends a connection is seen by the request that needs it.
        Ok(match self.version {
            Version::Http1 => {
                let (sender, connection) = http1::handshake(stream).await?;
                tokio::spawn(async move { drop(connection.await) });
                Sender::Http1(sender)
            }
            Version::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
                tokio::spawn(async move { drop(connection.await) });
                Sender::Http2(sender)
            }
        })
    }
}

/// A connection that may carry many requests.
pub struct Connection {
    sender: Sender,
    certificate: Option<Certificate>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    /// The certificate that the gateway showed.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_ref()
    }

    /// Whether it takes another request: a gateway may close an idle connection, or say that it will.
    pub async fn is_open(&mut self) -> bool {
        match &mut self.sender {
            Sender::Http1(sender) => sender.ready().await.is_ok(),
            Sender::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    /// Sends a request and reads the whole answer.
    pub async fn get(&mut self, url: &str) -> Result<Reply> {
        self.send(Request::get(url).body(Bytes::new())?).await
    }

    /// Sends any request, its target a whole URL, and reads the whole answer.
    pub async fn send(&mut self, request: Request<Bytes>) -> Result<Reply> {
        let url = request.uri().clone();
        tokio::time::timeout(DEADLINE, self.exchange(request))
            .await
            .with_context(|| format!("{url}: no answer within {DEADLINE:?}"))?
            .with_context(|| url.to_string())
    }

    async fn exchange(&mut self, request: Request<Bytes>) -> Result<Reply> {
        let mut request = request.map(Full::new);
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                let uri = request.uri();
                let host = uri.authority().ok_or_else(|| anyhow!("no host"))?.as_str();
                let host = HeaderValue::from_str(host)?;
                let path = uri.path_and_query().map_or("/", |path| path.as_str());
                let target: Uri = path.parse()?;
                *request.uri_mut() = target;
                // One that the test has set is the test's business.
                request.headers_mut().entry(header::HOST).or_insert(host);
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let (head, body) = response.into_parts();
        let body = body.collect().await?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let bytes = body.to_bytes();
        Ok(Reply {
            status: head.status,
            version: head.version,
            headers: head.headers,
            body: String::from_utf8_lossy(&bytes).into_owned(),
            bytes,
            trailers,
        })
    }
}

/// Runs `curl` and returns what it printed.
pub async fn curl(arguments: &[&str]) -> Result<String> {
    let output = tokio::process::Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "10"])
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("curl")?;
    if !output.status.success() {
        bail!(
            "curl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn config(roots: RootCertStore) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // A resumed session shows the certificate that it began with.
    config.resumption = Resumption::disabled();
    Ok(config)
}
