//! Which route a request takes, and what reaches the backend of its target.

use std::sync::Arc;

use model::RoutingModel;

use crate::support::{Site, add_backend, add_route, counted, echo, eventually, forward, model, to};

async fn two_backends() -> RoutingModel {
    let mut model = model();
    add_backend(&mut model, "web", &[echo("web").await]);
    add_backend(&mut model, "api", &[echo("api").await]);
    add_route(&mut model, "shop.test", "/", forward("web"));
    add_route(&mut model, "shop.test", "/api", forward("api"));
    add_route(&mut model, "*.shop.test", "/", forward("api"));
    model
}

#[tokio::test]
async fn host_and_path_choose_the_backend() {
    let site = Site::start(two_backends().await);
    for (host, path, want) in [
        ("shop.test", "/", "web"),
        ("shop.test", "/apiary", "web"),
        ("shop.test", "/api", "api"),
        ("shop.test", "/api/v1", "api"),
        ("SHOP.test:8080", "/", "web"),
        ("shop.test.", "/", "web"),
        ("eu.shop.test", "/", "api"),
        ("a.b.shop.test", "/", "none"),
        ("other.test", "/", "none"),
    ] {
        let answer = site.get(host, path).await;
        assert_eq!(answer.origin(), want, "{host}{path}");
    }
}

#[tokio::test]
async fn the_backend_gets_the_path_that_was_matched_and_the_query_as_it_came() {
    let site = Site::start(two_backends().await);
    for (given, origin, want) in [
        ("/a/../api/./x?q=%2e", "api", "/api/x?q=%2e"),
        ("//api//x", "api", "/api/x"),
        ("/%61pi/%7Ex", "api", "/api/~x"),
        ("/api/%2e%2e/x", "web", "/x"),
        ("/a%2fb%3fc?d=e&f=/../g", "web", "/a%2Fb%3Fc?d=e&f=/../g"),
        ("/plain?x", "web", "/plain?x"),
        ("/?", "web", "/?"),
    ] {
        let answer = site.get("shop.test", given).await;
        assert_eq!(answer.origin(), origin, "{given}");
        assert_eq!(answer.seen()["target"], want, "{given}");
    }
}

#[tokio::test]
async fn paths_that_are_refused_never_reach_a_backend() {
    let site = Site::start(to(echo("web").await));
    for (target, reason) in [
        ("/..", "bad-path"),
        ("/a/../../b", "bad-path"),
        ("/a%00", "bad-path"),
        ("/a%5Cb", "bad-path"),
        ("/a/..%2fb", "bad-path"),
        ("/%zz", "bad-path"),
        ("*", "bad-path"),
        ("ftp://a.test/", "bad-path"),
    ] {
        let method = if target == "*" { "OPTIONS" } else { "GET" };
        let answer = site
            .raw(format!(
                "{method} {target} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"
            ))
            .await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{target}: {answer}");
        let line = site.log.line(|line| line["path"] == target).await;
        assert_eq!(line["reason"], reason, "{target}");
        assert_eq!(line["status"], 400);
        assert!(line.get("upstream_addr").is_none(), "{line}");
    }
}

#[tokio::test]
async fn a_long_path_is_refused_and_a_hostile_one_is_logged_safely() {
    let site = Site::start(to(echo("web").await));
    for (length, status) in [(60_000, 200), (65_520, 431), (70_000, 400)] {
        let long = "a".repeat(length);
        let answer = site
            .raw(format!(
                "GET /{long} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"
            ))
            .await;
        let want = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&want), "{length}");
    }
    for (path, logged) in [
        ("/\"quoted'%22%0a", "/\"quoted'%22%0a"),
        ("/a%09b%00", "/a%09b%00"),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
        let answer = site.raw(request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
        assert_eq!(site.log.of(logged).await["reason"], "bad-path");
    }
}

#[tokio::test]
async fn a_request_has_one_host() {
    let site = Site::start(to(echo("web").await));
    for (head, status) in [
        ("GET / HTTP/1.0\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: \r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n", 400),
        ("GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\n", 200),
        ("GET http://a.test/x HTTP/1.1\r\nHost: b.test\r\n", 400),
        ("GET http://user@a.test/x HTTP/1.1\r\nHost: a.test\r\n", 400),
    ] {
        let answer = site.raw(format!("{head}Connection: close\r\n\r\n")).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} "))
                || answer.starts_with(&format!("HTTP/1.0 {status} ")),
            "{head}: {answer}"
        );
        if status == 200 {
            assert!(answer.contains("\"target\":\"/x\""), "{answer}");
        }
    }
}

#[tokio::test]
async fn an_unknown_host_gets_the_built_in_page_or_the_fallback() {
    let mut site = Site::start(two_backends().await);
    let page = site
        .get_with("other.test", "/", &[("accept", "text/html")])
        .await;
    assert_eq!(page.status, 404);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(
        page.body.contains("<h1>404 Not Found</h1>"),
        "{}",
        page.body
    );
    assert_eq!(page.header("server"), None);
    let text = site.get("other.test", "/plain").await;
    assert_eq!(
        text.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(text.body, "404 Not Found\n");
    assert_eq!(site.log.of("/plain").await["reason"], "no-route");

    let fallback = site.model.hosts.values().next().unwrap().routes[0].clone();
    site.change(|model| model.fallback = Some(Arc::new(fallback)));
    assert_eq!(site.get("other.test", "/").await.status, 200);
}

#[tokio::test]
async fn connect_is_refused_and_logged() {
    let site = Site::start(to(echo("web").await));
    let answer = site
        .raw("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\nConnection: close\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    assert!(!answer.to_lowercase().contains("pingora"), "{answer}");
    let line = site.log.line(|line| line["method"] == "CONNECT").await;
    assert_eq!(line["reason"], "bad-method");
}

#[tokio::test]
async fn header_sections_have_a_limit_in_number_and_size() {
    let site = Site::with(to(echo("web").await), |settings| {
        settings.limits.max_headers = 20;
        settings.limits.max_header_bytes = 4096;
    });
    let many: Vec<String> = (0..25).map(|n| format!("x-{n}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "v")).collect();
    let long = "a".repeat(5000);
    for (path, fields) in [("/many", &many[..]), ("/long", &[("x", long.as_str())])] {
        let answer = site.get_with("a.test", path, fields).await;
        assert_eq!(answer.status, 431, "{path}");
        assert_eq!(site.log.of(path).await["reason"], "header-too-large");
    }
    assert_eq!(site.get_with("a.test", "/", &many[..10]).await.status, 200);
}

#[tokio::test]
async fn metrics_name_the_route_and_not_the_request() {
    let mut model = model();
    add_backend(&mut model, "metered", &[echo("web").await]);
    add_route(&mut model, "*.metered.test", "/shop", forward("metered"));
    let site = Site::start(model);
    for n in 0..3 {
        site.get(&format!("h{n}.metered.test"), &format!("/shop/{n}"))
            .await;
    }
    let labels = [
        "host=\"*.metered.test\"",
        "path=\"/shop\"",
        "namespace=\"shop\"",
        "ingress=\"web\"",
        "service=\"metered\"",
    ];
    eventually("three requests are counted", || {
        let with_status: Vec<&str> = labels.iter().copied().chain(["status=\"200\""]).collect();
        (counted("lockgate_requests_total", &with_status) - 3.0).abs() < 0.1
    })
    .await;
    let durations = counted("lockgate_request_duration_seconds_count", &labels);
    assert!((durations - 3.0).abs() < 0.1, "{durations}");
}

#[tokio::test]
async fn beyond_the_budget_requests_count_as_overflow() {
    let mut model = model();
    add_backend(&mut model, "budget", &[echo("web").await]);
    for n in 0..10 {
        add_route(
            &mut model,
            &format!("b{n}.budget.test"),
            "/",
            forward("budget"),
        );
    }
    let site = Site::with(model, |settings| settings.max_series = 7);
    let before = counted("lockgate_metric_series_overflow_total", &[]);
    for n in 0..10 {
        assert_eq!(
            site.get(&format!("b{n}.budget.test"), "/").await.status,
            200
        );
    }
    // The backend takes one place, each host two: one with and one without status.
    eventually("three hosts are counted by name", || {
        let named = counted("lockgate_requests_total", &["budget.test\""]);
        let overflow = counted("lockgate_requests_total", &["host=\"_overflow\""]);
        (named - 3.0).abs() < 0.1 && overflow >= 7.0
    })
    .await;
    assert!(counted("lockgate_metric_series_overflow_total", &[]) >= before + 14.0);
}
