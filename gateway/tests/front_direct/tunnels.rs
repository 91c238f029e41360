//! Connections with TLS that go on to the WebSocket protocol.

use model::{KeyAlgorithm, TlsPolicy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::*;

#[tokio::test]
async fn who_has_said_all_over_tls_still_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut model = empty();
    let own = certificate("default", KeyAlgorithm::Ecdsa);
    serve_tls(&mut model, "default", &[&own], TlsPolicy::default());
    forward(&mut model, listener.local_addr().unwrap());
    let site = Site::start(model);
    let config = Client::default().config();
    let mut client = site.tls("a.test", &config).await.unwrap();
    let ask =
        b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.write_all(ask).await.unwrap();
    let (mut endpoint, _) = soon(listener.accept()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(endpoint.read_u8()).await.unwrap());
    }
    let agree =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    endpoint.write_all(agree).await.unwrap();
    assert_eq!(soon(answer(&mut client)).await.unwrap().status, 101);

    client.write_all(b"that was all").await.unwrap();
    client.shutdown().await.unwrap();
    let mut all = Vec::new();
    soon(endpoint.read_to_end(&mut all)).await.unwrap();
    assert_eq!(all, b"that was all");
    let rest = vec![b'x'; 1024 * 1024];
    let (written, read) = soon(async {
        tokio::join!(
            async {
                endpoint.write_all(&rest).await?;
                endpoint.shutdown().await
            },
            async {
                let mut all = Vec::new();
                // Without the word that this was all, it would be an error.
                client.read_to_end(&mut all).await.map(|_| all)
            }
        )
    })
    .await;
    written.unwrap();
    assert!(read.unwrap() == rest);
}
