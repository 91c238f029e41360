//! Which endpoint gets a request.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::Response;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use model::{Action, BackendProtocol, Endpoint, EndpointSet, HostName, WeightedBackend};
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::{
    Site, add_backend, add_backend_of, add_route, backend_id, counted, echo, eventually, forward,
    full, model, nobody, raw_backend, read_head, seen, to,
};

async fn count(site: &Site, requests: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        let answer = site.get("a.test", "/").await;
        assert_eq!(answer.status, 200);
        *counts.entry(answer.origin().to_owned()).or_default() += 1;
    }
    counts
}

fn expected(counts: &[(&str, usize)]) -> BTreeMap<String, usize> {
    counts
        .iter()
        .map(|(name, count)| ((*name).to_owned(), *count))
        .collect()
}

#[tokio::test]
async fn endpoints_take_turns() {
    let mut model = model();
    let endpoints = [echo("one").await, echo("two").await, echo("three").await];
    add_backend(&mut model, "web", &endpoints);
    add_route(&mut model, "*", "/", forward("web"));
    let mut site = Site::start(model);
    assert_eq!(
        count(&site, 30).await,
        expected(&[("one", 10), ("two", 10), ("three", 10)])
    );
    site.change(|model| add_backend(model, "web", &endpoints[..2]));
    assert_eq!(
        count(&site, 20).await,
        expected(&[("one", 10), ("two", 10)])
    );
}

#[tokio::test]
async fn weights_divide_requests_between_backends() {
    let mut model = model();
    let weighted = |name: &str, weight| WeightedBackend {
        backend: backend_id(name),
        weight,
    };
    add_backend(&mut model, "web", &[echo("web").await]);
    add_backend(&mut model, "canary", &[echo("canary").await]);
    let action = Action::Forward(vec![weighted("web", 3), weighted("canary", 1)]);
    add_route(&mut model, "*", "/", action);
    let never = Action::Forward(vec![weighted("web", 0)]);
    add_route(&mut model, "zero.test", "/", never);
    let site = Site::start(model);
    let counts = count(&site, 200).await;
    // 50 are expected; fewer than 20 or more than 80 come up once in 10^6 runs.
    assert!((20..=80).contains(&counts["canary"]), "{counts:?}");
    assert_eq!(site.get("zero.test", "/").await.status, 503);
}

#[tokio::test]
async fn an_endpoint_that_never_answers_is_left_alone() {
    let rude = raw_backend(|mut stream| async move {
        read_head(&mut stream).await;
    })
    .await;
    let mut model = model();
    add_backend(&mut model, "ejected", &[rude, echo("web").await]);
    add_route(&mut model, "*", "/", forward("ejected"));
    let site = Site::start(model);
    let mut failures = 0;
    for n in 0..40 {
        let answer = site.get("a.test", &format!("/{n}")).await;
        match answer.status {
            502 => failures += 1,
            status => assert_eq!((status, answer.origin()), (200, "web")),
        }
    }
    // Five in a row; a few more where the turn comes to it again after its pause.
    assert!((5..=8).contains(&failures), "{failures} of 40");
    let states = site.running.endpoint_state();
    let state = states.iter().find(|state| state.address == rude).unwrap();
    assert!(state.failures >= 5 && state.connect_failures == 0);
}

#[tokio::test]
async fn a_refused_connection_is_retried_on_another_endpoint() {
    let mut model = model();
    let dead = nobody();
    add_backend(&mut model, "retried", &[dead, echo("web").await]);
    add_route(&mut model, "*", "/", forward("retried"));
    let site = Site::start(model);
    for n in 0..10 {
        let answer = site.get("a.test", &format!("/{n}")).await;
        assert_eq!((answer.status, answer.origin()), (200, "web"), "{n}");
    }
    let line = site.log.line(|line| line["tries"] == 2).await;
    let addresses = line["upstream_addr"].as_str().unwrap();
    assert!(addresses.starts_with(&format!("{dead}, ")), "{addresses}");
    assert_eq!(line["reason"], "upstream");
    let states = site.running.endpoint_state();
    let failed = states.iter().find(|state| state.address == dead).unwrap();
    assert!(failed.connect_failures > 0);
    // What has failed is left alone for a second: at most a few of the ten requests began there.
    let lines = site.log.lines();
    let retried = lines.iter().filter(|line| line["tries"] == 2).count();
    assert!(retried < 10, "{retried}");
    let labels = ["service=\"retried\""];
    assert!(counted("lockgate_upstream_retries_total", &labels) >= 1.0);
    assert!(counted("lockgate_upstream_connect_errors_total", &labels) >= 1.0);
}

#[tokio::test]
async fn a_body_survives_the_retry() {
    let mut model = model();
    add_backend(&mut model, "web", &[nobody(), echo("web").await]);
    add_route(&mut model, "*", "/", forward("web"));
    let site = Site::start(model);
    for _ in 0..2 {
        let request = hyper::Request::post("/")
            .header("host", "a.test")
            .body(bytes::Bytes::from(vec![b'x'; 500_000]))
            .unwrap();
        let answer = site.send(request).await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.seen()["length"],
            500_000,
            "nothing had been sent before"
        );
    }
}

#[tokio::test]
async fn at_most_three_endpoints_are_tried() {
    let mut model = model();
    let dead: Vec<SocketAddr> = [nobody(), nobody(), nobody(), nobody()].into();
    add_backend(&mut model, "web", &dead);
    add_backend(&mut model, "single", &dead[..1]);
    add_route(&mut model, "*", "/", forward("web"));
    add_route(&mut model, "*", "/single", forward("single"));
    let site = Site::start(model);
    for (path, tries) in [("/", 3), ("/single", 1)] {
        let answer = site.get("a.test", path).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (502, "502 Bad Gateway\n")
        );
        let line = site.log.of(path).await;
        assert_eq!(line["reason"], "connect-failed");
        assert_eq!(line["tries"], tries);
        assert_eq!(line["status"], 502);
    }
}

#[tokio::test]
async fn backends_without_endpoints_answer_503() {
    let mut model = to(echo("web").await);
    add_backend(&mut model, "empty", &[]);
    let invalid = EndpointSet::Invalid("there is no such service".to_owned());
    add_backend_of(&mut model, "invalid", BackendProtocol::Http1, invalid);
    for name in ["empty", "invalid", "missing"] {
        add_route(&mut model, "*", &format!("/{name}"), forward(name));
    }
    let site = Site::start(model);
    for (path, reason) in [
        ("/empty", "no-endpoints"),
        ("/invalid", "invalid-backend"),
        ("/missing", "no-endpoints"),
    ] {
        let answer = site.get("a.test", path).await;
        assert_eq!(answer.status, 503, "{path}");
        assert_eq!(site.log.of(path).await["reason"], reason);
    }
}

#[tokio::test]
async fn a_name_that_leads_to_this_machine_is_refused() {
    let mut model = model();
    let port = echo("web").await.port();
    let name = |host: &str| EndpointSet::Dns {
        host: HostName::parse(host).unwrap(),
        port,
    };
    add_backend_of(
        &mut model,
        "local",
        BackendProtocol::Http1,
        name("localhost"),
    );
    add_route(&mut model, "*", "/", forward("local"));
    let site = Site::start(model);
    let answer = site.get("a.test", "/").await;
    assert_eq!(answer.status, 502);
    assert_eq!(site.log.of("/").await["reason"], "dns-refused");
}

#[tokio::test]
async fn requests_are_counted_while_they_run() {
    let held = crate::streams::Held::start().await;
    let site = Site::start(to(held.address));
    let address = held.address;
    let in_flight = |site: &Site| {
        site.running
            .endpoint_state()
            .iter()
            .find(|state| state.address == address)
            .map_or(0, |state| state.in_flight)
    };
    let asked = async { tokio::join!(site.get("a.test", "/1"), site.get("a.test", "/2")) };
    let watched = async {
        held.arrivals(2).await;
        assert_eq!(in_flight(&site), 2);
        held.release(2);
    };
    let ((one, two), ()) = tokio::join!(asked, watched);
    assert_eq!((one.status, two.status), (200, 200));
    eventually("both are done", || in_flight(&site) == 0).await;
}

#[tokio::test]
async fn http2_without_tls_is_spoken_where_it_is_asked_for() {
    let mut model = model();
    let set = EndpointSet::Addresses(vec![Endpoint::new(echo("web").await)]);
    add_backend_of(&mut model, "web", BackendProtocol::H2c, set);
    add_route(&mut model, "*", "/", forward("web"));
    let site = Site::start(model);
    let answer = site.get("a.test", "/b/../c?d").await;
    assert_eq!(answer.status, 200);
    let seen = answer.seen();
    assert_eq!(
        (&seen["version"], &seen["target"]),
        (&"HTTP/2.0".into(), &"/c?d".into())
    );
    assert_eq!(answer.seen_header("x-forwarded-host"), ["a.test"]);
}

/// A backend with TLS that answers with what it saw.
pub(crate) async fn with_tls() -> SocketAddr {
    let key = KeyPair::generate().unwrap();
    let made = CertificateParams::new(["some.other.name".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![made.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let stream = acceptor.accept(stream).await.unwrap();
            let name = stream.get_ref().1.server_name().unwrap_or("").to_owned();
            let service = hyper::service::service_fn(move |request: hyper::Request<_>| {
                let name = name.clone();
                async move {
                    let mut response = seen("tls", request).await;
                    response
                        .headers_mut()
                        .insert("x-server-name", name.parse().unwrap());
                    Ok::<_, std::convert::Infallible>(response)
                }
            });
            tokio::spawn(async move {
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

#[tokio::test]
async fn tls_is_spoken_to_backends_without_trusting_them_more() {
    let mut model = model();
    let set = EndpointSet::Addresses(vec![Endpoint::new(with_tls().await)]);
    add_backend_of(&mut model, "web", BackendProtocol::Https, set);
    add_route(&mut model, "*", "/", forward("web"));
    let site = Site::start(model);
    let answer = site.get("a.test", "/").await;
    assert_eq!(answer.status, 200, "{}", site.log.text());
    assert_eq!(answer.header("x-server-name"), Some("web.shop.svc"));
    assert_eq!(answer.seen()["version"], "HTTP/2.0");
}

#[tokio::test]
async fn connections_to_endpoints_are_used_again() {
    let web = crate::support::backend(|request| async move {
        request.into_body().collect().await.unwrap();
        Response::new(full("ok"))
    })
    .await;
    let mut model = model();
    add_backend(&mut model, "reused", &[web]);
    add_route(&mut model, "*", "/", forward("reused"));
    let site = Site::start(model);
    for _ in 0..10 {
        assert_eq!(site.get("a.test", "/").await.status, 200);
    }
    let labels = ["service=\"reused\""];
    let connects = counted("lockgate_upstream_connects_total", &labels);
    let reuses = counted("lockgate_upstream_connection_reuses_total", &labels);
    assert!((connects - 1.0).abs() < 0.1, "{connects}");
    assert!((reuses - 9.0).abs() < 0.1, "{reuses}");
}
