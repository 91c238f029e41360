//! What only the direct engine does: it answers before a request has come in full, and sends a body again also when
//! the endpoint has reset the connection.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Site, raw_backend, read_head, soon, to};
use crate::turns::read_until;

#[tokio::test]
async fn an_answer_may_come_before_the_body() {
    // Reads no body, but keeps the connection until the answer has gone.
    let web = raw_backend(|mut stream| async move {
        read_head(&mut stream).await;
        let answer = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    })
    .await;
    let site = Site::start(to(web));
    let mut stream = TcpStream::connect(site.http).await.unwrap();
    let head = "POST /early HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "\r\n\r\nbig").await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    // A request can not be told from the rest of the body: there is none.
    assert!(
        answer.to_lowercase().contains("connection: close"),
        "{answer}"
    );
    let mut rest = Vec::new();
    let _ = soon(stream.read_to_end(&mut rest)).await;
    assert_eq!(rest, b"");
    assert_eq!(site.log.of("/early").await["status"], 413);
}

#[tokio::test]
async fn a_body_is_sent_again_as_a_whole() {
    // Answers the first request of its first connection, then closes it under the second one.
    let connections = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let web = raw_backend(move |mut stream| {
        let number = connections.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async move {
            let mut requests = 0;
            while let Some(head) = read_head(&mut stream).await {
                requests += 1;
                let length = head
                    .to_lowercase()
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
                    .unwrap_or(0);
                let mut body = vec![0; length];
                if number == 0 && requests == 2 {
                    return;
                }
                stream.read_exact(&mut body).await.unwrap();
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.write_all(&body).await.unwrap();
            }
        }
    })
    .await;
    let site = Site::start(to(web));
    assert_eq!(site.get("a.test", "/one").await.status, 200);
    let body: Vec<String> = (0..2000).map(|n| format!("{n},")).collect();
    let body = body.concat();
    let put = hyper::Request::put("/two").header("host", "a.test");
    let answer = site.send(put.body(body.clone().into()).unwrap()).await;
    assert_eq!((answer.status, answer.body), (200, body));
    assert_eq!(site.log.of("/two").await["tries"], 2);
}
