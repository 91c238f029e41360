//! Endpoints that are asked whether they are well.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::{HeaderMap, Request, Response, StatusCode};
use model::{
    BackendProtocol, BackendTls, CheckKind, Endpoint, EndpointSet, Health, HealthCheck,
    RoutingModel,
};

use crate::backend_tls;
use crate::health::{watch, watched};
use crate::support::{
    Body, Site, add_backend, add_backend_of, add_route, backend, backend_id, echo, eventually,
    forward, full, model, nobody,
};

fn every(kind: CheckKind) -> Health {
    Health {
        check: Some(HealthCheck {
            kind,
            host: None,
            interval_ms: 20,
            timeout_ms: 2000,
            unhealthy: 2,
            healthy: 2,
            tls: None,
        }),
        ..Health::default()
    }
}

fn http() -> Health {
    every(CheckKind::Http {
        path: "/healthz?full".to_owned(),
        from: 200,
        to: 299,
    })
}

fn unhealthy(site: &Site, address: SocketAddr) -> bool {
    let states = site.running.endpoint_state();
    states
        .iter()
        .any(|state| state.address == address && state.unhealthy)
}

/// Was every endpoint of this backend checked so often?
async fn checked(site: &Site, name: &str, times: u64) {
    eventually("checks", || {
        let groups = site.running.backend_state();
        groups
            .iter()
            .any(|group| group.backend == backend_id(name) && group.checks_passed >= times)
    })
    .await;
}

/// An endpoint that serves whatever it says of its health.
struct Patient {
    address: SocketAddr,
    ill: Arc<AtomicBool>,
    checks: Arc<AtomicUsize>,
}

impl Patient {
    async fn start(ill: bool) -> Self {
        let ill = Arc::new(AtomicBool::new(ill));
        let checks = Arc::new(AtomicUsize::new(0));
        let (state, count) = (Arc::clone(&ill), Arc::clone(&checks));
        let address = backend(move |request: Request<_>| {
            let is_check = request.uri().path() == "/healthz";
            if is_check {
                assert_eq!(request.uri().query(), Some("full"));
                assert_eq!(request.headers()["host"], "web.shop.svc");
                count.fetch_add(1, Ordering::SeqCst);
            }
            let ill = is_check && state.load(Ordering::SeqCst);
            async move {
                let status = if ill {
                    StatusCode::FOUND
                } else {
                    StatusCode::OK
                };
                Response::builder()
                    .status(status)
                    .header("x-origin", "patient")
                    .body(full("body"))
                    .unwrap()
            }
        })
        .await;
        Self {
            address,
            ill,
            checks,
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_says_so_is_left_alone_until_it_is_well() {
    let patient = Patient::start(true).await;
    let site = Site::start(watched(
        "web",
        &[patient.address, echo("web").await],
        http(),
    ));
    eventually("it is found", || unhealthy(&site, patient.address)).await;
    for _ in 0..10 {
        assert_eq!(site.get("a.test", "/").await.origin(), "web");
    }
    patient.ill.store(false, Ordering::SeqCst);
    eventually("it is well", || !unhealthy(&site, patient.address)).await;
    let mut origins = Vec::new();
    for _ in 0..10 {
        origins.push(site.get("a.test", "/").await.origin().to_owned());
    }
    assert_eq!(origins.iter().filter(|name| *name == "patient").count(), 5);
}

#[tokio::test]
async fn where_nobody_is_well_all_are_used() {
    let patients = [Patient::start(true).await, Patient::start(true).await];
    let addresses = patients.each_ref().map(|patient| patient.address);
    let site = Site::start(watched("web", &addresses, http()));
    eventually("both are found", || {
        addresses.iter().all(|address| unhealthy(&site, *address))
    })
    .await;
    for _ in 0..4 {
        assert_eq!(site.get("a.test", "/").await.status, 200);
    }
    let groups = site.running.backend_state();
    assert!(
        groups
            .iter()
            .any(|group| group.panics && group.unhealthy == 2)
    );
}

#[tokio::test]
async fn a_connection_is_enough_where_no_more_is_asked_for() {
    let (gone, there) = (nobody(), echo("web").await);
    let site = Site::start(watched("tcp", &[gone, there], every(CheckKind::Tcp)));
    eventually("it is found", || unhealthy(&site, gone)).await;
    checked(&site, "tcp", 3).await;
    assert!(!unhealthy(&site, there));
    for n in 0..4 {
        let answer = site.get("a.test", &format!("/{n}")).await;
        assert_eq!(answer.origin(), "web");
        let line = site.log.of(&format!("/{n}")).await;
        assert_eq!(line["tries"], 1, "nobody had to find out");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_silent_fails() {
    let silent = crate::deadlines::silent().await;
    let mut health = http();
    health.check.as_mut().unwrap().timeout_ms = 50;
    let site = Site::start(watched("silent", &[silent], health));
    eventually("it is found", || unhealthy(&site, silent)).await;
}

#[tokio::test]
async fn checks_follow_the_table() {
    let patient = Patient::start(true).await;
    let web = echo("web").await;
    let mut site = Site::start(watched("web", &[patient.address, web], http()));
    eventually("it is found", || unhealthy(&site, patient.address)).await;

    // Another endpoint: what is known stays.
    let third = echo("third").await;
    site.change(|model| {
        add_backend(model, "web", &[patient.address, web, third]);
        watch(model, "web", http());
    });
    assert!(unhealthy(&site, patient.address));
    for _ in 0..10 {
        assert_ne!(site.get("a.test", "/").await.origin(), "patient");
    }

    // Nobody asks for checks any more: there are none, and the endpoint serves.
    site.change(|model| add_backend(model, "web", &[patient.address, web, third]));
    assert!(!unhealthy(&site, patient.address));
    let before = patient.checks.load(Ordering::SeqCst);
    let started = Instant::now();
    eventually("several intervals", || {
        started.elapsed() >= Duration::from_millis(200)
    })
    .await;
    // One may have been on its way.
    assert!(patient.checks.load(Ordering::SeqCst) <= before + 1);

    // They come back, and go with their backend.
    site.change(|model| watch(model, "web", http()));
    eventually("it is found again", || unhealthy(&site, patient.address)).await;
    site.change(|model| {
        model.backends.remove(&backend_id("web"));
        model.endpoints.remove(&backend_id("web"));
    });
    let before = patient.checks.load(Ordering::SeqCst);
    let started = Instant::now();
    eventually("several intervals", || {
        started.elapsed() >= Duration::from_millis(200)
    })
    .await;
    assert!(patient.checks.load(Ordering::SeqCst) <= before + 1);
}

#[tokio::test]
async fn checks_end_with_the_gateway() {
    let patient = Patient::start(false).await;
    let site = Site::start(watched("web", &[patient.address], http()));
    checked(&site, "web", 2).await;
    drop(site);
    let before = patient.checks.load(Ordering::SeqCst);
    let started = Instant::now();
    eventually("several intervals", || {
        started.elapsed() >= Duration::from_millis(200)
    })
    .await;
    assert!(patient.checks.load(Ordering::SeqCst) <= before + 1);
}

/// A server of gRPC that says of a service called `shop` that it serves, and of others that it does not.
async fn grpc() -> SocketAddr {
    backend(|request: Request<hyper::body::Incoming>| async move {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        assert_eq!(request.headers()["content-type"], "application/grpc");
        assert_eq!(request.headers()["te"], "trailers");
        let question = request.into_body().collect().await.unwrap().to_bytes();
        let state = match &question[..] {
            b"\0\0\0\0\x06\x0a\x04shop" => 1_u8,
            _ => 2,
        };
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let frames = [
            Frame::data(Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, state])),
            Frame::trailers(trailers),
        ];
        let frames = frames.map(Ok::<_, Infallible>);
        let body: Body = BodyExt::boxed(StreamBody::new(stream::iter(frames)));
        Response::builder()
            .header("content-type", "application/grpc")
            .body(body)
            .unwrap()
    })
    .await
}

fn h2c(name: &str, addresses: &[SocketAddr], health: Health) -> RoutingModel {
    let mut model = model();
    let set = addresses.iter().copied().map(Endpoint::new).collect();
    let set = EndpointSet::Addresses(set);
    add_backend_of(&mut model, name, BackendProtocol::H2c, set);
    watch(&mut model, name, health);
    add_route(&mut model, "*", "/", forward(name));
    model
}

#[tokio::test]
async fn a_service_of_grpc_says_whether_it_serves() {
    let ask = |service: &str| {
        every(CheckKind::Grpc {
            service: service.to_owned(),
        })
    };
    let server = grpc().await;
    let site = Site::start(h2c("serving", &[server], ask("shop")));
    checked(&site, "serving", 3).await;
    assert!(!unhealthy(&site, server));
    let site = Site::start(h2c("resting", &[server], ask("other")));
    eventually("it is found", || unhealthy(&site, server)).await;
    // One that is no server of gRPC.
    let web = echo("web").await;
    let site = Site::start(h2c("none", &[web], ask("shop")));
    eventually("it is found", || unhealthy(&site, web)).await;
}

#[tokio::test]
async fn checks_speak_what_the_backend_speaks() {
    let patient = Patient::start(false).await;
    let mut health = http();
    // `:authority` stands for `Host` there.
    let CheckKind::Http { path, .. } = &mut health.check.as_mut().unwrap().kind else {
        unreachable!()
    };
    "/".clone_into(path);
    let site = Site::start(h2c("h2c", &[patient.address], health));
    checked(&site, "h2c", 2).await;
}

#[tokio::test]
async fn checks_use_the_tls_of_the_backend() {
    let (servers, clients, foreign) = (
        backend_tls::authority(),
        backend_tls::authority(),
        backend_tls::authority(),
    );
    let address = backend_tls::backend(&servers, "web.shop.svc", Some(&clients)).await;
    let start = |name: &str, tls: BackendTls| {
        let mut health = http();
        health.check.as_mut().unwrap().tls = Some(Arc::new(tls));
        let mut model = model();
        let set = EndpointSet::Addresses(vec![Endpoint::new(address)]);
        add_backend_of(&mut model, name, BackendProtocol::Https, set);
        watch(&mut model, name, health);
        Site::start(model)
    };
    let with_client = |tls: BackendTls| BackendTls {
        client: Some(Arc::new(backend_tls::client(&clients))),
        ..tls
    };
    let good = backend_tls::tls(1, Some(&servers), Some("web.shop.svc"));
    let site = start("good", with_client(good.clone()));
    checked(&site, "good", 3).await;
    for (name, tls) in [
        ("nobody", good),
        (
            "foreign",
            with_client(backend_tls::tls(2, Some(&foreign), Some("web.shop.svc"))),
        ),
        (
            "misnamed",
            with_client(backend_tls::tls(3, Some(&servers), None)),
        ),
    ] {
        let site = start(name, tls);
        eventually(name, || unhealthy(&site, address)).await;
    }
}
