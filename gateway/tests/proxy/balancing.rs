//! Which endpoint answers, as clients see it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use model::{Balance, Endpoint, EndpointSet, RouteOptions, RoutingModel};
use tokio::sync::{Notify, mpsc};

use crate::support::{
    Site, add_backend, add_route_with, backend, backend_id, echo, forward, model, nobody, seen,
    soon,
};

fn balanced(addresses: &[SocketAddr], options: RouteOptions) -> RoutingModel {
    let mut model = model();
    add_backend(&mut model, "web", addresses);
    add_route_with(&mut model, "*", "/", forward("web"), |route| {
        route.options = options.into();
    });
    model
}

/// Near and far endpoints.
fn zones(model: &mut RoutingModel, near: &[SocketAddr], far: &[SocketAddr]) {
    let mut all: Vec<_> = near.iter().copied().map(Endpoint::new).collect();
    all.extend(far.iter().map(|address| Endpoint {
        far: true,
        ..Endpoint::new(*address)
    }));
    all.sort();
    let set = EndpointSet::Addresses(all);
    model.endpoints.insert(backend_id("web"), Arc::new(set));
}

async fn origins(site: &Site, requests: usize) -> Vec<String> {
    let mut origins = Vec::new();
    for _ in 0..requests {
        let answer = site.get("a.test", "/").await;
        assert_eq!(answer.status, 200);
        origins.push(answer.origin().to_owned());
    }
    origins
}

fn distinct(origins: &[String]) -> BTreeSet<&str> {
    origins.iter().map(String::as_str).collect()
}

#[tokio::test]
async fn an_endpoint_that_has_enough_to_do_is_spared_across_swaps() {
    let (began, mut waiting) = mpsc::unbounded_channel();
    let go_on = Arc::new(Notify::new());
    let answers = Arc::clone(&go_on);
    let busy = backend(move |request| {
        let (began, answers) = (began.clone(), Arc::clone(&answers));
        async move {
            if request.uri().path() == "/wait" {
                began.send(()).unwrap();
                answers.notified().await;
            }
            seen("busy", request).await
        }
    })
    .await;
    let other = echo("other").await;
    let options = RouteOptions {
        balance: Balance::LeastRequest,
        ..RouteOptions::default()
    };
    let mut site = Site::start(balanced(&[busy], options));
    let http = site.http;
    let first = tokio::spawn(async move {
        let stream = tokio::net::TcpStream::connect(http).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let request = hyper::Request::get("/wait").header("host", "a.test");
        let body = http_body_util::Empty::<bytes::Bytes>::new();
        let answer = sender.send_request(request.body(body).unwrap()).await;
        answer.unwrap().status().as_u16()
    });
    soon(waiting.recv()).await.unwrap();
    site.change(|model| add_backend(model, "web", &[busy, other]));
    assert_eq!(distinct(&origins(&site, 20).await), ["other"].into());
    site.change(|model| zones(model, &[other, busy], &[nobody()]));
    assert_eq!(distinct(&origins(&site, 20).await), ["other"].into());
    go_on.notify_one();
    assert_eq!(soon(first).await.unwrap(), 200);
    assert_eq!(
        distinct(&origins(&site, 40).await),
        ["busy", "other"].into()
    );
}

#[tokio::test]
async fn far_endpoints_answer_while_no_near_one_can() {
    let (near, far) = (echo("near").await, echo("far").await);
    let further = echo("further").await;
    for balance in [Balance::RoundRobin, Balance::Random] {
        let options = RouteOptions {
            balance,
            ..RouteOptions::default()
        };
        let mut site = Site::start(balanced(&[near], options));
        site.change(|model| zones(model, &[near], &[far, further]));
        assert_eq!(distinct(&origins(&site, 20).await), ["near"].into());
        let dead = nobody();
        site.change(|model| zones(model, &[dead], &[far, further]));
        // The first request finds out, and is answered all the same.
        let found = origins(&site, 40).await;
        assert_eq!(distinct(&found), ["far", "further"].into());
        site.change(|model| zones(model, &[near, dead], &[far, further]));
        assert_eq!(distinct(&origins(&site, 20).await), ["near"].into());
    }
}

#[tokio::test]
async fn a_new_endpoint_gets_few_requests_at_first() {
    let (one, two, new) = (echo("one").await, echo("two").await, echo("new").await);
    let options = RouteOptions {
        slow_start: 24 * 60 * 60,
        ..RouteOptions::default()
    };
    let mut site = Site::start(balanced(&[one, two], options));
    assert_eq!(distinct(&origins(&site, 4).await), ["one", "two"].into());
    site.change(|model| add_backend(model, "web", &[one, two, new]));
    let found = origins(&site, 105).await;
    let new = found.iter().filter(|origin| *origin == "new").count();
    // 0.1 of 2.1 of 105 is five.
    assert!((3..=7).contains(&new), "{new}");
}
