//! A gateway, an origin and clients for the tests of this folder.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use gateway::{Gateway, Limits, Running, Settings};
use model::{
    Action, Backend, BackendId, BackendProtocol, Certificate, CertificateId, Changes, Endpoint,
    EndpointSet, HostPattern, KeyAlgorithm, KeyFormat, Listener, ListenerName, ListenerProtocol,
    ListenerSelector, NormalPath, ObjectRef, Origin, PathMatch, PrivateKey, Redacted, Route,
    RouteMatch, RoutingModel, Timeouts, TlsHost, TlsPolicy, VirtualHost, WeightedBackend,
};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use table::TableWriter;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::shared::METRICS;
pub(crate) use crate::shared::{counted, eventually, soon};

/// A running gateway.
pub(crate) struct Site {
    pub(crate) running: Running,
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    pub(crate) model: RoutingModel,
    writer: TableWriter,
}

impl Site {
    pub(crate) fn start(model: RoutingModel) -> Self {
        Self::limited(model, Limits::default())
    }

    pub(crate) fn limited(model: RoutingModel, limits: Limits) -> Self {
        LazyLock::force(&METRICS);
        let compiled = table::compile(&model);
        assert!(compiled.rejects.is_empty(), "{:?}", compiled.rejects);
        let (writer, reader) = table::channel(compiled.table);
        let local: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let settings = Settings {
            http: vec![local],
            https: vec![local],
            workers: 2,
            engine: crate::ENGINE,
            limits,
            access_log: None,
            ..Settings::default()
        };
        let gateway = Gateway::bind(settings, reader).unwrap();
        let (http, https) = (gateway.http_addresses()[0], gateway.https_addresses()[0]);
        Self {
            running: gateway.start().unwrap(),
            http,
            https,
            model,
            writer,
        }
    }

    /// Publishes what `change` makes of the model.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut RoutingModel)) {
        let before = self.model.clone();
        change(&mut self.model);
        let changes = Changes::between(&before, &self.model);
        let compiled = table::recompile(&self.writer.current(), &self.model, &changes);
        assert!(compiled.rejects.is_empty(), "{:?}", compiled.rejects);
        self.writer.publish(compiled.table);
    }

    pub(crate) async fn plain(&self) -> TcpStream {
        TcpStream::connect(self.http).await.unwrap()
    }

    /// Connects to the port for TLS and says nothing.
    pub(crate) async fn plain_tls(&self) -> TcpStream {
        TcpStream::connect(self.https).await.unwrap()
    }

    /// Connects with TLS; no server name is sent when `name` is an address.
    pub(crate) async fn tls(
        &self,
        name: &str,
        config: &Arc<ClientConfig>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let stream = TcpStream::connect(self.https).await?;
        soon(TlsConnector::from(Arc::clone(config)).connect(name, stream)).await
    }
}

/// A model with both listeners and nothing else.
pub(crate) fn empty() -> RoutingModel {
    let mut model = RoutingModel::default();
    for (name, protocol) in [
        (ListenerName::http(), ListenerProtocol::Http),
        (ListenerName::https(), ListenerProtocol::Https),
    ] {
        model.listeners.insert(name, Listener { protocol });
    }
    model
}

/// A certificate made for a test, with what a client sees of it.
#[derive(Clone)]
pub(crate) struct TestCertificate {
    pub(crate) der: CertificateDer<'static>,
    certificate: Arc<Certificate>,
}

pub(crate) fn certificate(name: &str, algorithm: KeyAlgorithm) -> TestCertificate {
    let key = match algorithm {
        KeyAlgorithm::Rsa => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
        KeyAlgorithm::Ecdsa => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        KeyAlgorithm::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
    }
    .unwrap();
    let made = CertificateParams::new([name.to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let certificate = Certificate {
        chain: vec![made.der().to_vec()],
        key: PrivateKey {
            format: KeyFormat::Pkcs8,
            der: Redacted::new(key.serialize_der()),
        },
        algorithm,
        names: vec![name.into()],
        not_before: 0,
        not_after: 4_000_000_000,
        fingerprint: format!("of {name}"),
        origin: origin(name),
    };
    TestCertificate {
        der: made.der().clone(),
        certificate: Arc::new(certificate),
    }
}

fn origin(name: &str) -> Origin {
    Origin::new(ObjectRef::new("Test", "", name), "")
}

/// Serves `pattern` (`default` for no or an unknown name) with these certificates.
pub(crate) fn serve_tls(
    model: &mut RoutingModel,
    pattern: &str,
    certificates: &[&TestCertificate],
    policy: TlsPolicy,
) {
    let mut ids = Vec::new();
    for (number, certificate) in certificates.iter().enumerate() {
        let id = CertificateId::new(&format!("{pattern}/{number}"));
        model
            .certificates
            .insert(id.clone(), Arc::clone(&certificate.certificate));
        ids.push(id);
    }
    let host = Arc::new(TlsHost {
        certificates: ids,
        policy,
        origin: origin(pattern),
    });
    if pattern == "default" {
        model.default_tls = Some(host);
    } else {
        let pattern = HostPattern::parse(pattern).unwrap();
        model.tls_hosts.insert(pattern, host);
    }
}

/// Sends every request to `address`.
pub(crate) fn forward(model: &mut RoutingModel, address: SocketAddr) {
    let id = BackendId::new("test", "origin", "80");
    let route = Route {
        matches: RouteMatch::path(PathMatch::Prefix(NormalPath::parse("/").unwrap())),
        listeners: ListenerSelector::All,
        filters: model::Filters::default(),
        action: Action::Forward(vec![WeightedBackend {
            backend: id.clone(),
            weight: 1,
        }]),
        timeouts: Timeouts::default(),
        body_limit: None,
        options: model::RareOptions::default(),
        origin: origin("route"),
    };
    model.hosts.insert(
        HostPattern::Any,
        Arc::new(VirtualHost {
            routes: vec![route],
        }),
    );
    model.backends.insert(
        id.clone(),
        Arc::new(Backend {
            protocol: BackendProtocol::Http1,
            seed: None,
            health: None,
            origin: origin("backend"),
        }),
    );
    let endpoints = EndpointSet::Addresses(vec![Endpoint::new(address)]);
    model.endpoints.insert(id, Arc::new(endpoints));
}

/// A server that answers every request with the header section it got. Requests for `/held` wait for a permit.
pub(crate) struct TestOrigin {
    pub(crate) address: SocketAddr,
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) arrived: Arc<Semaphore>,
}

impl TestOrigin {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Self {
            address: listener.local_addr().unwrap(),
            permits: Arc::new(Semaphore::new(0)),
            arrived: Arc::new(Semaphore::new(0)),
        };
        let (permits, arrived) = (Arc::clone(&origin.permits), Arc::clone(&origin.arrived));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (permits, arrived) = (Arc::clone(&permits), Arc::clone(&arrived));
                tokio::spawn(async move {
                    while let Some(head) = read_head(&mut stream).await {
                        arrived.add_permits(1);
                        if head.starts_with("GET /held ") {
                            permits.acquire().await.unwrap().forget();
                        }
                        let answer = format!(
                            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{head}",
                            head.len()
                        );
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        origin
    }

    /// Waits until a request has arrived.
    pub(crate) async fn arrival(&self) {
        soon(self.arrived.acquire()).await.unwrap().forget();
    }
}

async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(
        String::from_utf8(head)
            .unwrap()
            .to_ascii_lowercase()
            .replace("get /", "GET /"),
    )
}

/// An HTTP/1.1 response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Sends a request on a connection and reads the response.
pub(crate) async fn get<S>(stream: &mut S, host: &str, path: &str) -> Option<Response>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    ask(stream, host, path).await?;
    soon(answer(stream)).await
}

/// Sends a request.
pub(crate) async fn ask<S>(stream: &mut S, host: &str, path: &str) -> Option<()>
where
    S: AsyncWrite + Unpin,
{
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    stream.flush().await.ok()
}

/// Reads a response; `None` if the connection ends before it is complete.
pub(crate) async fn answer<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Response> {
    let head = read_head(stream).await?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Response {
        status,
        head,
        body: String::from_utf8(body).unwrap(),
    })
}

/// Waits for the end of a connection and returns what came before.
pub(crate) async fn until_closed<S: AsyncRead + Unpin>(stream: &mut S) -> Vec<u8> {
    let mut rest = Vec::new();
    // A reset is an end as well.
    let _ = soon(stream.read_to_end(&mut rest)).await;
    rest
}

/// What a client is willing to do.
pub(crate) struct Client {
    pub(crate) versions: Vec<&'static SupportedProtocolVersion>,
    pub(crate) alpn: &'static [&'static str],
    /// `None` for all.
    pub(crate) schemes: Option<&'static [SignatureScheme]>,
    pub(crate) groups: Option<Vec<&'static dyn rustls::crypto::SupportedKxGroup>>,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            versions: rustls::ALL_VERSIONS.to_vec(),
            alpn: &["http/1.1"],
            schemes: None,
            groups: None,
        }
    }
}

impl Client {
    pub(crate) fn config(self) -> Arc<ClientConfig> {
        let mut provider = aws_lc_rs::default_provider();
        if let Some(groups) = self.groups {
            provider.kx_groups = groups;
        }
        let provider = Arc::new(provider);
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&self.versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate {
                provider,
                schemes: self.schemes,
            }))
            .with_no_client_auth();
        config.alpn_protocols = self
            .alpn
            .iter()
            .map(|name| name.as_bytes().into())
            .collect();
        Arc::new(config)
    }
}

/// Takes every certificate, but checks that the server has its key.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
    schemes: Option<&'static [SignatureScheme]>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.map_or_else(
            || {
                self.provider
                    .signature_verification_algorithms
                    .supported_schemes()
            },
            <[_]>::to_vec,
        )
    }
}

/// The certificate that a client was shown.
pub(crate) fn shown(stream: &TlsStream<TcpStream>) -> &CertificateDer<'static> {
    &stream.get_ref().1.peer_certificates().unwrap()[0]
}
