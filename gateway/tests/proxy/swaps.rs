//! Tables that change while requests are served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper_util::rt::TokioIo;
use model::{Filter, HeaderChange, HostPattern};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::streams::Held;
use crate::support::{Answer, Site, add_backend, add_route, echo, forward, model, soon, to};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_fails_while_tables_are_published() {
    let endpoints = [echo("one").await, echo("two").await, echo("three").await];
    let mut model = model();
    add_backend(&mut model, "web", &endpoints);
    add_route(&mut model, "*", "/", forward("web"));
    let mut site = Site::with(model, |settings| settings.workers = 2);
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let address = site.http;
    let clients: Vec<_> = (0..8)
        .map(|number| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            tokio::spawn(async move {
                let stream = TcpStream::connect(address).await.unwrap();
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(TokioIo::new(stream))
                        .await
                        .unwrap();
                tokio::spawn(connection);
                while !stop.load(Ordering::Relaxed) {
                    let request = Request::get(format!("/{number}")).header("host", "a.test");
                    let request = request.body(Full::new(Bytes::new())).unwrap();
                    let response = soon(sender.send_request(request)).await.unwrap();
                    assert_eq!(response.status(), 200);
                    Answer::read(response).await;
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for swap in 0..200 {
        // One endpoint less, another host, a host less: everything that is not needed comes and goes.
        let used: Vec<_> = endpoints
            .iter()
            .enumerate()
            .filter(|(index, _)| index % 3 != swap % 4)
            .map(|(_, address)| *address)
            .collect();
        site.change(|model| {
            add_backend(model, "web", &used);
            let host = format!("h{}.test", swap % 7);
            let pattern = HostPattern::parse(&host).unwrap();
            if model.hosts.remove(&pattern).is_none() {
                add_route(model, &host, "/", forward("web"));
            }
        });
        let before = served.load(Ordering::Relaxed);
        crate::support::eventually("requests go on", || {
            served.load(Ordering::Relaxed) > before || clients.iter().any(JoinHandle::is_finished)
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let failed = site
        .log
        .lines()
        .iter()
        .filter(|line| line["status"] != 200)
        .count();
    assert_eq!(failed, 0);
    assert!(served.load(Ordering::Relaxed) >= 200);
}

#[tokio::test]
async fn a_request_on_a_removed_endpoint_finishes() {
    let held = Held::start().await;
    let mut site = Site::start(to(held.address));
    let address = site.http;
    let before = tokio::spawn(async move { get(address, "/before").await });
    held.arrivals(1).await;
    site.change(|model| add_backend(model, "web", &[]));
    assert_eq!(site.get("a.test", "/after").await.status, 503);
    let states = site.running.endpoint_state();
    assert_eq!(states.len(), 1, "it is known as long as it is used");
    assert_eq!(states[0].in_flight, 1);
    held.release(1);
    let answer = soon(before).await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "held"));
}

#[tokio::test]
async fn a_request_sees_one_table_to_its_end() {
    let held = Held::start().await;
    let mut site = Site::start(to(held.address));
    let address = site.http;
    let before = tokio::spawn(async move { get(address, "/before").await });
    held.arrivals(1).await;
    site.change(|model| {
        let mut host = (*model.hosts[&HostPattern::Any]).clone();
        host.routes[0]
            .filters
            .push(Filter::ResponseHeaders(HeaderChange {
                set: vec![("x-table".to_owned(), "new".to_owned())],
                ..HeaderChange::default()
            }));
        model.hosts.insert(HostPattern::Any, Arc::new(host));
    });
    held.release(2);
    let old = soon(before).await.unwrap();
    assert_eq!(old.header("x-table"), None, "begun under the old table");
    let new = site.get("a.test", "/after").await;
    assert_eq!(new.header("x-table"), Some("new"));
}

#[tokio::test]
async fn counts_survive_a_swap() {
    let held = Held::start().await;
    let mut site = Site::start(to(held.address));
    let address = site.http;
    let one = tokio::spawn(async move { get(address, "/one").await });
    held.arrivals(1).await;
    let other = echo("other").await;
    site.change(|model| add_backend(model, "web", &[held.address, other]));
    // Both endpoints are used once, in whatever order.
    let two = tokio::spawn(async move { get(address, "/two").await });
    let three = tokio::spawn(async move { get(address, "/three").await });
    held.arrivals(1).await;
    let states = site.running.endpoint_state();
    let state = states
        .iter()
        .find(|state| state.address == held.address)
        .unwrap();
    assert_eq!(state.in_flight, 2, "{states:?}");
    held.release(2);
    for request in [one, two, three] {
        assert_eq!(soon(request).await.unwrap().status, 200);
    }
}

async fn get(address: std::net::SocketAddr, path: &str) -> Answer {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::get(path).header("host", "a.test");
    let request = request.body(Full::new(Bytes::new())).unwrap();
    Answer::read(soon(sender.send_request(request)).await.unwrap()).await
}
