//! Whose turn it is on a connection: both at once, one before the other, one engine after the other.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Site, echo, raw_backend, read_head, soon, to};

/// Reads up to and including `end`.
pub(crate) async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    let read = async {
        while !text.ends_with(end.as_bytes()) {
            text.push(stream.read_u8().await.unwrap());
        }
    };
    soon(read).await;
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn bodies_move_in_both_directions_at_once() {
    // Sends every chunk back as it comes.
    let web = raw_backend(|mut stream| async move {
        read_head(&mut stream).await;
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut bytes = vec![0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut bytes).await {
            if stream.write_all(&bytes[..read]).await.is_err() {
                return;
            }
        }
    })
    .await;
    let site = Site::start(to(web));
    let mut stream = TcpStream::connect(site.http).await.unwrap();
    let head = "POST /echo HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    for piece in ["one", "two", "six"] {
        let chunk = format!("3\r\n{piece}\r\n");
        stream.write_all(chunk.as_bytes()).await.unwrap();
        assert_eq!(read_until(&mut stream, &chunk).await, chunk);
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    assert_eq!(read_until(&mut stream, "0\r\n\r\n").await, "0\r\n\r\n");
    let line = site.log.of("/echo").await;
    assert_eq!(
        (&line["status"], &line["bytes_sent"]),
        (&200.into(), &9.into())
    );
}

#[tokio::test]
async fn hints_arrive_before_their_response() {
    let web = raw_backend(|mut stream| async move {
        while read_head(&mut stream).await.is_some() {
            let hint = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
            stream.write_all(hint.as_bytes()).await.unwrap();
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let site = Site::start(to(web));
    let mut stream = TcpStream::connect(site.http).await.unwrap();
    for _ in 0..2 {
        let request = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let hint = read_until(&mut stream, "\r\n\r\n").await.to_lowercase();
        assert!(hint.starts_with("http/1.1 103 "), "{hint}");
        assert!(hint.contains("link: </a.css>; rel=preload\r\n"), "{hint}");
        let answer = read_until(&mut stream, "\r\n\r\nok").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

#[tokio::test]
async fn every_kind_of_request_may_follow_every_other() {
    let site = Site::start(to(echo("web").await));
    let mut stream = TcpStream::connect(site.http).await.unwrap();
    // An absolute target and a header section of 20 KB are not what the direct engine serves.
    let long = format!("x-long: {}\r\n", "a".repeat(20_000));
    for (number, (method, target, fields, body)) in [
        ("GET", "/0", String::new(), ""),
        ("POST", "/1", "Content-Length: 3\r\n".to_owned(), "abc"),
        ("GET", "/2", long, ""),
        ("POST", "/3", "Content-Length: 3\r\n".to_owned(), "abc"),
        ("GET", "http://a.test/4", String::new(), ""),
        (
            "POST",
            "/5",
            "Transfer-Encoding: chunked\r\n".to_owned(),
            "3\r\nabc\r\n0\r\n\r\n",
        ),
        ("GET", "/6", String::new(), ""),
    ]
    .into_iter()
    .enumerate()
    {
        let request = format!("{method} {target} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n{body}");
        // The body, and the end of the header section, in a segment of their own.
        let (one, other) = request.split_at(request.len() - 3);
        stream.write_all(one.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
        stream.write_all(other.as_bytes()).await.unwrap();
        let head = read_until(&mut stream, "\r\n\r\n").await.to_lowercase();
        assert!(head.starts_with("http/1.1 200 "), "{number}: {head}");
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .unwrap();
        let mut answer = vec![0; length.parse().unwrap()];
        soon(stream.read_exact(&mut answer)).await.unwrap();
        let seen: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(seen["target"], format!("/{number}"));
        assert_eq!(
            seen["length"],
            if body.is_empty() { 0 } else { 3 },
            "{number}"
        );
    }
}
