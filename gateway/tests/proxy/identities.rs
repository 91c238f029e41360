//! Clients with certificates of their own, and hosts for them.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use model::{
    Certificate, CertificateId, KeyAlgorithm, KeyFormat, PrivateKey, Redacted, RoutingModel,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{Site, model, origin, soon};

#[path = "../../table/tests/common/old.rs"]
mod old;

pub(crate) type Issuer = CertifiedIssuer<'static, KeyPair>;

pub(crate) fn authority(name: &str) -> Issuer {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate with its key.
#[derive(Debug)]
pub(crate) struct Identity(Arc<CertifiedKey>);

impl Identity {
    pub(crate) fn new(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Self {
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
        Self(Arc::new(CertifiedKey::new(chain, key)))
    }

    pub(crate) fn issued(by: &Issuer, name: &str) -> Self {
        Self::issued_until(by, name, 2040)
    }

    pub(crate) fn issued_until(by: &Issuer, name: &str, year: i32) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, by).unwrap();
        Self::new(vec![made.der().clone()], &key)
    }

    pub(crate) fn of_version_1(by: &Issuer, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, by).unwrap();
        let der = old::version_1(made.der(), by.key());
        Self::new(vec![der.into()], &key)
    }

    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        &self.0.cert[0]
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Hosts that all have one certificate.
pub(crate) struct Hosts {
    pub(crate) model: RoutingModel,
    pub(crate) roots: RootCertStore,
}

pub(crate) fn hosts(names: &[&str]) -> Hosts {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let params = CertificateParams::new(names.clone()).unwrap();
    let made = params.self_signed(&key).unwrap();
    let mut model = model();
    model.certificates.insert(
        CertificateId::new("all"),
        Arc::new(Certificate {
            chain: vec![made.der().to_vec()],
            key: PrivateKey {
                format: KeyFormat::Pkcs8,
                der: Redacted::new(key.serialize_der()),
            },
            algorithm: KeyAlgorithm::Ecdsa,
            names,
            not_before: 0,
            not_after: 4_000_000_000,
            fingerprint: "test".to_owned(),
            origin: origin("tls"),
        }),
    );
    let mut roots = RootCertStore::empty();
    roots.add(made.der().clone()).unwrap();
    Hosts { model, roots }
}

/// A client with or without a certificate.
pub(crate) struct Client(Arc<ClientConfig>);

impl Client {
    pub(crate) fn new(
        roots: &RootCertStore,
        identity: Option<&Arc<Identity>>,
        alpn: &str,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots.clone());
        let mut config = match identity {
            Some(identity) => {
                let resolver: Arc<dyn ResolvesClientCert> = identity.clone();
                builder.with_client_cert_resolver(resolver)
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        Self(Arc::new(config))
    }

    pub(crate) async fn connect(
        &self,
        site: &Site,
        name: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        connect(&self.0, site.https, name).await
    }

    /// HTTP/1.1 on a connection for `name`.
    pub(crate) async fn http1(&self, site: &Site, name: &str) -> http1::SendRequest<Full<Bytes>> {
        let stream = self.connect(site, name).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }
}

async fn connect(
    config: &Arc<ClientConfig>,
    address: SocketAddr,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    soon(TlsConnector::from(Arc::clone(config)).connect(name, stream)).await
}
