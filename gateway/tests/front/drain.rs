//! The end of a gateway.

use std::io::ErrorKind;
use std::time::Duration;

use gateway::Limits;
use model::{KeyAlgorithm, RoutingModel, TlsPolicy};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::support::*;

fn model(origin: &TestOrigin) -> RoutingModel {
    let mut model = empty();
    let own = certificate("default", KeyAlgorithm::Ecdsa);
    serve_tls(&mut model, "default", &[&own], TlsPolicy::default());
    forward(&mut model, origin.address);
    model
}

fn patient() -> Limits {
    Limits {
        header_timeout: Duration::from_mins(10),
        client_hello_timeout: Duration::from_mins(10),
        idle_timeout: Duration::from_mins(10),
        drain_grace: Duration::from_millis(100),
        ..Limits::default()
    }
}

#[tokio::test]
async fn what_has_begun_is_finished_and_what_is_idle_is_closed() {
    let origin = TestOrigin::start().await;
    let site = Site::limited(model(&origin), patient());

    let mut idle = site.plain().await;
    assert_eq!(get(&mut idle, "a.test", "/").await.unwrap().status, 200);
    origin.arrival().await;
    let mut silent = site.plain().await;
    let mut silent_tls = site.plain_tls().await;
    let config = Client::default().config();
    let mut idle_tls = site.tls("a.test", &config).await.unwrap();
    let mut busy = site.plain().await;
    ask(&mut busy, "a.test", "/held").await.unwrap();
    origin.arrival().await;
    eventually("all are accepted", || site.running.connections() == 5).await;

    site.running.drain();
    for stream in [&mut idle, &mut silent, &mut silent_tls] {
        assert!(until_closed(stream).await.is_empty());
    }
    until_closed(&mut idle_tls).await;
    eventually("only the busy one is left", || {
        site.running.connections() == 1
    })
    .await;
    assert!(
        TcpStream::connect(site.http).await.is_err(),
        "nobody is let in any more"
    );
    let early = timeout(Duration::from_millis(100), site.running.drained()).await;
    assert!(early.is_err(), "a request is still running");

    origin.permits.add_permits(1);
    let response = soon(answer(&mut busy)).await.unwrap();
    assert_eq!(response.status, 200);
    assert!(
        response.head.contains("connection: close"),
        "{}",
        response.head
    );
    soon(site.running.drained()).await;
    assert_eq!(site.running.connections(), 0);
}

#[tokio::test]
async fn http2_clients_are_told_to_go() {
    let origin = TestOrigin::start().await;
    let site = Site::limited(model(&origin), patient());
    let client = Client {
        alpn: &["h2"],
        ..Client::default()
    };
    let stream = site.tls("a.test", &client.config()).await.unwrap();
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut requests = requests.ready().await.unwrap();
    let request = hyper::Request::get("https://a.test/held").body(()).unwrap();
    let (response, _) = requests.send_request(request, true).unwrap();
    origin.arrival().await;
    site.running.drain();
    // GOAWAY: nothing new may be sent, although the request still runs.
    let told = async {
        while requests.clone().ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    soon(told).await;
    drop(requests);
    assert_eq!(site.running.connections(), 1);
    origin.permits.add_permits(1);
    let response = soon(response).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    while let Some(chunk) = soon(body.data()).await {
        let length = chunk.unwrap().len();
        body.flow_control().release_capacity(length).unwrap();
    }
    // The gateway closes once everything is answered: an acknowledgement that the client has still to write comes too
    // late then. Anything else is an error.
    if let Err(error) = soon(connection).await.unwrap() {
        let late = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
        let kind = error.get_io().map(std::io::Error::kind);
        assert!(kind.is_some_and(|kind| late.contains(&kind)), "{error}");
    }
    soon(site.running.drained()).await;
}

#[tokio::test]
async fn an_http2_client_that_does_not_go_is_cut() {
    let origin = TestOrigin::start().await;
    let limits = Limits {
        header_timeout: Duration::from_millis(300),
        ..patient()
    };
    let site = Site::limited(model(&origin), limits);
    let stream = site.plain().await;
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    let mut connection = Box::pin(connection);
    let mut requests = requests.ready().await.unwrap();
    let request = hyper::Request::get("http://a.test/").body(()).unwrap();
    let (response, _) = requests.send_request(request, true).unwrap();
    let response = async {
        tokio::select! {
            response = response => response.unwrap(),
            ended = &mut connection => panic!("{ended:?}"),
        }
    };
    assert_eq!(soon(response).await.status(), 200);
    // From here on nobody polls the client: it does not even answer a PING.
    site.running.drain();
    soon(site.running.drained()).await;
}

#[tokio::test]
async fn connections_that_the_kernel_has_accepted_are_served() {
    let origin = TestOrigin::start().await;
    let site = Site::limited(model(&origin), patient());
    let mut streams = Vec::new();
    for _ in 0..50 {
        let mut stream = site.plain().await;
        ask(&mut stream, "a.test", "/").await.unwrap();
        streams.push(stream);
    }
    site.running.drain();
    for stream in &mut streams {
        assert_eq!(soon(answer(stream)).await.unwrap().status, 200);
    }
    soon(site.running.drained()).await;
}

#[tokio::test]
async fn an_abort_ends_everything() {
    let origin = TestOrigin::start().await;
    let site = Site::limited(model(&origin), patient());
    let mut busy = site.plain().await;
    ask(&mut busy, "a.test", "/held").await.unwrap();
    origin.arrival().await;
    let running = site.running;
    tokio::task::spawn_blocking(|| running.join())
        .await
        .unwrap()
        .unwrap();
    assert!(until_closed(&mut busy).await.is_empty());
}

/// A server that goes on to the WebSocket protocol and sends back what it gets.
async fn echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let agree = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                    Upgrade: websocket\r\n\r\n";
                stream.write_all(agree).await.unwrap();
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, words: &[u8]) {
    stream.write_all(words).await.unwrap();
    stream.flush().await.unwrap();
    let mut back = vec![0; words.len()];
    soon(stream.read_exact(&mut back)).await.unwrap();
    assert_eq!(back, words);
}

async fn begin<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let ask =
        b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(ask).await.unwrap();
    stream.flush().await.unwrap();
    let response = soon(answer(stream)).await.unwrap();
    assert_eq!(response.status, 101);
    say(stream, b"hello").await;
}

#[tokio::test]
async fn a_websocket_lasts_until_the_end_of_the_drain() {
    let mut model = empty();
    let own = certificate("default", KeyAlgorithm::Ecdsa);
    serve_tls(&mut model, "default", &[&own], TlsPolicy::default());
    forward(&mut model, echo().await);
    let site = Site::limited(model, patient());
    let mut plain = site.plain().await;
    begin(&mut plain).await;
    let config = Client::default().config();
    let mut tls = site.tls("a.test", &config).await.unwrap();
    begin(&mut tls).await;
    // Several records at once, more than the sockets take.
    let large = vec![b'x'; 4 * 1024 * 1024];
    let (mut read, mut write) = tokio::io::split(&mut tls);
    let mut back = vec![0; large.len()];
    let (written, got) = soon(async {
        tokio::join!(
            async {
                write.write_all(&large).await?;
                write.flush().await
            },
            read.read_exact(&mut back)
        )
    })
    .await;
    written.unwrap();
    got.unwrap();
    assert!(back == large);
    // While memory is short only idle connections go.
    site.running.press(gateway::Pressure::Shed);
    say(&mut plain, b"still here").await;
    site.running.drain();
    say(&mut plain, b"goodbye").await;
    say(&mut tls, b"goodbye").await;
    assert_eq!(site.running.connections(), 2);
    let running = site.running;
    tokio::task::spawn_blocking(|| running.join())
        .await
        .unwrap()
        .unwrap();
    assert!(until_closed(&mut plain).await.is_empty());
    assert!(until_closed(&mut tls).await.is_empty());
}
