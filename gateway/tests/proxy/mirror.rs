//! Copies of requests: what arrives elsewhere, and that the request does not notice.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::http::request::Parts;
use hyper::{Request, Response};
use model::{Access, BasicAuth, Filter, Mirror, Redacted, RoutingModel};
use tokio::sync::mpsc;

use crate::support::{
    Site, add_backend, add_route_with, backend, backend_id, counted, echo, eventually, forward,
    full, model, nobody, raw_backend, read_head, soon,
};

const METRIC: &str = "lockgate_mirrored_requests_total";

/// A server that keeps what it gets.
async fn collector() -> (SocketAddr, mpsc::UnboundedReceiver<(Parts, Bytes)>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let address = backend(move |request: Request<hyper::body::Incoming>| {
        let sender = sender.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            sender.send((parts, body)).unwrap();
            Response::builder().status(500).body(full("lost")).unwrap()
        }
    })
    .await;
    (address, receiver)
}

fn mirror(url: &str) -> Mirror {
    Mirror {
        url: url.to_owned(),
        backend: Some(backend_id("mirror")),
        host: None,
        without_body: false,
    }
}

/// Everything goes to a backend and, as a copy, to `copies`.
async fn mirrored(copies: SocketAddr, mirror: Mirror) -> RoutingModel {
    let mut model = model();
    add_backend(&mut model, "web", &[echo("web").await]);
    add_backend(&mut model, "mirror", &[copies]);
    add_route_with(&mut model, "*", "/", forward("web"), |route| {
        route.options.mirror = Some(mirror);
    });
    model
}

fn post(path: &str, body: &'static str) -> Request<Bytes> {
    Request::post(path)
        .header("host", "a.test")
        .header("x-custom", "kept")
        .header("x-real-ip", "192.0.2.1")
        .header("connection", "x-hop")
        .header("x-hop", "dropped")
        .body(Bytes::from_static(body.as_bytes()))
        .unwrap()
}

#[tokio::test]
async fn a_copy_says_what_the_request_says() {
    let (address, mut copies) = collector().await;
    let url = "http://mirror.shop.svc/$request_uri";
    let site = Site::start(mirrored(address, mirror(url)).await);
    let answer = site.send(post("/a%20b?c=d", "content")).await;
    assert_eq!((answer.status, answer.origin()), (200, "web"));
    let (parts, body) = soon(copies.recv()).await.unwrap();
    assert_eq!(parts.method, "POST");
    assert_eq!(parts.uri, "/a%20b?c=d");
    assert_eq!(body, "content");
    for (name, want) in [
        ("host", Some("mirror.shop.svc")),
        ("x-custom", Some("kept")),
        ("x-real-ip", Some("127.0.0.1")),
        ("x-hop", None),
        ("content-length", Some("7")),
    ] {
        let value = parts.headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(value, want, "{name}");
    }
}

#[tokio::test]
async fn a_copy_may_have_another_host_and_no_body() {
    let (address, mut copies) = collector().await;
    let mirror = Mirror {
        host: Some("$host.copy".to_owned()),
        without_body: true,
        ..mirror("http://mirror.shop.svc/base?u=$uri")
    };
    let mut model = mirrored(address, mirror).await;
    let users = [(
        "anna".to_owned(),
        "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=".to_owned(),
    )];
    let access = Access {
        basic: Some(BasicAuth {
            realm: "test".to_owned(),
            users: Arc::new(Redacted::new(users.into())),
        }),
        ..Access::default()
    };
    let pattern = model.hosts.keys().next().unwrap().clone();
    let mut host = model::VirtualHost::clone(&model.hosts[&pattern]);
    host.routes[0]
        .filters
        .push(Filter::Access(Arc::new(access)));
    model.hosts.insert(pattern, Arc::new(host));
    let site = Site::start(model);
    // Who is refused leaves no copy.
    assert_eq!(site.send(post("/x", "content")).await.status, 401);
    let mut request = post("/x", "content");
    let password = "Basic YW5uYTpzZWNyZXQ=";
    request
        .headers_mut()
        .insert("authorization", password.parse().unwrap());
    assert_eq!(site.send(request).await.status, 200);
    let (parts, body) = soon(copies.recv()).await.unwrap();
    assert_eq!(parts.uri, "/base?u=/x");
    assert_eq!(parts.headers["host"], "a.test.copy");
    assert!(!parts.headers.contains_key("authorization"));
    assert!(body.is_empty());
}

#[tokio::test]
async fn requests_over_http2_are_copied_as_well() {
    let (address, mut copies) = collector().await;
    let url = "http://mirror.shop.svc$request_uri";
    let site = Site::start(mirrored(address, mirror(url)).await);
    let mut sender = site.http2().await;
    for (method, body) in [("GET", ""), ("POST", "content")] {
        let request = Request::builder()
            .method(method)
            .uri("http://a.test/x")
            .body(Full::new(Bytes::from_static(body.as_bytes())))
            .unwrap();
        let response = soon(sender.send_request(request)).await.unwrap();
        assert_eq!(response.status(), 200);
        soon(response.into_body().collect()).await.unwrap();
        let (parts, content) = soon(copies.recv()).await.unwrap();
        assert_eq!(
            (parts.method.as_str(), &content[..]),
            (method, body.as_bytes())
        );
    }
}

#[tokio::test]
async fn a_server_that_fails_or_hangs_is_not_noticed() {
    let url = "http://mirror.shop.svc$request_uri";
    let site = Site::start(mirrored(nobody(), mirror(url)).await);
    let failed = ["result=\"failed\""];
    let before = counted(METRIC, &failed);
    assert_eq!(site.get("a.test", "/").await.status, 200);
    eventually("the loss is counted", || counted(METRIC, &failed) > before).await;

    // It takes everything and says nothing: after 64 copies, others are lost.
    let hanging = raw_backend(|mut stream| async move {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let site = Site::start(mirrored(hanging, mirror(url)).await);
    let busy = ["result=\"busy\""];
    let before = counted(METRIC, &busy);
    for _ in 0..70 {
        assert_eq!(site.get("a.test", "/").await.status, 200);
    }
    eventually("some are lost", || counted(METRIC, &busy) >= before + 1.0).await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_not_copied() {
    let (address, mut copies) = collector().await;
    let url = "http://mirror.shop.svc$request_uri";
    let site = Site::start(mirrored(address, mirror(url)).await);
    let large = ["result=\"too-large\""];
    let before = counted(METRIC, &large);
    let mut request = post("/large", "");
    *request.body_mut() = Bytes::from(vec![b'x'; 300 * 1024]);
    assert_eq!(site.send(request).await.status, 200);
    eventually("it is counted", || counted(METRIC, &large) > before).await;
    assert_eq!(site.send(post("/small", "content")).await.status, 200);
    let (parts, _) = soon(copies.recv()).await.unwrap();
    assert_eq!(parts.uri, "/small", "the first one that comes");
}
