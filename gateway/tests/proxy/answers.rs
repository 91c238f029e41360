//! What Lockgate answers by itself, and what it adds to what others answer.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::{
    Action, Certificate, CertificateId, Filter, HeaderChange, HostPattern, Hsts, HttpsRedirect,
    KeyAlgorithm, KeyFormat, PrivateKey, Redacted, Redirect, RoutingModel, TlsHost, TlsPolicy,
    TlsVersion,
};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::{
    Answer, Site, add_backend, add_route, backend, echo, filtered, forward, full, model, origin,
    read_head, soon, to,
};

fn https_redirect() -> Filter {
    Filter::HttpsRedirect(HttpsRedirect {
        status: 308,
        except: vec!["/.well-known/acme-challenge".to_owned()],
    })
}

#[tokio::test]
async fn plain_http_goes_to_https_except_for_challenges() {
    let site = Site::start(filtered(echo("web").await, https_redirect()));
    let answer = site.get("Shop.test:8080", "/a/../b?c=d").await;
    assert_eq!(answer.status, 308);
    assert_eq!(answer.header("location"), Some("https://shop.test/b?c=d"));
    assert_eq!(site.log.of("/a/../b").await["reason"], "https-redirect");
    let challenge = site
        .get("shop.test", "/.well-known/acme-challenge/token")
        .await;
    assert_eq!(challenge.status, 200);
    let claimed = site
        .get_with("shop.test", "/", &[("x-forwarded-proto", "https")])
        .await;
    assert_eq!(claimed.status, 308, "anybody can claim that");
}

#[tokio::test]
async fn a_trusted_peer_that_spoke_https_is_not_redirected() {
    let mut model = filtered(echo("web").await, https_redirect());
    model.trust.forwarded_headers_from = vec!["127.0.0.0/8".parse().unwrap()];
    let site = Site::start(model);
    for (proto, want) in [("https", 200), ("http", 308)] {
        let answer = site
            .get_with("a.test", "/", &[("x-forwarded-proto", proto)])
            .await;
        assert_eq!(answer.status, want, "{proto}");
    }
}

#[tokio::test]
async fn routes_can_redirect_and_respond() {
    let mut model = model();
    let redirect = Redirect {
        status: 302,
        host: Some("new.test".to_owned()),
        ..Redirect::default()
    };
    let redirect = Action::Redirect(Box::new(redirect));
    add_route(&mut model, "a.test", "/moved", redirect);
    let respond = Action::Respond {
        status: 503,
        reason: "closed-today".to_owned(),
    };
    add_route(&mut model, "a.test", "/", respond);
    let site = Site::start(model);
    let answer = site.get("a.test", "/moved/x?y").await;
    assert_eq!(answer.status, 302);
    assert_eq!(answer.header("location"), Some("http://new.test/moved/x?y"));
    let answer = site.get("a.test", "/closed").await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (503, "503 Service Unavailable\n")
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(site.log.of("/closed").await["reason"], "closed-today");
}

#[tokio::test]
async fn headers_change_on_both_ways() {
    let web = backend(|request| async move {
        let seen: Vec<_> = request.headers().get_all("x-add").iter().collect();
        let seen = format!("{seen:?} {:?}", request.headers().get("x-gone"));
        Response::builder()
            .header("x-secret", "1")
            .header("x-old", "1")
            .body(full(seen))
            .unwrap()
    })
    .await;
    let mut model = filtered(
        web,
        Filter::RequestHeaders(HeaderChange {
            remove: vec!["X-Gone".to_owned()],
            set: vec![],
            add: vec![("X-Add".to_owned(), "b".to_owned())],
        }),
    );
    let pattern = HostPattern::Any;
    let mut host = (*model.hosts[&pattern]).clone();
    host.routes[0]
        .filters
        .push(Filter::ResponseHeaders(HeaderChange {
            remove: vec!["X-Secret".to_owned()],
            set: vec![("X-Old".to_owned(), "2".to_owned())],
            add: vec![("X-New".to_owned(), "3".to_owned())],
        }));
    model.hosts.insert(pattern, Arc::new(host));
    let site = Site::start(model);
    let answer = site
        .get_with("a.test", "/", &[("x-gone", "1"), ("x-add", "a")])
        .await;
    assert_eq!(answer.body, "[\"a\", \"b\"] None");
    assert_eq!(answer.header("x-secret"), None);
    assert_eq!(answer.header("x-old"), Some("2"));
    assert_eq!(answer.header("x-new"), Some("3"));
}

#[tokio::test]
async fn an_answer_to_a_small_body_keeps_the_connection() {
    let site = Site::start(model());
    let mut stream = TcpStream::connect(site.http).await.unwrap();
    for (request, want) in [
        (
            "POST /one HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc",
            "connection: keep-alive",
        ),
        (
            "GET /two HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
            "connection: close",
        ),
    ] {
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = soon(read_head(&mut stream)).await.unwrap().to_lowercase();
        assert!(
            head.starts_with("http/1.1 404 ") && head.contains(want),
            "{head}"
        );
        let mut body = vec![0; "404 Not Found\n".len()];
        soon(stream.read_exact(&mut body)).await.unwrap();
    }
}

// ---- with TLS ----

pub(crate) struct Tls {
    client: Arc<ClientConfig>,
}

/// Adds one certificate for all names with a policy for each, and makes a client that trusts it.
pub(crate) fn add_tls(model: &mut RoutingModel, names: &[(&str, TlsPolicy)], alpn: &str) -> Tls {
    let key = KeyPair::generate().unwrap();
    let all: Vec<String> = names.iter().map(|(name, _)| (*name).to_owned()).collect();
    let made = CertificateParams::new(all.clone())
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let id = CertificateId::new("all");
    model.certificates.insert(
        id.clone(),
        Arc::new(Certificate {
            chain: vec![made.der().to_vec()],
            key: PrivateKey {
                format: KeyFormat::Pkcs8,
                der: Redacted::new(key.serialize_der()),
            },
            algorithm: KeyAlgorithm::Ecdsa,
            names: all,
            not_before: 0,
            not_after: 4_000_000_000,
            fingerprint: "test".to_owned(),
            origin: origin("tls"),
        }),
    );
    for (name, policy) in names {
        model.tls_hosts.insert(
            HostPattern::parse(name).unwrap(),
            Arc::new(TlsHost {
                certificates: vec![id.clone()],
                policy: policy.clone(),
                origin: origin("tls"),
            }),
        );
    }
    model.default_tls = model.tls_hosts.values().next().cloned();
    let mut roots = RootCertStore::empty();
    roots.add(made.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    Tls {
        client: Arc::new(client),
    }
}

impl Tls {
    async fn connect(
        &self,
        address: SocketAddr,
        name: &str,
    ) -> tokio_rustls::client::TlsStream<TcpStream> {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        soon(TlsConnector::from(Arc::clone(&self.client)).connect(name, stream))
            .await
            .unwrap()
    }

    /// One HTTP/1.1 request on a connection made for `name`.
    async fn get(&self, site: &Site, name: &str, host: &str, path: &str) -> Answer {
        let stream = self.connect(site.https, name).await;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let request = Request::get(path).header("host", host);
        let request = request.body(Full::new(Bytes::new())).unwrap();
        Answer::read(soon(sender.send_request(request)).await.unwrap()).await
    }
}

#[tokio::test]
async fn hsts_is_set_over_tls_only_and_replaces_the_backends() {
    let web = backend(|_| async {
        Response::builder()
            .header("strict-transport-security", "max-age=1")
            .body(full(""))
            .unwrap()
    })
    .await;
    let mut model = filtered(
        web,
        Filter::Hsts(Hsts {
            max_age: 31_536_000,
            include_subdomains: true,
            preload: false,
        }),
    );
    let tls = add_tls(&mut model, &[("a.test", TlsPolicy::default())], "http/1.1");
    let site = Site::start(model);
    let secure = tls.get(&site, "a.test", "a.test", "/").await;
    let values: Vec<_> = secure
        .headers
        .get_all("strict-transport-security")
        .iter()
        .collect();
    assert_eq!(values, ["max-age=31536000; includeSubDomains"]);
    let plain = site.get("a.test", "/").await;
    assert_eq!(
        plain.header("strict-transport-security"),
        Some("max-age=1"),
        "the backend's own is not ours to judge there"
    );
}

#[tokio::test]
async fn over_tls_the_backend_sees_https_and_the_log_the_handshake() {
    let mut model = to(echo("web").await);
    let tls = add_tls(&mut model, &[("a.test", TlsPolicy::default())], "http/1.1");
    let site = Site::start(model);
    let answer = tls.get(&site, "a.test", "a.test", "/secure").await;
    for (name, want) in [
        ("x-forwarded-proto", "https"),
        ("x-forwarded-scheme", "https"),
        ("x-scheme", "https"),
        ("x-forwarded-port", "443"),
    ] {
        assert_eq!(answer.seen_header(name), [want], "{name}");
    }
    let line = site.log.of("/secure").await;
    assert_eq!(line["scheme"], "https");
    assert_eq!(line["tls_version"], "TLSv1.3");
    assert_eq!(line["sni"], "a.test");
    assert!(line["tls_cipher"].is_string());
}

#[tokio::test]
async fn a_host_with_another_tls_policy_is_misdirected() {
    let strict = TlsPolicy {
        min_version: TlsVersion::V1_3,
        ..TlsPolicy::default()
    };
    let names = [
        ("a.test", TlsPolicy::default()),
        ("b.test", TlsPolicy::default()),
        ("strict.test", strict),
    ];
    let mut model = to(echo("web").await);
    let tls = add_tls(&mut model, &names, "http/1.1");
    let site = Site::start(model);
    for (name, host, want) in [
        ("a.test", "a.test", 200),
        ("a.test", "b.test", 200),
        ("a.test", "B.test.:443", 200),
        ("a.test", "strict.test", 421),
        ("a.test", "STRICT.test.", 421),
        ("strict.test", "strict.test", 200),
        ("strict.test", "a.test", 421),
    ] {
        let path = format!("/{name}/{host}");
        let answer = tls.get(&site, name, host, &path).await;
        assert_eq!(answer.status, want, "{path}");
        if want == 421 {
            assert_eq!(site.log.of(&path).await["reason"], "misdirected");
        }
    }
    assert_eq!(
        site.get("strict.test", "/").await.status,
        200,
        "no TLS, no policy"
    );
}

#[tokio::test]
async fn http2_over_tls_coalesces_names_of_one_policy() {
    let strict = TlsPolicy {
        min_version: TlsVersion::V1_3,
        ..TlsPolicy::default()
    };
    let names = [("a.test", TlsPolicy::default()), ("strict.test", strict)];
    let mut model = model();
    add_backend(&mut model, "web", &[echo("web").await]);
    add_route(&mut model, "*", "/", forward("web"));
    let tls = add_tls(&mut model, &names, "h2");
    let site = Site::start(model);
    let stream = tls.connect(site.https, "a.test").await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    for (host, want) in [("a.test", 200), ("strict.test", 421), ("a.test", 200)] {
        let request = Request::get(format!("https://{host}/"));
        let request = request.body(Full::new(Bytes::new())).unwrap();
        let response = soon(sender.send_request(request)).await.unwrap();
        assert_eq!(response.status().as_u16(), want, "{host}");
    }
}
