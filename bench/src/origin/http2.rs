//! HTTP/2 with prior knowledge.

use bytes::Bytes;
use h2::server::SendResponse;
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Asked, Order, Site};

pub(super) async fn serve<Io>(io: Io, site: Site) -> Result<(), h2::Error>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = h2::server::Builder::new()
        .max_concurrent_streams(1000)
        .initial_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .handshake(io)
        .await?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        let site = site.clone();
        // A stream that is reset concerns nobody else.
        tokio::spawn(async move { answer(request, respond, &site).await });
    }
    Ok(())
}

async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    site: &Site,
) -> Result<(), h2::Error> {
    let (parts, mut incoming) = request.into_parts();
    let mut received = 0;
    while let Some(data) = incoming.data().await {
        let length = data?.len();
        received += length as u64;
        incoming.flow_control().release_capacity(length)?;
    }
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    let order = Order::parse(target);
    if !order.delay.is_zero() {
        tokio::time::sleep(order.delay).await;
    }
    let fields = order.headers.then_some(&parts.headers);
    let asked = Asked {
        method: parts.method.as_str(),
        target,
        version: "HTTP/2.0",
        received,
        headers: fields
            .into_iter()
            .flatten()
            .map(|(name, value)| {
                let value = String::from_utf8_lossy(value.as_bytes());
                (name.to_string(), value.into_owned())
            })
            .collect(),
    };
    let mut body = asked.body(site, &order);
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(order.status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    if let Ok(name) = http::HeaderValue::from_str(site.name()) {
        headers.insert("x-backend", name);
    }
    headers.insert("content-type", http::HeaderValue::from_static("text/plain"));
    if order.parts.is_none() {
        headers.insert("content-length", body.len().into());
    }
    let bodiless = parts.method == http::Method::HEAD || matches!(order.status, 204 | 304);
    let mut stream = respond.send_response(response, bodiless)?;
    if bodiless {
        return Ok(());
    }
    let count = order.parts.unwrap_or(1);
    for (index, size) in order.parts_of(body.len()).enumerate() {
        if index > 0 && !order.every.is_zero() {
            tokio::time::sleep(order.every).await;
        }
        let part = body.split_to(size);
        send(&mut stream, part, index + 1 == count).await?;
    }
    Ok(())
}

/// Sends as the client makes room, so that a slow one does not fill our memory.
async fn send(
    stream: &mut h2::SendStream<Bytes>,
    mut data: Bytes,
    last: bool,
) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let Some(room) = std::future::poll_fn(|context| stream.poll_capacity(context)).await else {
            return Ok(()); // the stream is gone
        };
        let piece = data.split_to(room?.min(data.len()));
        let end = last && data.is_empty();
        stream.send_data(piece, end)?;
        if end {
            return Ok(());
        }
    }
    if last {
        stream.send_data(Bytes::new(), true)?;
    }
    Ok(())
}
