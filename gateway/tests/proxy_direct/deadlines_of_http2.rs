//! Until when there has to be an answer for a client that speaks HTTP/2, whatever the endpoint speaks.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::Reason;
use hyper::{Request, Response};
use model::{BackendProtocol, Endpoint, EndpointSet, Retry, RoutingModel};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::deadlines::{TRY, WHOLE, silent, within};
use crate::health::{never, watch};
use crate::http2::{connect, get, read_all};
use crate::support::{
    Site, add_backend, add_backend_of, add_route_with, backend, backend_id, echo, eventually,
    forward, full, model, raw_backend, read_head, soon,
};

/// An endpoint that speaks HTTP/2, takes requests and answers none.
async fn silent_http2() -> SocketAddr {
    raw_backend(|stream: TcpStream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let mut taken = Vec::new();
        while let Some(Ok(request)) = connection.accept().await {
            taken.push(request);
        }
    })
    .await
}

fn over(protocol: BackendProtocol, addresses: &[SocketAddr]) -> RoutingModel {
    let mut model = model();
    let set = addresses.iter().copied().map(Endpoint::new).collect();
    add_backend_of(&mut model, "web", protocol, EndpointSet::Addresses(set));
    model
}

#[tokio::test]
async fn a_slow_endpoint_gives_way_by_the_rules_of_the_route() {
    for (protocol, slow) in [
        (BackendProtocol::Http1, silent().await),
        (BackendProtocol::H2c, silent_http2().await),
    ] {
        let mut model = over(protocol, &[slow, echo("web").await]);
        watch(&mut model, "web", never());
        for (host, retry) in [("again.test", Some(Retry::default())), ("once.test", None)] {
            add_route_with(&mut model, host, "/", forward("web"), |route| {
                route.options.deadlines = Some(TRY);
                route.options.retry = retry;
            });
        }
        let site = Site::start(model);
        let mut client = connect(site.http).await;
        let mut statuses = Vec::new();
        for (host, count) in [("again.test", 4), ("once.test", 4)] {
            for _ in 0..count {
                let request = Request::get(format!("http://{host}/")).body(()).unwrap();
                let (response, _) = client.send_request(request, true).unwrap();
                statuses.push(soon(response).await.unwrap().status().as_u16());
            }
        }
        assert_eq!(statuses[..4], [200; 4], "{protocol:?}");
        let late = statuses[4..].iter().filter(|status| **status == 504);
        assert_eq!(late.count(), 2, "{protocol:?}: {statuses:?}");
        let line = site.log.line(|line| line["reason"] == "try-timeout").await;
        assert_eq!(line["tries"], 1);
    }
}

#[tokio::test]
async fn a_request_has_its_time_and_a_response_that_has_begun_is_reset() {
    let endless = raw_backend(|mut stream| async move {
        read_head(&mut stream).await;
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n";
        stream.write_all(head).await.unwrap();
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while stream.write_all(b"x").await.is_ok() {
            ticks.tick().await;
        }
    })
    .await;
    let site = Site::start(within(&[endless], WHOLE, None));
    let mut client = connect(site.http).await;
    let started = Instant::now();
    let (response, _) = client.send_request(get("/cut"), true).unwrap();
    let mut body = soon(response).await.unwrap().into_body();
    let reset = loop {
        match soon(body.data()).await {
            Some(Ok(part)) => body.flow_control().release_capacity(part.len()).unwrap(),
            Some(Err(error)) => break error,
            None => panic!("it has an end"),
        }
    };
    assert_eq!(reset.reason(), Some(Reason::INTERNAL_ERROR));
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert_eq!(site.log.of("/cut").await["reason"], "request-timeout");

    let site = Site::start(within(&[silent().await], WHOLE, None));
    let mut client = connect(site.http).await;
    let (response, _) = client.send_request(get("/late"), true).unwrap();
    assert_eq!(soon(response).await.unwrap().status(), 504);
    assert_eq!(site.log.of("/late").await["reason"], "request-timeout");
    eventually("nothing is in flight", || {
        let states = site.running.endpoint_state();
        states.iter().all(|state| state.in_flight == 0)
    })
    .await;
}

#[tokio::test]
async fn the_time_of_a_try_begins_when_the_client_has_sent_everything() {
    for protocol in [BackendProtocol::Http1, BackendProtocol::H2c] {
        let mut model = over(protocol, &[echo("web").await]);
        add_route_with(&mut model, "*", "/", forward("web"), |route| {
            route.options.deadlines = Some(TRY);
        });
        let site = Site::start(model);
        let mut client = connect(site.http).await;
        let request = Request::post("http://a.test/").body(()).unwrap();
        let (response, mut body) = client.send_request(request, false).unwrap();
        let started = Instant::now();
        for _ in 0..4 {
            let pause = started.elapsed() + Duration::from_millis(120);
            eventually("a pause", || started.elapsed() >= pause).await;
            body.send_data(Bytes::from_static(b"part"), false).unwrap();
        }
        body.send_data(Bytes::new(), true).unwrap();
        let mut response = soon(response).await.unwrap();
        assert_eq!(response.status(), 200, "{protocol:?}");
        read_all(response.body_mut()).await;
    }
}

#[tokio::test]
async fn streams_that_pingora_serves_have_the_same_time() {
    let pages = backend(|request: Request<hyper::body::Incoming>| async move {
        let code = request.headers()["x-code"].to_str().unwrap().to_owned();
        Response::builder().status(503).body(full(code)).unwrap()
    });
    let pages = pages.await;
    let slow = silent().await;
    for (deadlines, want, body) in [(TRY, 503, "504"), (WHOLE, 504, "504 Gateway Timeout\n")] {
        let mut model = within(&[], deadlines, None);
        add_backend(&mut model, "web", &[slow]);
        add_backend(&mut model, "pages", &[pages]);
        add_route_with(&mut model, "a.test", "/", forward("web"), |route| {
            route.options.deadlines = Some(deadlines);
            route.options.errors = Some(model::ErrorPages {
                statuses: vec![504],
                backend: backend_id("pages"),
                keeps_answers: false,
            });
        });
        let site = Site::start(model);
        let mut client = connect(site.http).await;
        let (response, _) = client.send_request(get("/"), true).unwrap();
        let mut response = soon(response).await.unwrap();
        assert_eq!(response.status(), want);
        let (all, _) = read_all(response.body_mut()).await;
        assert_eq!(String::from_utf8(all).unwrap(), body);
    }
}
