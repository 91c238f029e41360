//! How much a backend may have to do at the same time.

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use hyper::{Response, StatusCode};
use model::{BackendLimits, Deadlines, Health, Retry};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::health::{watch, watched};
use crate::streams::Held;
use crate::support::{
    Site, add_backend, add_route, add_route_with, backend_id, eventually, forward, full, model,
    raw_backend, read_head, soon,
};

fn limited(limits: BackendLimits) -> Health {
    Health {
        limits,
        ..Health::default()
    }
}

/// Sends a request and leaves it to its fate.
async fn begin(site: &Site, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(site.http).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// What is left of requests, over all backends.
fn left(site: &Site) -> u32 {
    let in_flight = site.running.endpoint_state().into_iter();
    let in_flight: u32 = in_flight.map(|state| state.in_flight).sum();
    let groups = site.running.backend_state().into_iter();
    let taken: u32 = groups.map(|group| group.requests + group.pending).sum();
    in_flight + taken
}

#[tokio::test]
async fn one_request_too_many_gets_503_and_the_next_one_its_place() {
    let held = Held::start().await;
    let limits = BackendLimits {
        requests: 2,
        ..BackendLimits::default()
    };
    let mut model = watched("full", &[held.address], limited(limits));
    add_backend(&mut model, "free", &[held.address]);
    add_route(&mut model, "free.test", "/", forward("free"));
    let site = Site::start(model);
    let clients = [begin(&site, "/1").await, begin(&site, "/2").await];
    soon(held.arrivals(2)).await;
    let answer = site.get("a.test", "/refused").await;
    assert_eq!(answer.status, 503);
    let line = site.log.of("/refused").await;
    assert_eq!(line["reason"], "backend-requests-limited");
    let groups = site.running.backend_state();
    let group = groups
        .iter()
        .find(|group| group.backend == backend_id("full"))
        .unwrap();
    assert_eq!((group.requests, group.pending), (2, 0));
    assert_eq!(group.refused_requests, 1);
    held.release(3);
    assert_eq!(
        site.get("free.test", "/").await.status,
        200,
        "another backend"
    );
    eventually("both are over", || left(&site) == 0).await;
    held.release(1);
    assert_eq!(site.get("a.test", "/").await.status, 200);
    drop(clients);
}

#[tokio::test]
async fn a_limit_of_endpoints_leads_to_others_first() {
    let endpoints = [Held::start().await, Held::start().await];
    let addresses = endpoints.each_ref().map(|held| held.address);
    let limits = BackendLimits {
        requests_per_endpoint: 1,
        ..BackendLimits::default()
    };
    let site = Site::start(watched("narrow", &addresses, limited(limits)));
    let _first = begin(&site, "/1").await;
    let _second = begin(&site, "/2").await;
    soon(endpoints[0].arrivals(1)).await;
    soon(endpoints[1].arrivals(1)).await;
    assert_eq!(site.get("a.test", "/refused").await.status, 503);
    let line = site.log.of("/refused").await;
    assert_eq!(line["reason"], "endpoint-requests-limited");
    endpoints[1].release(1);
    eventually("one is left", || left(&site) == 1).await;
    // The one that has a place gets the next one, whosever turn it is.
    for _ in 0..3 {
        endpoints[1].release(1);
        assert_eq!(site.get("a.test", "/").await.status, 200);
        eventually("one is left", || left(&site) == 1).await;
    }
}

#[tokio::test]
async fn requests_without_a_connection_have_a_limit_of_their_own() {
    // With a backlog of zero the kernel completes one connection and ignores the others.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let full = socket.local_addr().unwrap().as_socket().unwrap();
    let _first = TcpStream::connect(full).await.unwrap();
    let limits = BackendLimits {
        pending: 1,
        ..BackendLimits::default()
    };
    let site = Site::start(watched("pending", &[full], limited(limits)));
    let waiting = begin(&site, "/waits").await;
    eventually("it waits", || {
        let groups = site.running.backend_state();
        groups.iter().any(|group| group.pending == 1)
    })
    .await;
    assert_eq!(site.get("a.test", "/refused").await.status, 503);
    let line = site.log.of("/refused").await;
    assert_eq!(line["reason"], "backend-pending-limited");
    drop(waiting);
    eventually("its client is gone", || left(&site) == 0).await;
}

/// Does what the path of each request says.
async fn whatever() -> SocketAddr {
    raw_backend(|mut stream: TcpStream| async move {
        while let Some(head) = read_head(&mut stream).await {
            let path = head.split(' ').nth(1).unwrap_or_default();
            let answer: &[u8] = match path {
                "/reset" => return,
                "/silent" => {
                    let _ = read_head(&mut stream).await;
                    return;
                }
                "/cut" => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
                "/nonsense" => b"nonsense\r\n\r\n",
                "/refused" => b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
                _ => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            };
            if stream.write_all(answer).await.is_err() || path == "/cut" {
                return;
            }
        }
    })
    .await
}

/// Every way in which a request can end, in many orders, leaves nothing in the counts: otherwise a limit would become
/// smaller with time.
#[tokio::test]
async fn whatever_becomes_of_requests_their_places_are_free_afterwards() {
    let endpoints = [whatever().await, whatever().await, whatever().await];
    let limits = BackendLimits {
        requests: 8,
        pending: 6,
        requests_per_endpoint: 4,
    };
    let mut model = model();
    for (name, retry) in [("once", None), ("again", Some(Retry::default()))] {
        add_backend(&mut model, name, &endpoints);
        watch(&mut model, name, limited(limits));
        add_route_with(
            &mut model,
            &format!("{name}.test"),
            "/",
            forward(name),
            |route| {
                route.options.retry = retry.map(|retry| Retry {
                    statuses: vec![503],
                    ..retry
                });
                route.options.deadlines = Some(Deadlines {
                    try_ms: 100,
                    request_ms: 250,
                });
            },
        );
    }
    let site = Site::start(model);
    let kinds = [
        "/ok",
        "/reset",
        "/silent",
        "/cut",
        "/nonsense",
        "/refused",
        "/gone",
    ];
    // A sequence without a pattern that is the same in every run.
    let mut state = 0x2545_f491_u32;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        usize::try_from(state).unwrap() % below
    };
    for _ in 0..6 {
        let requests: Vec<(&str, &str, u64)> = (0..20)
            .map(|_| {
                let host = ["once.test", "again.test"][random(2)];
                (
                    host,
                    kinds[random(kinds.len())],
                    u64::try_from(random(60)).unwrap(),
                )
            })
            .collect();
        let ends = requests.iter().map(|(host, path, patience)| {
            let site = &site;
            async move {
                let mut stream = TcpStream::connect(site.http).await.unwrap();
                let request =
                    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut all = Vec::new();
                let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut all);
                if *path == "/gone" {
                    // The client leaves, at one time or another.
                    let _ = tokio::time::timeout(Duration::from_millis(*patience), read).await;
                } else {
                    let _ = soon(read).await;
                }
            }
        });
        join_all(ends).await;
        eventually("nothing is left", || left(&site) == 0).await;
    }
    let groups = site.running.backend_state();
    let refused = groups
        .iter()
        .map(|group| group.refused_requests + group.refused_pending + group.refused_endpoint);
    let refused: u64 = refused.sum();
    assert!(refused > 0, "the limits have been met: {groups:?}");
}

#[tokio::test]
async fn a_try_that_has_ended_takes_no_place() {
    let refusing = crate::support::backend(|_| async {
        Response::builder()
            .status(StatusCode::SERVICE_UNAVAILABLE)
            .body(full(""))
            .unwrap()
    })
    .await;
    let web = crate::support::echo("web").await;
    let limits = BackendLimits {
        requests: 1,
        ..BackendLimits::default()
    };
    let mut model = model();
    add_backend(&mut model, "one", &[refusing, web]);
    watch(&mut model, "one", limited(limits));
    add_route_with(&mut model, "*", "/", forward("one"), |route| {
        route.options.retry = Some(Retry {
            statuses: vec![503],
            ..Retry::default()
        });
    });
    let site = Site::start(model);
    for n in 0..4 {
        let answer = site.get("a.test", &format!("/{n}")).await;
        assert_eq!((answer.status, answer.origin()), (200, "web"), "{n}");
        eventually("it is over", || left(&site) == 0).await;
    }
}
