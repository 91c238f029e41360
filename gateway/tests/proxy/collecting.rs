//! Bodies that are there before an endpoint is asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Collected};
use hyper::{Request, Response};
use model::{ErrorPages, MOST_COLLECTED, RoutingModel};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http2::connect;
use crate::support::{
    Site, add_backend, add_route_with, backend, backend_id, forward, full, model, raw_backend,
    read_head, soon,
};

/// Whether a part of the route is one that the direct engine leaves to Pingora.
const FOREIGN: [bool; 2] = [false, true];

fn limited(address: SocketAddr, foreign: bool, limit: Option<u64>) -> RoutingModel {
    let mut model = model();
    add_backend(&mut model, "web", &[address]);
    add_route_with(&mut model, "*", "/", forward("web"), |route| {
        route.options.collect = MOST_COLLECTED;
        route.body_limit = limit;
        route.options.errors = foreign.then(|| ErrorPages {
            statuses: vec![599],
            backend: backend_id("web"),
            keeps_answers: false,
        });
    });
    model
}

fn site(address: SocketAddr, foreign: bool) -> Site {
    Site::with(limited(address, foreign, None), |settings| {
        settings.limits.body_timeout = Duration::from_millis(300);
    })
}

/// A backend that answers with what it gets, and counts its requests.
async fn mirror() -> (SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&count);
    let address = backend(move |request| {
        asked.fetch_add(1, Ordering::SeqCst);
        async move {
            let body = request.into_body().collect().await;
            // A body that breaks off is the business of the test.
            Response::new(full(
                body.map_or_else(|_| Bytes::new(), Collected::to_bytes),
            ))
        }
    })
    .await;
    (address, count)
}

#[tokio::test]
async fn what_is_too_large_is_not_waited_for() {
    for foreign in FOREIGN {
        let (address, asked) = mirror().await;
        let site = Site::with(limited(address, foreign, Some(1000)), |_| {});
        let head = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1001\r\n\r\n";
        let mut client = TcpStream::connect(site.http).await.unwrap();
        client.write_all(head.as_bytes()).await.unwrap();
        let answer = soon(read_head(&mut client)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert_eq!(asked.load(Ordering::SeqCst), 0, "foreign: {foreign}");
    }
}

#[tokio::test]
async fn a_client_that_stalls_keeps_no_endpoint() {
    for foreign in FOREIGN {
        let (address, asked) = mirror().await;
        let site = site(address, foreign);
        let all = site
            .raw("POST /slow HTTP/1.1\r\nHost: a.test\r\nContent-Length: 65536\r\n\r\nabc")
            .await;
        assert!(all.starts_with("HTTP/1.1 408 "), "{all}");
        let line = site.log.of("/slow").await;
        assert_eq!(line["reason"], "client-timeout");
        assert!(line["upstream_addr"].is_null(), "{line}");

        let mut client = connect(site.http).await;
        let request = Request::post("http://a.test/slow2").header("content-length", "65536");
        let (response, mut body) = client
            .send_request(request.body(()).unwrap(), false)
            .unwrap();
        body.send_data("abc".into(), false).unwrap();
        assert_eq!(soon(response).await.unwrap().status(), 408);
        let line = site.log.of("/slow2").await;
        assert!(line["upstream_addr"].is_null(), "{line}");
        assert_eq!(asked.load(Ordering::SeqCst), 0, "foreign: {foreign}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_keeps_no_endpoint() {
    for foreign in FOREIGN {
        let (address, asked) = mirror().await;
        let site = site(address, foreign);
        let mut stream = TcpStream::connect(site.http).await.unwrap();
        stream
            .write_all(b"POST /left HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nabc")
            .await
            .unwrap();
        drop(stream);
        let line = site.log.of("/left").await;
        assert_eq!(line["reason"], "client-closed", "foreign: {foreign}");
        assert_eq!(asked.load(Ordering::SeqCst), 0, "foreign: {foreign}");
    }
}

#[tokio::test]
async fn what_is_collected_comes_as_a_whole() {
    for foreign in FOREIGN {
        let (address, _) = mirror().await;
        let site = site(address, foreign);
        for size in [1, 10_000, MOST_COLLECTED as usize] {
            let content: Vec<u8> = (0..size)
                .map(|at| b'a' + u8::try_from(at % 26).unwrap())
                .collect();
            let (first, second) = content.split_at(size / 2);

            let mut stream = TcpStream::connect(site.http).await.unwrap();
            let head = format!(
                "POST / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
            );
            for part in [head.as_bytes(), first, second] {
                stream.write_all(part).await.unwrap();
                stream.flush().await.unwrap();
                tokio::task::yield_now().await;
            }
            let mut all = Vec::new();
            soon(stream.read_to_end(&mut all)).await.unwrap();
            assert!(all.starts_with(b"HTTP/1.1 200 "), "{size} {foreign}");
            assert!(all.ends_with(&content), "{size}, foreign: {foreign}");

            let mut client = connect(site.http).await;
            let request = Request::post("http://a.test/").header("content-length", size);
            let (response, mut body) = client
                .send_request(request.body(()).unwrap(), false)
                .unwrap();
            body.send_data(first.to_vec().into(), false).unwrap();
            body.send_data(second.to_vec().into(), true).unwrap();
            let mut answer = soon(response).await.unwrap().into_body();
            let mut back = Vec::new();
            while let Some(piece) = soon(answer.data()).await {
                let piece = piece.unwrap();
                answer.flow_control().release_capacity(piece.len()).unwrap();
                back.extend_from_slice(&piece);
            }
            assert!(back == content, "{size}, foreign: {foreign}");
        }
    }
}

/// A backend that answers before it has got a body, and leaves it to the client whether to send one.
#[tokio::test]
async fn what_is_larger_or_has_no_length_is_passed_on_as_it_comes() {
    let address = raw_backend(|mut stream| async move {
        while read_head(&mut stream).await.is_some() {
            let early = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            stream.write_all(early).await.unwrap();
        }
    })
    .await;
    for foreign in FOREIGN {
        let site = site(address, foreign);
        let larger = format!("Content-Length: {}", MOST_COLLECTED + 1);
        let waiting = "Content-Length: 3\r\nExpect: 100-continue";
        for fields in [larger.as_str(), "Transfer-Encoding: chunked", waiting] {
            let all = site
                .raw(format!(
                    "POST / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n\r\n"
                ))
                .await;
            assert!(
                all.starts_with("HTTP/1.1 200 "),
                "{fields}, foreign: {foreign}: {all}"
            );
        }
    }
}
