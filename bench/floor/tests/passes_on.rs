//! What the yardstick is measured with gets right answers: else it would measure nothing.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests"
)]

use std::net::SocketAddr;
use std::time::Duration;

use bench::certs::{self, Authority};
use bench::load::{self, Body, Connector, Target, Version};
use bench::origin::{self, Site};
use floor::Server;
use http::{Method, Request};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const HOST: &str = "localhost";
const PATIENCE: Duration = Duration::from_secs(30);

struct Scene {
    http: SocketAddr,
    https: SocketAddr,
    connector: Connector,
}

impl Scene {
    /// The yardstick before a backend that describes what it is asked.
    async fn new() -> Self {
        let backend = origin::start(Site::new("origin", None)).await.unwrap();
        let authority = Authority::new("test authority").unwrap();
        let leaf = authority.issue(&[HOST.to_owned()], None).unwrap();
        let home = tempfile::tempdir().unwrap();
        let (certificate, key) = (home.path().join("crt"), home.path().join("key"));
        certs::write(&certificate, &leaf.certificate_pem).unwrap();
        certs::write(&key, &leaf.key_pem).unwrap();
        let listen = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server {
            http: listen().await,
            https: listen().await,
            tls: floor::tls(&certificate, &key).unwrap(),
            backend,
        };
        let roots = certs::roots(authority.pem()).unwrap();
        let scene = Self {
            http: server.http.local_addr().unwrap(),
            https: server.https.local_addr().unwrap(),
            connector: Connector::new(&roots, false).unwrap(),
        };
        tokio::spawn(server.run());
        scene
    }

    async fn open(&self, tls: bool, version: Version) -> load::Connection {
        let target = Target {
            address: if tls { self.https } else { self.http },
            server_name: tls.then(|| certs::server_name(HOST).unwrap()),
            authority: HOST.into(),
        };
        let opened = self.connector.open(&target, version).await;
        opened.unwrap_or_else(|failure| panic!("{failure}"))
    }

    /// Sends this over a connection of its own and reads all that comes until the end.
    async fn raw(&self, text: &str) -> String {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

fn get(path: &str) -> Request<Body> {
    let url = format!("https://{HOST}{path}");
    Request::get(url).body(Body::default()).unwrap()
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("in time")
}

#[tokio::test]
async fn requests_of_both_versions_reach_the_backend_with_three_more_fields() {
    let scene = Scene::new().await;
    for (tls, version) in [
        (false, Version::Http1),
        (true, Version::Http1),
        (true, Version::Http2),
    ] {
        let connection = scene.open(tls, version).await;
        let mut exchange = connection.exchange();
        // On one connection, so that everything that is kept is used again.
        for number in 0..3 {
            let mut request = get(&format!("/p?n={number}"));
            for field in 0..36 {
                let name = http::HeaderName::try_from(format!("x-field-{field}")).unwrap();
                request.headers_mut().insert(name, field.into());
            }
            let (status, body) = within(exchange.fetch(request)).await.unwrap();
            assert_eq!(status, 200);
            let asked: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(asked["path"], "/p", "{version:?}");
            assert_eq!(asked["query"], format!("n={number}"));
            assert_eq!(asked["protocol"], "HTTP/1.1");
            let scheme = if tls { "https" } else { "http" };
            for (name, value) in [
                ("host", HOST),
                ("x-field-35", "35"),
                ("x-forwarded-for", "127.0.0.1"),
                ("x-forwarded-host", HOST),
                ("x-forwarded-proto", scheme),
            ] {
                let values = &asked["headers"][name];
                assert_eq!(*values, serde_json::json!([value]), "{version:?}: {name}");
            }
        }
    }
}

#[tokio::test]
async fn bodies_pass_in_both_directions() {
    let scene = Scene::new().await;
    for (tls, version) in [
        (false, Version::Http1),
        (true, Version::Http1),
        (true, Version::Http2),
    ] {
        let connection = scene.open(tls, version).await;
        let mut exchange = connection.exchange();
        for size in [0, 1, 1 << 10, 1 << 20] {
            let mut request = get("/");
            *request.method_mut() = Method::POST;
            *request.body_mut() = Body::from(vec![b'x'; size]);
            let (status, body) = within(exchange.fetch(request)).await.unwrap();
            assert_eq!(status, 200);
            let asked: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(asked["received"], size, "{version:?}");

            let (status, body) = within(exchange.fetch(get(&format!("/?size={size}"))))
                .await
                .unwrap();
            assert_eq!(status, 200);
            assert!(body.len() == size && body.iter().all(|&byte| byte == b'x'));
        }
    }
}

#[tokio::test]
async fn many_streams_are_served_at_once() {
    let scene = Scene::new().await;
    let connection = scene.open(true, Version::Http2).await;
    let mut streams = JoinSet::new();
    for number in 0..100 {
        let mut exchange = connection.exchange();
        streams.spawn(async move {
            let answer = exchange.fetch(get(&format!("/?n={number}"))).await;
            (number, answer.unwrap())
        });
    }
    while let Some(done) = within(streams.join_next()).await {
        let (number, (status, body)) = done.unwrap();
        assert_eq!(status, 200);
        let asked: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            asked["query"],
            format!("n={number}"),
            "everybody gets their own"
        );
    }
}

#[tokio::test]
async fn calls_of_grpc_are_answered_with_trailers() {
    let scene = Scene::new().await;
    let mut connections = Vec::new();
    let mut calls = JoinSet::new();
    // More than one connection to the backend has room for.
    for _ in 0..3 {
        let connection = scene.open(true, Version::Http2).await;
        // Some are larger than a window.
        for size in (0..60).chain([100_000, 1_000_000]) {
            let mut exchange = connection.exchange();
            calls.spawn(async move {
                let mut request = get("/lockgate.origin.Origin/Echo");
                load::make_grpc(&mut request);
                *request.body_mut() = Body::from(load::grpc_message(size));
                exchange.send(request).await
            });
        }
        connections.push(connection);
    }
    while let Some(done) = within(calls.join_next()).await {
        let answer = done.unwrap().unwrap_or_else(|error| panic!("{error}"));
        load::judge_grpc(&answer).unwrap();
        assert!(answer.length >= 5, "a message");
    }
}

#[tokio::test]
async fn messages_of_a_websocket_come_back() {
    let scene = Scene::new().await;
    for tls in [false, true] {
        let connection = scene.open(tls, Version::WebSocket).await;
        let mut exchange = connection.exchange();
        for size in [0, 128, 100_000, 1_000_000] {
            let mut message = get("/ws");
            *message.body_mut() = Body::from(vec![b'x'; size]);
            let answer = within(exchange.send(message)).await;
            let answer = answer.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(answer.status, 101);
            assert_eq!(answer.length, size as u64);
        }
    }
}

#[tokio::test]
async fn several_requests_come_at_once() {
    let scene = Scene::new().await;
    let text = within(scene.raw(
        "POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
         GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ))
    .await;
    assert_eq!(text.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{text}");
    let (first, last) = (text.find("\"/first\""), text.find("\"/last\""));
    assert!(first.unwrap() < last.unwrap(), "{text}");
    assert!(text.contains("\"received\": 5"), "{text}");
}

#[tokio::test]
async fn a_request_whose_end_is_not_known_ends_the_connection() {
    let scene = Scene::new().await;
    let refused = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(within(scene.raw(refused)).await, "");
}
