//! What the backend is told about the client.

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;

use tokio::io::AsyncWriteExt;

use crate::support::{Answer, Site, echo, raw_backend, read_head, soon, to};

#[tokio::test]
async fn the_backend_learns_who_asked() {
    let site = Site::start(to(echo("web").await));
    let answer = site.get("a.test:8080", "/").await;
    for (name, want) in [
        ("host", "a.test:8080"),
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "a.test:8080"),
        ("x-forwarded-port", "8080"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-scheme", "http"),
        ("x-scheme", "http"),
    ] {
        assert_eq!(answer.seen_header(name), [want], "{name}");
    }
    assert!(answer.seen_header("x-original-forwarded-for").is_empty());
    let id = &answer.seen_header("x-request-id")[0];
    assert!(
        id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{id}"
    );
    assert_eq!(site.log.of("/").await["request_id"], id.as_str());
}

#[tokio::test]
async fn what_a_stranger_says_about_itself_is_dropped() {
    let site = Site::start(to(echo("web").await));
    let answer = site
        .get_with(
            "a.test",
            "/",
            &[
                ("X-Forwarded-For", "6.6.6.6"),
                ("X-Forwarded-For", "7.7.7.7"),
                ("X-Forwarded-Host", "evil.test"),
                ("X-Forwarded-Proto", "https"),
                ("X-Forwarded-Port", "1"),
                ("X-Forwarded-Prefix", "/evil"),
                ("X-Real-IP", "6.6.6.6"),
                ("X-Scheme", "https"),
                ("X-Original-URL", "/admin"),
                ("X-Auth-Request-User", "root"),
                ("ssl-client-verify", "SUCCESS"),
                ("Forwarded", "for=6.6.6.6"),
                ("X_Forwarded_For", "6.6.6.6"),
                ("X-Real_IP", "6.6.6.6"),
                ("ssl_client_verify", "SUCCESS"),
                ("any_thing", "1"),
                ("Proxy", "http://6.6.6.6"),
                ("Authorization", "Bearer t"),
                ("X-Request-ID", "abc-123"),
            ],
        )
        .await;
    for (name, want) in [
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-original-forwarded-for", Some("6.6.6.6, 7.7.7.7")),
        ("x-forwarded-host", Some("a.test")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-port", Some("80")),
        ("x-forwarded-prefix", None),
        ("x-real-ip", Some("127.0.0.1")),
        ("x-scheme", Some("http")),
        ("x-original-url", None),
        ("x-auth-request-user", None),
        ("ssl-client-verify", None),
        ("forwarded", None),
        ("x_forwarded_for", None),
        ("x-real_ip", None),
        ("ssl_client_verify", None),
        ("any_thing", None),
        ("proxy", None),
        ("authorization", Some("Bearer t")),
        ("x-request-id", Some("abc-123")),
    ] {
        assert_eq!(
            answer.seen_header(name),
            want.into_iter().collect::<Vec<_>>(),
            "{name}"
        );
    }
    let line = site.log.of("/").await;
    assert_eq!(line["remote_addr"], "127.0.0.1");
    assert_eq!(line["x_forwarded_for"], "6.6.6.6");
}

#[tokio::test]
async fn a_trusted_peer_speaks_for_the_client() {
    let mut model = to(echo("web").await);
    model.trust.forwarded_headers_from = vec!["127.0.0.0/8".parse().unwrap()];
    let fields = [
        ("x-forwarded-for", "198.51.100.1, 203.0.113.9"),
        ("x-forwarded-host", "public.test"),
        ("x-forwarded-port", "8443"),
        ("x-forwarded-proto", "https"),
        ("x_real_ip", "6.6.6.6"),
    ];
    for (append, list) in [
        (false, "203.0.113.9"),
        (true, "198.51.100.1, 203.0.113.9, 127.0.0.1"),
    ] {
        model.trust.append_forwarded_for = append;
        let site = Site::start(model.clone());
        let answer = site.get_with("a.test", "/", &fields).await;
        for (name, want) in [
            ("x-forwarded-for", Some(list)),
            (
                "x-original-forwarded-for",
                Some("198.51.100.1, 203.0.113.9"),
            ),
            ("x-real-ip", Some("203.0.113.9")),
            ("x-forwarded-host", Some("public.test")),
            ("x-forwarded-port", Some("8443")),
            ("x-forwarded-proto", Some("https")),
            ("x-scheme", Some("https")),
            ("x_real_ip", None),
        ] {
            assert_eq!(
                answer.seen_header(name),
                want.into_iter().collect::<Vec<_>>(),
                "{name}, append: {append}"
            );
        }
        let line = site.log.of("/").await;
        assert_eq!(line["remote_addr"], "203.0.113.9");
        assert_eq!(line["peer_addr"], "127.0.0.1");
    }
}

#[tokio::test]
async fn hop_by_hop_fields_end_here() {
    let site = Site::start(to(echo("web").await));
    let answer = site
        .get_with(
            "a.test",
            "/",
            &[
                ("connection", "keep-alive, x-mine"),
                ("x-mine", "1"),
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "keep-alive"),
                ("te", "trailers, deflate"),
                ("upgrade", "h2c"),
                ("http2-settings", "AAMAAABkAAQAAP__"),
                ("x-end-to-end", "1"),
            ],
        )
        .await;
    for name in [
        "connection",
        "x-mine",
        "keep-alive",
        "proxy-connection",
        "te",
        "upgrade",
        "http2-settings",
    ] {
        assert!(answer.seen_header(name).is_empty(), "{name}");
    }
    assert_eq!(answer.seen_header("x-end-to-end"), ["1"]);
}

#[tokio::test]
async fn connection_cannot_take_our_fields_away() {
    let site = Site::start(to(echo("web").await));
    for nominated in ["x-forwarded-for", "x-real-ip", "x-request-id"] {
        let answer = site
            .get_with("a.test", "/", &[("connection", nominated)])
            .await;
        // Refused or ignored, but never obeyed.
        if answer.status == 200 {
            assert_eq!(answer.seen_header(nominated).len(), 1, "{nominated}");
        } else {
            assert_eq!(answer.status, 400, "{nominated}");
        }
    }
}

#[tokio::test]
async fn cookies_of_http2_arrive_as_one() {
    let site = Site::start(to(echo("web").await));
    let mut sender = site.http2().await;
    let request = Request::get("http://a.test/")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("x_forwarded_for", "6.6.6.6")
        .body(Full::new(Bytes::new()))
        .unwrap();
    let answer = Answer::read(soon(sender.send_request(request)).await.unwrap()).await;
    assert_eq!(answer.seen_header("cookie"), ["a=1; b=2"]);
    assert_eq!(answer.seen_header("host"), ["a.test"]);
    assert_eq!(answer.seen_header("x-forwarded-host"), ["a.test"]);
    assert!(answer.seen_header("x_forwarded_for").is_empty());
}

/// RFC 9112, 3.2.1 and 3.2.2: the absolute form is for proxies.
#[tokio::test]
async fn an_absolute_target_goes_on_as_a_path() {
    let address = raw_backend(|mut stream| async move {
        while let Some(head) = read_head(&mut stream).await {
            let line = head.lines().next().unwrap_or_default();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{line}",
                line.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let site = Site::start(to(address));
    for (target, want) in [
        ("http://a.test/p?q=1", "GET /p?q=1 HTTP/1.1"),
        ("http://a.test/a/../p", "GET /p HTTP/1.1"),
        ("http://a.test", "GET / HTTP/1.1"),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
        let answer = site.raw(request).await;
        assert!(answer.ends_with(want), "{target}: {answer}");
    }
}
