//! Until when there has to be an answer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::{Request, Response};
use model::{Deadlines, Retry, RoutingModel};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{
    Site, add_backend, add_route_with, backend, echo, eventually, forward, full, model, nobody,
    raw_backend, read_head, soon,
};

/// Takes requests and answers none.
pub(crate) async fn silent() -> SocketAddr {
    raw_backend(|mut stream| async move {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    })
    .await
}

/// A model whose requests have these deadlines.
pub(crate) fn within(
    addresses: &[SocketAddr],
    deadlines: Deadlines,
    retry: Option<Retry>,
) -> RoutingModel {
    let mut model = model();
    add_backend(&mut model, "web", addresses);
    add_route_with(&mut model, "*", "/", forward("web"), |route| {
        route.options.deadlines = Some(deadlines);
        route.options.retry = retry;
    });
    model
}

pub(crate) const TRY: Deadlines = Deadlines {
    try_ms: 200,
    request_ms: 0,
};
pub(crate) const WHOLE: Deadlines = Deadlines {
    try_ms: 0,
    request_ms: 300,
};

#[tokio::test]
async fn an_endpoint_that_is_too_slow_gives_way_to_another_one() {
    let (slow, web) = (silent().await, echo("web").await);
    let site = Site::start(within(&[slow, web], TRY, Some(Retry::default())));
    for n in 0..4 {
        let answer = site.get("a.test", &format!("/{n}")).await;
        assert_eq!((answer.status, answer.origin()), (200, "web"), "{n}");
    }
    let line = site.log.line(|line| line["tries"] == 2).await;
    let addresses = line["upstream_addr"].as_str().unwrap();
    assert_eq!(addresses, format!("{slow}, {web}"));
}

#[tokio::test]
async fn without_rules_a_slow_try_is_the_only_one() {
    let (slow, web) = (silent().await, echo("web").await);
    let site = Site::start(within(&[slow, web], TRY, None));
    let mut late = 0;
    for n in 0..4 {
        let answer = site.get("a.test", &format!("/{n}")).await;
        if answer.status == 504 {
            late += 1;
            let line = site.log.of(&format!("/{n}")).await;
            assert_eq!(
                (&line["reason"], &line["tries"]),
                (&"try-timeout".into(), &1.into())
            );
        } else {
            assert_eq!(answer.origin(), "web");
        }
    }
    assert_eq!(late, 2, "every other request");
}

#[tokio::test]
async fn an_order_is_not_given_twice_because_the_first_endpoint_is_slow() {
    let (slow, web) = (silent().await, echo("web").await);
    let site = Site::start(within(&[slow, web], TRY, Some(Retry::default())));
    let mut statuses = Vec::new();
    for _ in 0..2 {
        let request = Request::post("/").header("host", "a.test");
        let answer = site.send(request.body("order".into()).unwrap()).await;
        statuses.push(answer.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 504]);
}

#[tokio::test]
async fn the_time_of_a_try_begins_when_the_client_has_sent_everything() {
    let site = Site::start(within(&[echo("web").await], TRY, None));
    let mut client = TcpStream::connect(site.http).await.unwrap();
    let head =
        b"POST /late HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nContent-Length: 4\r\n\r\n";
    client.write_all(head).await.unwrap();
    // Longer than a try may take.
    let started = Instant::now();
    for byte in b"slow" {
        let pause = started.elapsed() + Duration::from_millis(120);
        eventually("a pause", || started.elapsed() >= pause).await;
        client.write_all(&[*byte]).await.unwrap();
    }
    let mut all = String::new();
    soon(client.read_to_string(&mut all)).await.unwrap();
    assert!(all.starts_with("HTTP/1.1 200 "), "{all}");
}

#[tokio::test]
async fn a_slow_body_of_a_response_is_no_slow_try() {
    let slow = raw_backend(|mut stream| async move {
        read_head(&mut stream).await;
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n";
        stream.write_all(head).await.unwrap();
        let started = Instant::now();
        for byte in b"slow" {
            let pause = started.elapsed() + Duration::from_millis(120);
            eventually("a pause", || started.elapsed() >= pause).await;
            stream.write_all(&[*byte]).await.unwrap();
        }
    })
    .await;
    let site = Site::start(within(&[slow], TRY, None));
    let answer = site.get("a.test", "/").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "slow"));
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_with_504() {
    let slow = silent().await;
    let site = Site::start(within(&[slow], WHOLE, None));
    let started = Instant::now();
    for n in 0..5 {
        let answer = site.get("a.test", &format!("/{n}")).await;
        assert_eq!(answer.status, 504);
        let line = site.log.of(&format!("/{n}")).await;
        assert_eq!(line["reason"], "request-timeout");
    }
    assert!(started.elapsed() >= Duration::from_millis(5 * 300));
    let state = &site.running.endpoint_state()[0];
    assert_eq!(
        (state.address, state.failures),
        (slow, 5),
        "it was the endpoint"
    );
}

#[tokio::test]
async fn all_tries_together_have_one_deadline() {
    let endpoints = [
        silent().await,
        silent().await,
        silent().await,
        silent().await,
    ];
    let both = Deadlines {
        try_ms: 200,
        request_ms: 500,
    };
    let retry = Retry {
        tries: 0,
        ..Retry::default()
    };
    let site = Site::start(within(&endpoints, both, Some(retry)));
    let started = Instant::now();
    assert_eq!(site.get("a.test", "/").await.status, 504);
    let elapsed = started.elapsed();
    let line = site.log.of("/").await;
    assert_eq!(
        (&line["reason"], &line["tries"]),
        (&"request-timeout".into(), &3.into())
    );
    assert!(elapsed >= Duration::from_millis(500), "{elapsed:?}");
}

#[tokio::test]
async fn a_response_that_has_begun_is_cut_off_at_the_deadline() {
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
    let started = Instant::now();
    let all = site.raw("GET /cut HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert!(all.starts_with("HTTP/1.1 200 "), "{all}");
    assert!(
        all.ends_with('x'),
        "no second answer within the first: {all}"
    );
    assert!(started.elapsed() >= Duration::from_millis(300));
    let line = site.log.of("/cut").await;
    assert_eq!(
        (&line["status"], &line["reason"]),
        (&200.into(), &"request-timeout".into())
    );
    eventually("nothing is in flight", || {
        let states = site.running.endpoint_state();
        states.iter().all(|state| state.in_flight == 0)
    })
    .await;
}

#[tokio::test]
async fn a_client_that_does_not_send_its_body_is_not_the_endpoints_fault() {
    let web = echo("web").await;
    let site = Site::start(within(&[web], WHOLE, None));
    for n in 0..6 {
        let all = site
            .raw(format!(
                "POST /{n} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nabc"
            ))
            .await;
        assert!(all.starts_with("HTTP/1.1 504 "), "{all}");
    }
    let state = &site.running.endpoint_state()[0];
    assert_eq!((state.failures, state.ejected), (0, false));
}

#[tokio::test]
async fn a_request_of_http2_does_not_wait_for_ever_either() {
    let site = Site::start(within(&[silent().await], WHOLE, None));
    let mut client = site.http2().await;
    let request = Request::get("http://a.test/late").body(Full::default());
    let answer = soon(client.send_request(request.unwrap())).await.unwrap();
    assert_eq!(answer.status(), 504);
    assert_eq!(site.log.of("/late").await["reason"], "request-timeout");
}

#[tokio::test]
async fn what_is_in_time_is_served_on_one_connection() {
    let both = Deadlines {
        try_ms: 10_000,
        request_ms: 20_000,
    };
    let site = Site::start(within(&[nobody(), echo("web").await], both, None));
    let mut client = TcpStream::connect(site.http).await.unwrap();
    for n in 0..5 {
        let request = format!("GET /{n} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let head = soon(read_head(&mut client)).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let length = head
            .to_lowercase()
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok())
            .unwrap();
        let mut body = vec![0; length];
        soon(client.read_exact(&mut body)).await.unwrap();
    }
}

#[tokio::test]
async fn a_page_for_a_late_answer_is_made_by_the_error_backend() {
    let mut model = within(&[silent().await], TRY, None);
    let pages = backend(|request: Request<hyper::body::Incoming>| async move {
        let code = request.headers()["x-code"].to_str().unwrap().to_owned();
        Response::builder().status(504).body(full(code)).unwrap()
    });
    add_backend(&mut model, "pages", &[pages.await]);
    add_route_with(&mut model, "pages.test", "/", forward("web"), |route| {
        route.options.deadlines = Some(TRY);
        route.options.errors = Some(model::ErrorPages {
            statuses: vec![504],
            backend: crate::support::backend_id("pages"),
            keeps_answers: false,
        });
    });
    let site = Site::start(model);
    let answer = site.get("pages.test", "/").await;
    assert_eq!((answer.status, answer.body.as_str()), (504, "504"));
}
