//! One check of one endpoint.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::{BackendProtocol, BackendTls, CheckKind, EndpointSet, HealthCheck};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use table::CompiledBackend;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::external::Anybody;

/// The name under which the endpoints of a backend are known, where the route has no other one.
pub(crate) fn server_name(backend: &CompiledBackend, name: Option<&str>) -> String {
    match (name, &*backend.endpoints) {
        (Some(name), _) => name.to_owned(),
        (None, EndpointSet::Dns { host, .. }) => host.as_str().to_owned(),
        (None, EndpointSet::Addresses(_) | EndpointSet::Invalid(_)) => {
            format!("{}.{}.svc", backend.id.service, backend.id.namespace)
        }
    }
}

/// How the endpoints of one backend are checked.
pub(super) struct Probe {
    check: HealthCheck,
    /// HTTP/2 is spoken where TLS does not decide.
    http2: bool,
    host: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// Why an endpoint has not passed.
pub(super) type Cause = Box<dyn std::error::Error + Send + Sync>;

impl Probe {
    /// By what the backend asks for, and by how it is spoken to.
    pub(super) fn new(backend: &CompiledBackend, check: &HealthCheck) -> Result<Self, Cause> {
        let tls = check.tls.as_deref();
        let name = server_name(backend, tls.and_then(|tls| tls.name.as_deref()));
        let over_tls = backend.protocol == BackendProtocol::Https && check.kind != CheckKind::Tcp;
        let grpc = matches!(check.kind, CheckKind::Grpc { .. });
        Ok(Self {
            http2: grpc || backend.protocol == BackendProtocol::H2c,
            tls: if over_tls {
                let config = config(tls, grpc)?;
                Some((
                    TlsConnector::from(Arc::new(config)),
                    ServerName::try_from(name.clone())?,
                ))
            } else {
                None
            },
            host: check.host.clone().unwrap_or(name),
            check: check.clone(),
        })
    }

    /// Checks an endpoint once.
    pub(super) async fn run(&self, address: SocketAddr) -> Result<(), Cause> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        if self.check.kind == CheckKind::Tcp {
            return Ok(());
        }
        match &self.tls {
            None => self.ask(stream, self.http2).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await?;
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                self.ask(stream, http2 || self.http2).await
            }
        }
    }

    async fn ask<S>(&self, stream: S, http2: bool) -> Result<(), Cause>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let request = self.request(http2)?;
        let io = TokioIo::new(stream);
        if http2 {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            let judged = async { self.judge(sender.send_request(request).await?).await };
            // Whoever asks is what keeps the connection alive.
            tokio::select! {
                judged = judged => judged,
                ended = connection => Err(ended.err().map_or_else(closed, Cause::from)),
            }
        } else {
            let (mut sender, connection) = http1::handshake(io).await?;
            let judged = async { self.judge(sender.send_request(request).await?).await };
            tokio::pin!(judged, connection);
            tokio::select! {
                biased;
                judged = &mut judged => judged,
                // A connection may end with the response that has come on it.
                ended = &mut connection => match ended {
                    Ok(()) => judged.await,
                    Err(error) => Err(error.into()),
                },
            }
        }
    }

    fn request(&self, http2: bool) -> Result<Request<Full<Bytes>>, Cause> {
        let (method, path, body) = match &self.check.kind {
            CheckKind::Http { path, .. } => (Method::GET, path.as_str(), Bytes::new()),
            CheckKind::Grpc { service } => (
                Method::POST,
                "/grpc.health.v1.Health/Check",
                question(service),
            ),
            CheckKind::Tcp => return Err(closed()),
        };
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let uri: Uri = if http2 {
            Uri::builder()
                .scheme(scheme)
                .authority(self.host.as_str())
                .path_and_query(path)
                .build()?
        } else {
            path.parse()?
        };
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header(USER_AGENT, "lockgate-health-check");
        if http2 {
            request = request.version(Version::HTTP_2);
        } else {
            request = request.header(HOST, self.host.as_str());
        }
        if matches!(self.check.kind, CheckKind::Grpc { .. }) {
            request = request
                .header(CONTENT_TYPE, "application/grpc")
                .header(TE, "trailers");
        }
        Ok(request.body(Full::new(body))?)
    }

    async fn judge(&self, response: Response<Incoming>) -> Result<(), Cause> {
        let status = response.status();
        match &self.check.kind {
            CheckKind::Http { from, to, .. } => {
                if (*from..=*to).contains(&status.as_u16()) {
                    return Ok(());
                }
                Err(format!("it answers {status}").into())
            }
            CheckKind::Grpc { .. } if status != StatusCode::OK => {
                Err(format!("it answers {status}").into())
            }
            CheckKind::Grpc { .. } => is_serving(response).await,
            CheckKind::Tcp => Ok(()),
        }
    }
}

fn closed() -> Cause {
    io::Error::from(io::ErrorKind::ConnectionAborted).into()
}

/// A message of gRPC with a `HealthCheckRequest`: field 1 is the name of the service.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        let length = u8::try_from(service.len()).unwrap_or(0);
        // The names are shorter than 128 bytes, so that their length is one byte.
        message.extend_from_slice(&[0x0a, length]);
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(0);
    let mut framed = BytesMut::from(&[0_u8][..]);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(&message);
    framed.freeze()
}

/// How large an answer may be.
const MOST_ANSWER: usize = 1024;

/// Does a `HealthCheckResponse` say `SERVING`, with a status of gRPC that is good?
async fn is_serving(response: Response<Incoming>) -> Result<(), Cause> {
    let refused = |status: &str| Cause::from(format!("gRPC status {status}"));
    let (parts, mut body) = response.into_parts();
    if let Some(status) = parts.headers.get("grpc-status") {
        // Without a message.
        return Err(refused(status.to_str().unwrap_or_default()));
    }
    let mut answer = Vec::new();
    let mut status = None;
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        if let Some(data) = frame.data_ref() {
            if answer.len() + data.len() > MOST_ANSWER {
                return Err("its answer is too long".into());
            }
            answer.extend_from_slice(data);
        } else if let Some(trailers) = frame.trailers_ref() {
            status = trailers.get("grpc-status").cloned();
        }
    }
    let status = status.ok_or("its answer has no status")?;
    if status != "0" {
        return Err(refused(status.to_str().unwrap_or_default()));
    }
    match serving_status(&answer) {
        Some(1) => Ok(()),
        Some(other) => Err(format!("it says that its state is {other}").into()),
        None => Err("its answer cannot be read".into()),
    }
}

/// Field 1 of the message: 1 is `SERVING`. Nothing at all is 0, `UNKNOWN`.
fn serving_status(framed: &[u8]) -> Option<u8> {
    let (prefix, message) = framed.split_first_chunk::<5>()?;
    let [compressed, length @ ..] = *prefix;
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    if compressed != 0 || message.len() != length {
        return None;
    }
    match message {
        [] => Some(0),
        // One byte holds every state that there is.
        [0x08, state] if *state < 128 => Some(*state),
        _ => None,
    }
}

/// TLS as the route asks for it.
fn config(tls: Option<&BackendTls>, grpc: bool) -> Result<ClientConfig, Cause> {
    if let Some(tls) = tls
        && let Some(limits) = &tls.limits
    {
        let mut limits = limits.clone();
        limits.http2 |= grpc;
        return Ok(table::narrow_client(tls, &limits)?);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match tls.and_then(|tls| tls.authorities.as_ref()) {
        Some(authorities) => {
            let mut roots = RootCertStore::empty();
            for der in authorities.iter() {
                roots.add(CertificateDer::from(der.clone()))?;
            }
            builder.with_root_certificates(roots)
        }
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody::new(provider))),
    };
    let mut config = match tls.and_then(|tls| tls.client.as_ref()) {
        Some(client) => {
            let chain = client.chain.iter().cloned().map(CertificateDer::from);
            let key = table::key_der(&client.key);
            builder.with_client_auth_cert(chain.collect(), key)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    if !grpc {
        config.alpn_protocols.push(b"http/1.1".to_vec());
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_grpc_are_as_the_protocol_has_them() {
        assert_eq!(&question("")[..], b"\0\0\0\0\0");
        assert_eq!(&question("a.B")[..], b"\0\0\0\0\x05\x0a\x03a.B");
        for (bytes, want, why) in [
            (&b"\0\0\0\0\x02\x08\x01"[..], Some(1), "serving"),
            (b"\0\0\0\0\x02\x08\x02", Some(2), "not serving"),
            (b"\0\0\0\0\0", Some(0), "the default is left out"),
            (b"\x01\0\0\0\x02\x08\x01", None, "compressed"),
            (b"\0\0\0\0\x03\x08\x01", None, "cut off"),
            (b"\0\0\0\0\x02\x10\x01", None, "another field"),
            (b"\0\0", None, "no frame"),
        ] {
            assert_eq!(serving_status(bytes), want, "{why}");
        }
    }
}
