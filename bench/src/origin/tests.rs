//! Over real sockets, as clients see it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _};
use http::{Request, Response};
use prost::Message as _;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;

use super::grpc::{self, Ask, Reply};
use super::*;
use crate::certs::Authority;

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, work)
        .await
        .unwrap_or_else(|_| panic!("{what} takes too long"))
}

/// A client of HTTP/2 on a stream that is open.
async fn http2_client<Io>(io: Io) -> h2::client::SendRequest<Bytes>
where
    Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = h2::client::handshake(io).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

async fn body(response: Response<h2::RecvStream>) -> Result<Vec<u8>, h2::Error> {
    let mut whole = Vec::new();
    let mut stream = response.into_body();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        whole.extend_from_slice(&data);
    }
    Ok(whole)
}

/// Everything that comes in answer to this text; an error when the connection was reset.
async fn talk(address: SocketAddr, text: &str) -> io::Result<String> {
    within("the answer", async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(text.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map(|_| answer)
    })
    .await
}

fn request(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n")
}

fn last_request(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn http2_describes_the_request_as_http1_does() {
    let place = Place {
        namespace: Some("shop".to_owned()),
        service: Some("web".to_owned()),
        node: None,
    };
    let address = start(Site::new("web-1", None).at(place)).await.unwrap();
    let mut client = http2_client(TcpStream::connect(address).await.unwrap()).await;
    let request = Request::put("http://a.test/x/y?q=1")
        .header("x-one", "1")
        .body(())
        .unwrap();
    let (response, mut upload) = client.send_request(request, false).unwrap();
    upload
        .send_data(Bytes::from_static(b"12345"), true)
        .unwrap();
    let response = within("the answer", response).await.unwrap();
    assert_eq!(response.headers()["x-backend"], "web-1");
    assert_eq!(response.headers()["content-type"], "application/json");
    let told: Value = serde_json::from_slice(&body(response).await.unwrap()).unwrap();
    for (field, value) in [
        ("pod", Value::from("web-1")),
        ("namespace", "shop".into()),
        ("service", "web".into()),
        ("node", Value::Null),
        ("method", "PUT".into()),
        ("path", "/x/y".into()),
        ("query", "q=1".into()),
        ("host", "a.test".into()),
        ("protocol", "HTTP/2.0".into()),
        ("received", 5.into()),
        ("tls", Value::Null),
    ] {
        assert_eq!(told[field], value, "{field}");
    }
    assert_eq!(told["headers"]["x-one"], serde_json::json!(["1"]));
}

#[tokio::test]
async fn tls_offers_both_versions_and_tells_what_was_agreed() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("test authority").unwrap();
    let leaf = authority.issue(&["a.test".to_owned()], None).unwrap();
    let (certificate, key) = (folder.path().join("crt"), folder.path().join("key"));
    std::fs::write(&certificate, &leaf.certificate_pem).unwrap();
    std::fs::write(&key, &leaf.key_pem).unwrap();
    let tls = from_files(&certificate, &key).unwrap();
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(
        listener,
        Site::new("blue", None),
        Some(tls),
        closing().1,
    ));

    let connect = async |protocol: &str| {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(crate::certs::roots(authority.pem()).unwrap())
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let name = ServerName::try_from("a.test").unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        within("the handshake", connector.connect(name, stream))
            .await
            .unwrap()
    };
    let agreed = serde_json::json!({"version": "TLSv1.3", "sni": "a.test"});

    let mut stream = connect("http/1.1").await;
    stream
        .write_all(last_request("/").as_bytes())
        .await
        .unwrap();
    let mut text = String::new();
    within("the answer", stream.read_to_string(&mut text))
        .await
        .unwrap();
    let (head, json) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let told: Value = serde_json::from_str(json).unwrap();
    assert_eq!(
        (&told["protocol"], &told["tls"]),
        (&"HTTP/1.1".into(), &agreed)
    );

    let mut client = http2_client(connect("h2").await).await;
    let request = Request::get("https://a.test/").body(()).unwrap();
    let response = client.send_request(request, true).unwrap().0;
    let response = within("the answer", response).await.unwrap();
    let told: Value = serde_json::from_slice(&body(response).await.unwrap()).unwrap();
    assert_eq!(
        (&told["protocol"], &told["tls"]),
        (&"HTTP/2.0".into(), &agreed)
    );
}

#[tokio::test]
async fn a_certificate_of_its_own_can_be_served() {
    let names = ["localhost".to_owned(), "web-1".to_owned()];
    assert!(untrusted(&names).is_ok());
    let missing = from_files("/nonexistent/crt".as_ref(), "/nonexistent/key".as_ref());
    assert!(
        missing
            .unwrap_err()
            .to_string()
            .contains("/nonexistent/crt")
    );
}

/// The answers of a call and its status with the message; the metadata is a header like any other.
async fn call(
    client: &mut h2::client::SendRequest<Bytes>,
    method: &str,
    asks: Vec<Bytes>,
) -> (Vec<Reply>, String, String) {
    let request = Request::post(format!("http://a.test{method}"))
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers")
        .header("x-one", "1")
        .body(())
        .unwrap();
    let (response, mut sending) = client.send_request(request, false).unwrap();
    for ask in asks {
        sending.send_data(ask, false).unwrap();
    }
    sending.send_data(Bytes::new(), true).unwrap();
    let response = within("the answer", response).await.unwrap();
    assert_eq!(
        response.status(),
        200,
        "failures of calls are in grpc-status"
    );
    assert_eq!(response.headers()["content-type"], "application/grpc");
    let (head, mut stream) = response.into_parts();
    let mut data = BytesMut::new();
    while let Some(piece) = stream.data().await {
        data.extend_from_slice(&piece.unwrap());
    }
    let trailers = stream.trailers().await.unwrap().unwrap_or(head.headers);
    let field = |name: &str| {
        let value = trailers.get(name).map(|value| value.to_str().unwrap());
        value.unwrap_or_default().to_owned()
    };
    let mut replies = Vec::new();
    while !data.is_empty() {
        let frame = data.split_to(5);
        let length = u32::from_be_bytes(frame[1..].try_into().unwrap()) as usize;
        replies.push(Reply::decode(data.split_to(length)).unwrap());
    }
    (replies, field("grpc-status"), field("grpc-message"))
}

#[tokio::test]
async fn calls_end_with_their_status_in_the_trailers() {
    let address = start(Site::new("web-1", None)).await.unwrap();
    let mut client = http2_client(TcpStream::connect(address).await.unwrap()).await;
    let ask = |text: &str| Ask {
        text: text.to_owned(),
        ..Ask::default()
    };

    let one = vec![grpc::frame(&ask("hello"))];
    let (replies, status, _) = call(&mut client, "/lockgate.origin.Origin/Echo", one).await;
    assert_eq!((replies.len(), status.as_str()), (1, "0"));
    assert_eq!(
        (replies[0].text.as_str(), replies[0].pod.as_str()),
        ("hello", "web-1")
    );
    assert_eq!(replies[0].metadata["x-one"], "1");

    let many = Ask {
        count: 3,
        every_ms: 1,
        status: 8,
        status_message: "50% über".to_owned(),
        ..ask("x")
    };
    let many = vec![grpc::frame(&many)];
    let (replies, status, message) =
        call(&mut client, "/lockgate.origin.Origin/Repeat", many).await;
    let indices: Vec<u32> = replies.iter().map(|reply| reply.index).collect();
    assert_eq!((indices, status.as_str()), (vec![0, 1, 2], "8"));
    assert_eq!(message, "50%25 %C3%BCber");

    // Two messages, cut where no message ends.
    let both = [grpc::frame(&ask("one")), grpc::frame(&ask("two"))].concat();
    let (start, end) = both.split_at(9);
    let pieces = vec![Bytes::copy_from_slice(start), Bytes::copy_from_slice(end)];
    let (replies, status, _) = call(&mut client, "/lockgate.origin.Origin/Chat", pieces).await;
    let texts: Vec<&str> = replies.iter().map(|reply| reply.text.as_str()).collect();
    assert_eq!((texts, status.as_str()), (vec!["one", "two"], "0"));
}

#[tokio::test]
async fn calls_that_are_wrong_are_told_so() {
    let address = start(Site::new("web-1", None)).await.unwrap();
    let mut client = http2_client(TcpStream::connect(address).await.unwrap()).await;
    for (method, asks, status, why) in [
        ("Other", vec![], "12", "there is no such method"),
        ("Echo", vec![], "3", "the message is missing"),
        (
            "Echo",
            vec![Bytes::from_static(&[0, 0, 0])],
            "3",
            "the message is incomplete",
        ),
        (
            "Echo",
            vec![Bytes::from_static(&[1, 0, 0, 0, 0])],
            "12",
            "it is compressed",
        ),
        (
            "Echo",
            vec![Bytes::from_static(&[0, 255, 0, 0, 0])],
            "8",
            "it is too large",
        ),
    ] {
        let method = format!("/lockgate.origin.Origin/{method}");
        let (replies, told, _) = call(&mut client, &method, asks).await;
        assert_eq!((replies.len(), told.as_str()), (0, status), "{why}");
    }
}

#[tokio::test]
async fn a_websocket_sends_back_what_it_gets() {
    let address = start(Site::new("blue", Some(1024))).await.unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut socket, response) = tokio_tungstenite::client_async("ws://a.test/ws", stream)
        .await
        .unwrap();
    assert_eq!(response.headers()["x-backend"], "blue");
    for message in [Message::text("hello"), Message::binary(vec![7; 70_000])] {
        socket.send(message.clone()).await.unwrap();
        let echo = within("the echo", socket.next()).await.unwrap().unwrap();
        assert_eq!(echo, message);
    }
    socket.close(None).await.unwrap();
    let last = within("the end", socket.next()).await.unwrap().unwrap();
    assert!(last.is_close(), "{last:?}");
    assert!(within("the end", socket.next()).await.is_none());
}

#[tokio::test]
async fn it_fails_as_it_is_told() {
    let address = start(Site::new("blue", None)).await.unwrap();
    let get = async |query: &str| talk(address, &request(&format!("/?{query}"))).await;
    assert_eq!(get("fail=close").await.unwrap(), "");
    let reset = get("fail=reset").await.unwrap_err();
    assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
    let half = get("fail=half&size=1000").await.unwrap();
    assert!(half.contains("content-length: 1000\r\n"), "{half}");
    assert_eq!(
        half.matches('x').count(),
        500 + half.matches("x-backend").count() + half.matches("text/").count()
    );
    let parts = get("fail=half&size=10&parts=4").await.unwrap();
    assert!(
        parts.ends_with("\r\n\r\n2\r\nxx\r\n3\r\nxxx\r\n"),
        "no last chunk: {parts}"
    );
    assert!(!get("fail=garbage").await.unwrap().starts_with("HTTP/"));
    let other = talk(address, &last_request("/?fail=close&only=green"))
        .await
        .unwrap();
    assert!(
        other.starts_with("HTTP/1.1 200 OK\r\n"),
        "an order for another server: {other}"
    );

    let mut client = http2_client(TcpStream::connect(address).await.unwrap()).await;
    for (fault, reason) in [
        ("close", h2::Reason::INTERNAL_ERROR),
        ("reset", h2::Reason::REFUSED_STREAM),
        ("garbage", h2::Reason::PROTOCOL_ERROR),
    ] {
        let request = Request::get(format!("http://a.test/?fail={fault}"))
            .body(())
            .unwrap();
        let response = client.send_request(request, true).unwrap().0;
        let error = within("the end of the stream", response).await.unwrap_err();
        assert_eq!(error.reason(), Some(reason), "{fault}");
    }
    let request = Request::get("http://a.test/?fail=half&size=1000")
        .body(())
        .unwrap();
    let response = client.send_request(request, true).unwrap().0;
    let response = within("the answer", response).await.unwrap();
    assert_eq!(response.headers()["content-length"], "1000");
    let error = within("the end of the stream", body(response))
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));
}

#[tokio::test]
async fn a_probe_is_answered_like_a_request() {
    let site = Site::new("blue", Some(10)).ready_after(Duration::from_hours(1));
    let address = start(site).await.unwrap();
    let text = talk(address, &last_request("/readyz")).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
    let text = talk(address, &last_request("/healthz")).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
}

/// A server and what ends it.
async fn stoppable() -> (SocketAddr, Close, JoinHandle<io::Result<()>>) {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (close, closing) = closing();
    let server = tokio::spawn(serve(listener, Site::new("blue", None), None, closing));
    (address, close, server)
}

#[tokio::test]
async fn at_the_end_what_is_under_way_is_answered_and_the_rest_closed() {
    let (address, close, server) = stoppable().await;
    // One connection is idle, one waits for its answer, one speaks HTTP/2, one is a WebSocket.
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(request("/?size=1").as_bytes())
        .await
        .unwrap();
    let mut first = vec![0; 16];
    within("the first answer", idle.read_exact(&mut first))
        .await
        .unwrap();
    let mut busy = TcpStream::connect(address).await.unwrap();
    busy.write_all(request("/?size=2000000&parts=40&every=20").as_bytes())
        .await
        .unwrap();
    let mut begun = vec![0; 16];
    within("its beginning", busy.read_exact(&mut begun))
        .await
        .unwrap();
    let mut client = http2_client(TcpStream::connect(address).await.unwrap()).await;
    let slow = Request::get("http://a.test/?size=2000&parts=40&every=20")
        .body(())
        .unwrap();
    let slow = client.send_request(slow, true).unwrap().0;
    let slow = within("its beginning", slow).await.unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async("ws://a.test/ws", stream)
        .await
        .unwrap();

    close.begin();
    let mut rest = String::new();
    within("the end", idle.read_to_string(&mut rest))
        .await
        .unwrap();
    let mut rest = String::new();
    within("the answer", busy.read_to_string(&mut rest))
        .await
        .unwrap();
    assert!(rest.ends_with("\r\n0\r\n\r\n"), "the answer is complete");
    assert_eq!(within("the answer", body(slow)).await.unwrap().len(), 2000);
    let last = within("the end", socket.next()).await.unwrap().unwrap();
    assert!(last.is_close(), "{last:?}");
    drop(socket);
    drop(client);
    within("the end of the server", server)
        .await
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens");
}
