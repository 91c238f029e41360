//! Answers to requests that have not come in full. Pingora waits for the rest first.

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
