//! The corners of HTTP.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, Response};
use model::{BackendProtocol, Endpoint, EndpointSet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{
    Answer, Site, add_backend_of, add_route, backend, echo, forward, model, raw_backend, read_head,
    soon, to,
};

#[tokio::test]
async fn grpc_keeps_its_trailers() {
    let grpc = backend(|request: Request<hyper::body::Incoming>| async move {
        assert_eq!(request.headers()["te"], "trailers");
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        trailers.insert("grpc-message", "fine".parse().unwrap());
        let answer = Full::new(body).with_trailers(async move { Some(Ok(trailers)) });
        Response::builder()
            .header("content-type", "application/grpc")
            .body(answer.boxed())
            .unwrap()
    })
    .await;
    let mut model = model();
    let set = EndpointSet::Addresses(vec![Endpoint::new(grpc)]);
    add_backend_of(&mut model, "grpc", BackendProtocol::H2c, set);
    add_route(&mut model, "*", "/", forward("grpc"));
    let site = Site::start(model);
    let mut sender = site.http2().await;
    for n in 0..3 {
        let request = Request::post("http://a.test/pkg.Service/Method")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(Bytes::from_static(b"\0\0\0\0\x02hi")))
            .unwrap();
        let response = soon(sender.send_request(request)).await.unwrap();
        assert_eq!(response.status(), 200, "{n}");
        let collected = soon(response.into_body().collect()).await.unwrap();
        let trailers = collected.trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers["grpc-message"], "fine");
        assert_eq!(collected.to_bytes(), &b"\0\0\0\0\x02hi"[..]);
    }
}

#[tokio::test]
async fn head_has_a_length_and_no_body() {
    let web = raw_backend(|mut stream| async move {
        while let Some(head) = read_head(&mut stream).await {
            assert!(head.starts_with("HEAD "), "{head}");
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let site = Site::start(to(web));
    for path in ["/", "/.."] {
        let request = Request::head(path).header("host", "a.test");
        let answer = site.send(request.body(Bytes::new()).unwrap()).await;
        assert_eq!(answer.body, "", "{path}");
        let length = answer.header("content-length").unwrap();
        assert_eq!(length == "1234", path == "/", "{path}: {length}");
    }
    let mut stream = TcpStream::connect(site.http).await.unwrap();
    for path in ["/a", "/..", "/b"] {
        let request = format!("HEAD {path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        // What follows a header section is the next one.
        let head = soon(read_head(&mut stream)).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 "), "{path}: {head}");
    }
}

#[tokio::test]
async fn a_client_that_waits_to_continue_is_told_to() {
    let site = Site::start(to(echo("web").await));
    let mut stream = TcpStream::connect(site.http).await.unwrap();
    stream
        .write_all(
            b"POST / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\
              Expect: 100-continue\r\nContent-Length: 4\r\n\r\n",
        )
        .await
        .unwrap();
    let interim = soon(read_head(&mut stream)).await.unwrap();
    assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
    stream.write_all(b"body").await.unwrap();
    let mut rest = String::new();
    soon(stream.read_to_string(&mut rest)).await.unwrap();
    assert!(rest.starts_with("HTTP/1.1 200 "), "{rest}");
    assert!(rest.contains("\"length\":4"), "{rest}");
}

#[tokio::test]
async fn a_refusal_comes_instead_of_the_permission_to_continue() {
    let site = Site::start(model());
    let all = site
        .raw("POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        .await;
    assert!(all.starts_with("HTTP/1.1 404 "), "{all}");
    assert!(all.to_lowercase().contains("connection: close"), "{all}");
}

#[tokio::test]
async fn connections_are_kept_unless_somebody_says_otherwise() {
    let site = Site::start(to(echo("web").await));
    let mut stream = TcpStream::connect(site.http).await.unwrap();
    for n in 0..3 {
        let request = format!("GET /{n} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = soon(read_head(&mut stream)).await.unwrap().to_lowercase();
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        soon(stream.read_exact(&mut body)).await.unwrap();
    }
    for end in [
        "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n",
    ] {
        // `raw` returns when the connection is closed.
        let all = site.raw(end).await;
        assert!(all.contains(" 200 "), "{all}");
    }
}

#[tokio::test]
async fn a_connection_has_a_last_request() {
    let site = Site::with(to(echo("web").await), |settings| {
        settings.limits.max_requests_per_connection = 3;
    });
    let mut stream = TcpStream::connect(site.http).await.unwrap();
    let mut all = String::new();
    let mut answered = 0;
    loop {
        let request = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
        if stream.write_all(request).await.is_err() {
            break;
        }
        let Some(head) = soon(read_head(&mut stream)).await else {
            break;
        };
        let head = head.to_lowercase();
        answered += 1;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        soon(stream.read_exact(&mut body)).await.unwrap();
        all.push_str(&head);
        assert!(answered < 20, "{all}");
    }
    assert!((3..=4).contains(&answered), "{answered}");
    assert!(all.contains("connection: close"), "{all}");
}

#[tokio::test]
async fn two_lengths_end_the_connection() {
    let site = Site::start(to(echo("web").await));
    // The second request is smuggled: a server that goes by Content-Length takes it for part of the first one.
    let all = site
        .raw(
            "POST /first HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\
             Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n\
             GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n",
        )
        .await;
    assert!(!all.contains("smuggled"), "{all}");
    assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{all}");
    assert!(
        site.log
            .lines()
            .iter()
            .all(|line| line["path"] != "/smuggled"),
        "{}",
        site.log.text()
    );
}

#[tokio::test]
async fn requests_that_two_servers_could_read_differently_are_refused() {
    let site = Site::start(to(echo("web").await));
    for (fields, why) in [
        ("Content-Length: 4\r\nContent-Length: 5", "two lengths"),
        ("Content-Length: +4", "a sign"),
        ("Content-Length: 4, 5", "a list"),
        ("Transfer-Encoding: gzip", "an end that is not marked"),
        ("Transfer-Encoding: chunked, identity", "not chunked last"),
        ("Transfer-Encoding : chunked", "space before the colon"),
    ] {
        let all = site
            .raw(format!(
                "POST / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n\r\n0\r\n\r\n"
            ))
            .await;
        assert!(all.starts_with("HTTP/1.1 400 "), "{why}: {all}");
        assert!(all.ends_with("\r\n\r\n400 Bad Request\n"), "{why}: {all}");
        assert!(!all.to_lowercase().contains("pingora"), "{why}: {all}");
    }
    let line = site.log.line(|line| line["reason"] == "bad-request").await;
    assert_eq!(
        (&line["status"], &line["method"]),
        (&400.into(), &"-".into())
    );
    let old = site
        .raw("POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        .await;
    assert!(old.contains(" 400 "), "chunks in HTTP/1.0: {old}");
}

#[tokio::test]
async fn nonsense_after_a_request_is_refused_as_well() {
    let site = Site::start(to(echo("web").await));
    let mut stream = TcpStream::connect(site.http).await.unwrap();
    let request = b"GET /first HTTP/1.1\r\nHost: a.test\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let head = soon(read_head(&mut stream)).await.unwrap().to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    soon(stream.read_exact(&mut body)).await.unwrap();
    stream
        .write_all(b"\x16\x03\x01 nonsense\r\n\r\n")
        .await
        .unwrap();
    let mut rest = String::new();
    soon(stream.read_to_string(&mut rest)).await.unwrap();
    assert!(rest.starts_with("HTTP/1.1 400 "), "{rest}");
    assert!(rest.ends_with("\r\n\r\n400 Bad Request\n"), "{rest}");
    site.log.line(|line| line["reason"] == "bad-request").await;
}

#[tokio::test]
async fn http2_without_tls_works_beside_http1() {
    let site = Site::start(to(echo("web").await));
    let mut sender = site.http2().await;
    for n in 0..5 {
        let request = Request::get(format!("http://a.test/{n}"));
        let request = request.body(Full::new(Bytes::new())).unwrap();
        let answer = Answer::read(soon(sender.send_request(request)).await.unwrap()).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.seen()["target"], format!("/{n}"));
        assert_eq!(answer.seen()["version"], "HTTP/1.1");
    }
    assert_eq!(site.log.of("/4").await["protocol"], "HTTP/2.0");
    assert_eq!(site.get("a.test", "/h1").await.status, 200);
    // The shortest request there is has fewer bytes than HTTP/2's preface.
    let all = site.raw("GET / HTTP/1.0\r\n\r\n").await;
    assert!(all.contains(" 400 "), "{all}");
}

#[tokio::test]
async fn answers_of_our_own_come_over_http2_too() {
    let site = Site::start(model());
    let mut sender = site.http2().await;
    let request = Request::post("http://a.test/")
        .body(Full::new(Bytes::from("body")))
        .unwrap();
    let answer = Answer::read(soon(sender.send_request(request)).await.unwrap()).await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (404, "404 Not Found\n")
    );
}
