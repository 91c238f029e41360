//! TLS towards backends: who they have to be, and who we are.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use model::{
    BackendProtocol, BackendTls, BackendTlsLimits, Certificate, Endpoint, EndpointSet, Filter,
    KeyAlgorithm, KeyFormat, PrivateKey, Redacted, RoutingModel, TlsVersion,
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
    serve(builder.with_single_cert(vec![certificate], key).unwrap()).await
}

/// A backend that speaks TLS like this.
async fn serve(config: ServerConfig) -> SocketAddr {
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
        limits: None,
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

/// A backend `web.shop.svc` that speaks only what is left, with a chain of its own.
async fn particular(
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
    keep: impl Fn(&rustls::SupportedCipherSuite) -> bool,
) -> SocketAddr {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.retain(keep);
    let versions: Vec<_> = [&rustls::version::TLS12, &rustls::version::TLS13]
        .into_iter()
        .filter(|version| {
            let mut suites = provider.cipher_suites.iter();
            suites.any(|suite| suite.version() == *version)
        })
        .collect();
    let key = PrivateKeyDer::try_from(key).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    serve(config).await
}

fn narrow(
    number: u8,
    authority: Option<&Issuer>,
    change: impl FnOnce(&mut BackendTlsLimits),
) -> BackendTls {
    let mut limits = BackendTlsLimits {
        version: None,
        cipher_suites: Vec::new(),
        depth: None,
        http2: false,
    };
    change(&mut limits);
    BackendTls {
        limits: Some(Box::new(limits)),
        ..tls(number, authority, None)
    }
}

async fn check(site: &Site, wanted: &[(&str, u16, &str)]) {
    // Twice: what one request leaves behind must not serve the next one.
    for _ in 0..2 {
        for (host, status, why) in wanted {
            let answer = site.get(host, "/").await;
            assert_eq!(answer.status, *status, "{why}: {}", site.log.text());
        }
    }
}

#[tokio::test]
async fn a_route_speaks_the_versions_and_suites_that_it_is_left() {
    const AES_128: &str = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";
    const AES_256: &str = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384";
    let own = authority();
    let (leaf, key) = issued(&own, "web.shop.svc");
    let old_suite = move |suite: &rustls::SupportedCipherSuite| {
        suite.suite().as_str().is_some_and(|name| name == AES_128)
    };
    let address = particular(vec![leaf.clone()], key.clone(), old_suite).await;
    let mut model = serving(address);
    let named = |suite: &str| vec![suite.to_owned()];
    for (number, host, authority, version, suites) in [
        (1, "old.test", Some(&own), Some(TlsVersion::V1_2), vec![]),
        (2, "new.test", Some(&own), Some(TlsVersion::V1_3), vec![]),
        (3, "suite.test", Some(&own), None, named(AES_128)),
        (4, "other-suite.test", Some(&own), None, named(AES_256)),
        (5, "anybody.test", None, None, named(AES_128)),
        (6, "nobody.test", None, None, named(AES_256)),
        (
            7,
            "stranger.test",
            Some(&authority()),
            Some(TlsVersion::V1_2),
            vec![],
        ),
    ] {
        let tls = narrow(number, authority, |limits| {
            limits.version = version;
            limits.cipher_suites = suites;
        });
        route(&mut model, host, tls);
    }
    let site = Site::start(model);
    check(
        &site,
        &[
            ("old.test", 200, "the version is right"),
            ("new.test", 502, "the backend does not speak this version"),
            ("suite.test", 200, "the suite is right"),
            ("other-suite.test", 502, "the backend does not have it"),
            (
                "anybody.test",
                200,
                "nobody is verified, the suite is right",
            ),
            ("nobody.test", 502, "nobody is verified, the suite is not"),
            ("stranger.test", 502, "it is still verified"),
        ],
    )
    .await;

    let new_suites =
        |suite: &rustls::SupportedCipherSuite| suite.version() == &rustls::version::TLS13;
    let address = particular(vec![leaf], key, new_suites).await;
    let mut model = serving(address);
    for (number, host, version) in [
        (1, "old.test", TlsVersion::V1_2),
        (2, "new.test", TlsVersion::V1_3),
    ] {
        let tls = narrow(number, Some(&own), |limits| limits.version = Some(version));
        route(&mut model, host, tls);
    }
    let site = Site::start(model);
    check(
        &site,
        &[
            ("old.test", 502, "the backend does not speak this version"),
            ("new.test", 200, "the version is right"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_chain_is_no_longer_than_it_may_be() {
    let own = authority();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "between");
    let between = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &own).unwrap();
    let (leaf, key) = issued(&between, "web.shop.svc");
    let chain = vec![leaf, between.der().clone()];
    let mut model = serving(particular(chain, key, |_| true).await);
    for (number, host, depth) in [
        (1, "none.test", Some(0)),
        (2, "one.test", Some(1)),
        (3, "any.test", None),
    ] {
        let tls = narrow(number, Some(&own), |limits| {
            limits.version = Some(TlsVersion::V1_3);
            limits.depth = depth;
        });
        route(&mut model, host, tls);
    }
    let tls = narrow(4, None, |limits| limits.depth = Some(0));
    route(&mut model, "unverified.test", tls);
    let site = Site::start(model);
    check(
        &site,
        &[
            ("none.test", 502, "one authority stands between"),
            ("one.test", 200, "one may"),
            ("any.test", 200, "any number may"),
            ("unverified.test", 200, "nobody is verified"),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_is_spoken_over_narrow_tls_is_not_left_to_the_backend() {
    let own = authority();
    let (leaf, key) = issued(&own, "web.shop.svc");
    let mut model = serving(particular(vec![leaf], key, |_| true).await);
    for (number, host, http2) in [(1, "one.test", false), (2, "two.test", true)] {
        let tls = narrow(number, Some(&own), |limits| {
            limits.version = Some(TlsVersion::V1_3);
            limits.http2 = http2;
        });
        route(&mut model, host, tls);
    }
    let site = Site::start(model);
    for _ in 0..2 {
        for (host, version) in [("one.test", "HTTP/1.1"), ("two.test", "HTTP/2.0")] {
            let answer = site.get(host, "/").await;
            assert_eq!(answer.status, 200, "{}", site.log.text());
            assert_eq!(answer.seen()["version"], version);
        }
    }
}
