//! A client that does what it is told: this address, this server name, this host.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme,
    WantsVerifier,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::manifest::Pair;

/// How long anything that is waited for may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    /// The server's certificate in DER; empty without TLS.
    pub(crate) certificate: Vec<u8>,
}

impl Answer {
    /// A header as text; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

/// Gets `path` of `host` over plain HTTP.
pub(crate) async fn get(address: SocketAddr, host: &str, path: &str) -> anyhow::Result<Answer> {
    let exchange = async {
        let stream = TcpStream::connect(address).await?;
        exchange(stream, asking(host, path)?, Vec::new()).await
    };
    timeout(PATIENCE, exchange)
        .await
        .context("no answer in time")?
}

/// Gets `path` of `host` over TLS, with `host` as server name.
pub(crate) async fn get_tls(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    host: &str,
    path: &str,
) -> anyhow::Result<Answer> {
    send_tls(address, config, host, asking(host, path)?).await
}

/// Sends a request over TLS, with `host` as server name.
pub(crate) async fn send_tls(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    host: &str,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Answer> {
    let exchange = async {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from(host.to_owned())?;
        let stream = TlsConnector::from(Arc::clone(config))
            .connect(name, stream)
            .await?;
        let certificates = stream.get_ref().1.peer_certificates();
        let certificate = certificates
            .and_then(<[_]>::first)
            .map_or_else(Vec::new, |of| of.to_vec());
        exchange(stream, request, certificate).await
    };
    timeout(PATIENCE, exchange)
        .await
        .context("no answer in time")?
}

/// Reads a header section; nothing at the end of the connection.
pub(crate) async fn head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

fn asking(host: &str, path: &str) -> anyhow::Result<Request<Full<Bytes>>> {
    Ok(Request::get(path)
        .header("host", host)
        .body(Full::default())?)
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
    certificate: Vec<u8>,
) -> anyhow::Result<Answer> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    driver.abort();
    Ok(Answer {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8(body.to_vec())?,
        certificate,
    })
}

/// A test that runs alone has nobody else to say which library computes.
fn builder() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    // An error means that it has been said.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    ClientConfig::builder()
}

/// A client that trusts these authorities.
pub(crate) fn trusting(roots: RootCertStore) -> Arc<ClientConfig> {
    fresh(
        builder()
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}

/// A client that trusts these authorities and has a certificate itself.
pub(crate) fn trusting_as(roots: RootCertStore, own: &Pair) -> Arc<ClientConfig> {
    let chain = vec![CertificateDer::from(own.der.clone())];
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
    fresh(
        builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap(),
    )
}

/// A client that takes every certificate, to look at it.
pub(crate) fn curious() -> Arc<ClientConfig> {
    let provider = CryptoProvider::get_default().unwrap().as_ref().clone();
    let verifier = Arc::new(AnyCertificate(provider));
    let builder = builder().dangerous();
    fresh(
        builder
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth(),
    )
}

/// A resumed session shows the certificate of the first one.
fn fresh(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

#[derive(Debug)]
struct AnyCertificate(CryptoProvider);

impl ServerCertVerifier for AnyCertificate {
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
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
