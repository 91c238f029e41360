//! TLS towards backends: who they have to be, and who we are.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use model::{
    BackendProtocol, BackendTls, Certificate, Endpoint, EndpointSet, Filter, KeyAlgorithm,
    KeyFormat, PrivateKey, Redacted, RoutingModel,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::{Site, add_backend_of, add_route_with, forward, model, origin, seen};

pub(crate) type Issuer = CertifiedIssuer<'static, KeyPair>;

pub(crate) fn authority() -> Issuer {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn issued(by: &Issuer, name: &str) -> (CertificateDer<'static>, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    let made = params.signed_by(&key, by).unwrap();
    (made.der().clone(), key.serialize_der())
}

/// A backend of this name. With `clients` it takes only those whose certificates are from there.
pub(crate) async fn backend(by: &Issuer, name: &str, clients: Option<&Issuer>) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (certificate, key) = issued(by, name);
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(clients.der().clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        }
    };
    let key = PrivateKeyDer::try_from(key).unwrap();
    let config = builder.with_single_cert(vec![certificate], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Some clients are refused, and some refuse.
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = hyper::service::service_fn(|request| async {
                    Ok::<_, std::convert::Infallible>(seen("tls", request).await)
                });
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

pub(crate) fn tls(number: u8, authority: Option<&Issuer>, name: Option<&str>) -> BackendTls {
    BackendTls {
        fingerprint: format!("{number:032x}")
            .chars()
            .rev()
            .collect::<String>()
            .into(),
        client: None,
        authorities: authority.map(|authority| Arc::new(vec![authority.der().to_vec()])),
        name: name.map(Into::into),
    }
}

/// Who we are.
pub(crate) fn client(by: &Issuer) -> Certificate {
    let (certificate, key) = issued(by, "lockgate");
    Certificate {
        names: vec!["lockgate".to_owned()],
        not_before: 0,
        not_after: i64::MAX,
        fingerprint: "c".to_owned(),
        algorithm: KeyAlgorithm::Ecdsa,
        key: PrivateKey {
            format: KeyFormat::Pkcs8,
            der: Redacted::new(key),
        },
        chain: vec![certificate.to_vec()],
        origin: origin("client"),
    }
}

fn route(model: &mut RoutingModel, host: &str, tls: BackendTls) {
    add_route_with(model, host, "/", forward("web"), |route| {
        route.filters.push(Filter::BackendTls(Arc::new(tls)));
    });
}

fn serving(address: SocketAddr) -> RoutingModel {
    let mut model = model();
    let set = EndpointSet::Addresses(vec![Endpoint::new(address)]);
    add_backend_of(&mut model, "web", BackendProtocol::Https, set);
    model
}

#[tokio::test]
async fn a_backend_has_to_be_who_it_is_meant_to_be() {
    let (own, foreign) = (authority(), authority());
    let mut model = serving(backend(&own, "web.shop.svc", None).await);
    route(&mut model, "good.test", tls(1, Some(&own), None));
    route(&mut model, "foreign.test", tls(2, Some(&foreign), None));
    route(
        &mut model,
        "name.test",
        tls(3, Some(&own), Some("other.test")),
    );
    route(
        &mut model,
        "same.test",
        tls(4, Some(&own), Some("web.shop.svc")),
    );
    route(
        &mut model,
        "unverified.test",
        tls(5, None, Some("other.test")),
    );
    let site = Site::start(model);
    // Twice: a connection that one route has verified is there when the next one asks.
    for _ in 0..2 {
        for (host, want) in [
            ("good.test", 200),
            ("unverified.test", 200),
            ("same.test", 200),
            ("foreign.test", 502),
            ("name.test", 502),
        ] {
            let answer = site.get(host, "/").await;
            assert_eq!(answer.status, want, "{host}: {}", site.log.text());
        }
    }
}

#[tokio::test]
async fn a_backend_is_told_who_we_are() {
    let (servers, clients) = (authority(), authority());
    let address = backend(&servers, "web.shop.svc", Some(&clients)).await;
    let mut model = serving(address);
    let with = BackendTls {
        client: Some(Arc::new(client(&clients))),
        ..tls(6, Some(&servers), None)
    };
    route(&mut model, "with.test", with);
    route(&mut model, "without.test", tls(7, Some(&servers), None));
    let site = Site::start(model);
    for _ in 0..2 {
        assert_eq!(
            site.get("with.test", "/").await.status,
            200,
            "{}",
            site.log.text()
        );
        let answer = site.get("without.test", "/").await;
        assert_eq!(
            answer.status, 502,
            "the connection of another route is not used"
        );
    }
}
