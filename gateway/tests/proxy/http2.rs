//! Clients and backends that speak HTTP/2, frame by frame.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use h2::{Reason, RecvStream};
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, Response};
use model::{BackendProtocol, Endpoint, EndpointSet, RoutingModel};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::endpoints::with_tls;
use crate::support::{
    Answer, Site, add_backend, add_backend_of, add_route, backend, echo, forward, full, model,
    raw_backend, read_head, soon, to,
};

/// A connection on which single frames can be sent.
pub(crate) async fn connect(address: SocketAddr) -> h2::client::SendRequest<Bytes> {
    let mut builder = h2::client::Builder::new();
    // Until the gateway has said how many there may be.
    builder.initial_max_send_streams(100);
    connect_with(address, &builder).await
}

pub(crate) async fn connect_with(
    address: SocketAddr,
    builder: &h2::client::Builder,
) -> h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = builder.handshake(stream).await.unwrap();
    tokio::spawn(connection);
    soon(sender.ready()).await.unwrap()
}

pub(crate) fn get(path: &str) -> Request<()> {
    Request::get(format!("http://a.test{path}"))
        .body(())
        .unwrap()
}

/// Reads a body to its end, and what follows it.
pub(crate) async fn read_all(body: &mut RecvStream) -> (Vec<u8>, Option<HeaderMap>) {
    let mut all = Vec::new();
    while let Some(part) = soon(body.data()).await {
        let part = part.unwrap();
        body.flow_control().release_capacity(part.len()).unwrap();
        all.extend_from_slice(&part);
    }
    (all, soon(body.trailers()).await.unwrap())
}

/// A model that sends everything to a backend that speaks HTTP/2 without TLS.
pub(crate) fn to_h2c(addresses: &[SocketAddr]) -> RoutingModel {
    let mut model = model();
    let set = EndpointSet::Addresses(addresses.iter().copied().map(Endpoint::new).collect());
    add_backend_of(&mut model, "web", BackendProtocol::H2c, set);
    add_route(&mut model, "*", "/", forward("web"));
    model
}

#[tokio::test]
async fn bodies_without_a_length_pass_in_both_directions() {
    let web = raw_backend(|mut stream| async move {
        while let Some(head) = read_head(&mut stream).await {
            assert!(
                head.to_lowercase().contains("transfer-encoding: chunked"),
                "{head}"
            );
            let mut body = Vec::new();
            while !body.ends_with(b"0\r\n\r\n") {
                body.push(stream.read_u8().await.unwrap());
            }
            let answer = format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}",
                String::from_utf8(body).unwrap()
            );
            for byte in answer.as_bytes() {
                stream.write_all(&[*byte]).await.unwrap();
            }
        }
    })
    .await;
    let site = Site::start(to(web));
    let mut client = connect(site.http).await;
    for _ in 0..3 {
        let request = Request::post("http://a.test/").body(()).unwrap();
        let (response, mut body) = client.send_request(request, false).unwrap();
        for part in ["one, ", "two, ", "three"] {
            body.send_data(part.into(), false).unwrap();
        }
        body.send_data(Bytes::new(), true).unwrap();
        let mut response = soon(response).await.unwrap();
        assert_eq!(response.headers().get("transfer-encoding"), None);
        let (all, trailers) = read_all(response.body_mut()).await;
        assert_eq!((all, trailers), (b"one, two, three".to_vec(), None));
    }
}

#[tokio::test]
async fn an_empty_frame_ends_a_body_once() {
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let web = raw_backend(move |mut stream| {
        let told = told.clone();
        async move {
            while let Some(head) = read_head(&mut stream).await {
                assert!(head.starts_with("POST "), "{head}");
                let mut body = Vec::new();
                while !body.ends_with(b"0\r\n\r\n") {
                    body.push(stream.read_u8().await.unwrap());
                    if body.ends_with(b"all\r\n") {
                        told.send(()).unwrap();
                    }
                }
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(answer).await.unwrap();
            }
        }
    })
    .await;
    let site = Site::start(to(web));
    let mut client = connect(site.http).await;
    for _ in 0..3 {
        let request = Request::post("http://a.test/").body(()).unwrap();
        let (response, mut body) = client.send_request(request, false).unwrap();
        body.send_data("all".into(), false).unwrap();
        soon(heard.recv()).await.unwrap();
        body.send_data(Bytes::new(), true).unwrap();
        assert_eq!(soon(response).await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn responses_without_content_end_with_their_header_section() {
    let web = raw_backend(|mut stream| async move {
        while let Some(head) = read_head(&mut stream).await {
            let answer = match head.split(' ').nth(1).unwrap() {
                "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
                "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 12\r\nETag: \"a\"\r\n\r\n",
                "/0" => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                "/late" => "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let site = Site::start(to(web));
    let mut client = connect(site.http).await;
    for (method, path, status, length) in [
        ("GET", "/204", 204, None),
        ("GET", "/304", 304, Some("12")),
        ("GET", "/0", 200, Some("0")),
        ("GET", "/late", 200, Some("0")),
        ("HEAD", "/head", 200, Some("1234")),
        ("HEAD", "/..", 400, Some("16")),
    ] {
        let mut request = get(path);
        *request.method_mut() = method.parse().unwrap();
        let (response, _) = client.send_request(request, true).unwrap();
        let mut response = soon(response).await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        let given = response.headers().get("content-length");
        assert_eq!(given.map(|value| value.to_str().unwrap()), length, "{path}");
        assert!(response.headers().contains_key("date"), "{path}");
        assert_eq!(read_all(response.body_mut()).await.0, b"", "{path}");
    }
}

#[tokio::test]
async fn a_client_that_gives_up_ends_its_request_at_the_backend() {
    let ended = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ended);
    let arrived = Arc::new(tokio::sync::Semaphore::new(0));
    let arrive = Arc::clone(&arrived);
    let web = raw_backend(move |mut stream| {
        let (count, arrive) = (Arc::clone(&count), Arc::clone(&arrive));
        async move {
            read_head(&mut stream).await;
            arrive.add_permits(1);
            // Says nothing, and waits for the end.
            let _ = stream.read(&mut [0]).await;
            count.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let site = Site::start(to(web));
    let mut client = connect(site.http).await;
    let (response, mut given_up) = client.send_request(get("/gone"), true).unwrap();
    soon(arrived.acquire()).await.unwrap().forget();
    given_up.send_reset(Reason::CANCEL);
    assert!(soon(response).await.is_err());
    crate::support::eventually("the backend hears of it", || {
        ended.load(Ordering::SeqCst) == 1
    })
    .await;
    let line = site.log.of("/gone").await;
    // Pingora has one error for all that a stream can end with.
    if crate::ENGINE != gateway::Engine::Pingora {
        assert_eq!(
            (&line["status"], &line["reason"]),
            (&499.into(), &"client-closed".into())
        );
    }
    // The connection goes on.
    let (response, _) = client.send_request(get("/.."), true).unwrap();
    assert_eq!(soon(response).await.unwrap().status(), 400);
}

#[tokio::test]
async fn a_stream_that_is_not_read_stops_its_backend_and_no_other_stream() {
    let written = Arc::new(AtomicUsize::new(0));
    let progress = Arc::clone(&written);
    let web = raw_backend(move |mut stream| {
        let progress = Arc::clone(&progress);
        async move {
            let head = read_head(&mut stream).await.unwrap();
            if head.starts_with("GET /small ") {
                let answer =
                    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nsmall";
                stream.write_all(answer.as_bytes()).await.unwrap();
                return;
            }
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                1usize << 40
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            let piece = vec![0; 64 * 1024];
            while stream.write_all(&piece).await.is_ok() {
                progress.fetch_add(piece.len(), Ordering::SeqCst);
            }
        }
    })
    .await;
    let site = Site::start(to(web));
    let mut builder = h2::client::Builder::new();
    builder.initial_connection_window_size(1024 * 1024);
    let mut client = connect_with(site.http, &builder).await;
    let (endless, _) = client.send_request(get("/endless"), true).unwrap();
    let endless = soon(endless).await.unwrap();
    let mut before = usize::MAX;
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    let stalled = async {
        loop {
            ticks.tick().await;
            let now = written.load(Ordering::SeqCst);
            if now == before && now > 0 {
                return now;
            }
            before = now;
        }
    };
    let bytes = soon(stalled).await;
    assert!(bytes < 64 * 1024 * 1024, "{bytes} bytes went somewhere");
    let (response, _) = client.send_request(get("/small"), true).unwrap();
    let mut response = soon(response).await.unwrap();
    assert_eq!(read_all(response.body_mut()).await.0, b"small");
    drop(endless);
}

#[tokio::test]
async fn a_backend_that_does_not_read_stops_its_client() {
    let web = raw_backend(|mut stream| async move {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let site = Site::start(to(web));
    let mut client = connect(site.http).await;
    let request = Request::post("http://a.test/").body(()).unwrap();
    let (_response, mut body) = client.send_request(request, false).unwrap();
    let mut sent = 0;
    loop {
        body.reserve_capacity(64 * 1024);
        let room = std::future::poll_fn(|cx| body.poll_capacity(cx));
        let Ok(room) = tokio::time::timeout(Duration::from_secs(1), room).await else {
            break;
        };
        let room = room.unwrap().unwrap();
        body.send_data(vec![b'x'; room].into(), false).unwrap();
        sent += room;
        assert!(sent < 64 * 1024 * 1024, "{sent} bytes went somewhere");
    }
    assert!(sent > 0);
}

#[tokio::test]
async fn many_streams_share_a_connection() {
    let site = Site::start(to(echo("web").await));
    let client = connect(site.http).await;
    let ask = |n: usize| {
        let client = client.clone();
        async move {
            let mut client = client.ready().await.unwrap();
            let (response, _) = client.send_request(get(&format!("/{n}")), true).unwrap();
            let mut response = response.await.unwrap();
            let (body, _) = read_all(response.body_mut()).await;
            let seen: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(seen["target"], format!("/{n}"));
        }
    };
    soon(join_all((0..300).map(ask))).await;
    assert_eq!(site.running.connections(), 1);
}

#[tokio::test]
async fn a_body_that_grows_too_large_is_refused() {
    let mut model = model();
    add_backend(&mut model, "web", &[echo("web").await]);
    crate::support::add_route_with(&mut model, "*", "/", forward("web"), |route| {
        route.body_limit = Some(100_000);
    });
    let site = Site::start(model);
    let mut client = connect(site.http).await;
    for (size, status) in [(100_000, 200), (100_001, 413)] {
        let request = Request::post("http://a.test/").body(()).unwrap();
        let (response, mut body) = client.send_request(request, false).unwrap();
        // Without a length nobody knows before.
        body.send_data(vec![b'x'; size].into(), false).unwrap();
        let _ = body.send_data(Bytes::new(), true);
        assert_eq!(soon(response).await.unwrap().status(), status, "{size}");
    }
}

#[tokio::test]
async fn streams_to_backends_with_and_without_tls_are_neighbours() {
    let mut model = model();
    let set = EndpointSet::Addresses(vec![Endpoint::new(with_tls().await)]);
    add_backend_of(&mut model, "tls", BackendProtocol::Https, set);
    add_backend(&mut model, "plain", &[echo("plain").await]);
    add_route(&mut model, "*", "/tls", forward("tls"));
    add_route(&mut model, "*", "/", forward("plain"));
    let site = Site::start(model);
    let client = site.http2().await;
    let ask = |n: usize| {
        let mut client = client.clone();
        async move {
            let path = if n.is_multiple_of(2) { "tls" } else { "plain" };
            let body = vec![b'x'; n * 10_000];
            let request = Request::post(format!("http://a.test/{path}/{n}"))
                .body(Full::new(Bytes::from(body)))
                .unwrap();
            let answer = Answer::read(client.send_request(request).await.unwrap()).await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.origin(), path);
            assert_eq!(answer.seen()["length"], n * 10_000);
            assert_eq!(answer.seen_header("x-real-ip"), ["127.0.0.1"]);
            assert!(answer.headers.contains_key("date"));
        }
    };
    soon(join_all((0..20).map(ask))).await;
    assert_eq!(site.running.connections(), 1);
    let line = site.log.of("/tls/2").await;
    assert_eq!(
        (&line["status"], &line["protocol"]),
        (&200.into(), &"HTTP/2.0".into())
    );
    assert_eq!(
        line["bytes_sent"].as_u64().map(|bytes| bytes > 0),
        Some(true)
    );
    // One that is given up harms none of its neighbours.
    let mut raw = connect(site.http).await;
    let (response, mut given_up) = raw.send_request(get("/tls/gone"), true).unwrap();
    given_up.send_reset(Reason::CANCEL);
    assert!(soon(response).await.is_err());
    let (response, _) = raw.send_request(get("/tls/next"), true).unwrap();
    let mut response = soon(response).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(!read_all(response.body_mut()).await.0.is_empty());
}

#[tokio::test]
async fn a_connection_to_a_backend_with_http2_carries_many_requests() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let mut body = respond.send_response(Response::new(()), false).unwrap();
                    body.send_data("content".into(), true).unwrap();
                }
            });
        }
    });
    let site = Site::start(to_h2c(&[address]));
    let client = connect(site.http).await;
    let ask = |_| {
        let client = client.clone();
        async move {
            let mut client = client.ready().await.unwrap();
            let (response, _) = client.send_request(get("/"), true).unwrap();
            let mut response = response.await.unwrap();
            assert_eq!(read_all(response.body_mut()).await.0, b"content");
        }
    };
    for _ in 0..3 {
        soon(join_all((0..50).map(ask))).await;
    }
    let connections = connections.load(Ordering::SeqCst);
    assert!(connections <= 50, "{connections}");
}

#[tokio::test]
async fn trailers_without_content_and_after_it_pass() {
    let grpc = backend(|request: Request<hyper::body::Incoming>| async move {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "5".parse().unwrap());
        if path == "/only" {
            return Response::builder()
                .header("grpc-status", "5")
                .body(full(""))
                .unwrap();
        }
        let answer = Full::new(body).with_trailers(async move { Some(Ok(trailers)) });
        Response::new(answer.boxed())
    })
    .await;
    let site = Site::start(to_h2c(&[grpc]));
    let mut client = connect(site.http).await;
    let large = vec![b'x'; 300_000];
    for (path, body) in [("/only", &b""[..]), ("/small", b"a"), ("/large", &large)] {
        let request = Request::post(format!("http://a.test{path}"))
            .body(())
            .unwrap();
        let (response, mut send) = client.send_request(request, false).unwrap();
        send.send_data(Bytes::copy_from_slice(body), true).unwrap();
        let mut response = soon(response).await.unwrap();
        let (all, trailers) = read_all(response.body_mut()).await;
        assert!(all == body, "{path}");
        let status = match trailers {
            Some(trailers) => trailers["grpc-status"].clone(),
            None => response.headers()["grpc-status"].clone(),
        };
        assert_eq!(status, "5", "{path}");
    }
}
