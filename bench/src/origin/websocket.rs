//! WebSocket: every message comes back as it was sent.

use std::collections::BTreeMap;
use std::io;

use bytes::BytesMut;
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, frame::coding::CloseCode};

use super::Closing;

/// The path that answers as a WebSocket.
pub(super) const PATH: &str = "/ws";

/// The answer that begins a WebSocket; `None` when the request does not ask for one.
pub(super) fn accept(name: &str, headers: &BTreeMap<String, Vec<String>>) -> Option<String> {
    let first = |name: &str| headers.get(name)?.first().map(String::as_str);
    if !first("upgrade")?.eq_ignore_ascii_case("websocket") {
        return None;
    }
    let key = derive_accept_key(first("sec-websocket-key")?.as_bytes());
    let protocol = first("sec-websocket-protocol")
        .and_then(|offered| offered.split(',').next())
        .map(|chosen| format!("sec-websocket-protocol: {}\r\n", chosen.trim()))
        .unwrap_or_default();
    Some(format!(
        "HTTP/1.1 101 Switching Protocols\r\nx-backend: {name}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: {key}\r\n{protocol}\r\n"
    ))
}

/// Sends that answer and echoes until one side ends it. `read` is what came after the request.
pub(super) async fn echo<Io>(
    stream: &mut Io,
    answer: &str,
    read: BytesMut,
    mut closing: Closing,
) -> io::Result<()>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(answer.as_bytes()).await?;
    let mut socket =
        WebSocketStream::from_partially_read(stream, read.to_vec(), Role::Server, None).await;
    loop {
        tokio::select! {
            message = socket.next() => match message {
                // The library answers what is to be answered by itself.
                Some(Ok(message)) if message.is_text() || message.is_binary() => {
                    socket.send(message).await.map_err(io::Error::other)?;
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(io::Error::other(error)),
                None => return Ok(()),
            },
            () = closing.begun() => {
                let frame = CloseFrame { code: CloseCode::Away, reason: "the server ends".into() };
                socket.close(Some(frame)).await.map_err(io::Error::other)?;
                // The client's answer to it ends the connection.
                while let Some(Ok(_)) = socket.next().await {}
                return Ok(());
            }
        }
    }
}
