//! HTTP/2: with prior knowledge, or by ALPN over TLS.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use super::site::{Asked, Body, Peer};
use super::{Closing, Fault, Order, Site, grpc};

pub(super) async fn serve<Io>(
    io: Io,
    site: Site,
    peer: Peer,
    mut closing: Closing,
) -> Result<(), h2::Error>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = h2::server::Builder::new()
        .max_concurrent_streams(1000)
        .initial_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .handshake(io)
        .await?;
    let mut told = false;
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            () = closing.begun(), if !told => {
                told = true;
                connection.graceful_shutdown();
                continue;
            }
        };
        let Some(accepted) = accepted else {
            return Ok(());
        };
        let (request, respond) = accepted?;
        let (site, peer) = (site.clone(), peer.clone());
        // A stream that is reset concerns nobody else.
        tokio::spawn(async move {
            if grpc::is_call(request.headers()) {
                grpc::answer(request, respond, &site).await
            } else {
                answer(request, respond, &site, &peer).await
            }
        });
    }
}

async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    site: &Site,
    peer: &Peer,
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
    let mut order = Order::parse(target, site.name());
    if let Some(status) = site.probe(parts.uri.path()) {
        order.status = status;
    }
    if !order.delay.is_zero() {
        tokio::time::sleep(order.delay).await;
    }
    match order.fault {
        Some(Fault::Close) => return refuse(&mut respond, Reason::INTERNAL_ERROR),
        Some(Fault::Reset) => return refuse(&mut respond, Reason::REFUSED_STREAM),
        Some(Fault::Garbage) => return refuse(&mut respond, Reason::PROTOCOL_ERROR),
        Some(Fault::Half) | None => {}
    }
    let headers = fields(&parts.headers);
    let host = parts.uri.authority().map(http::uri::Authority::as_str);
    let asked = Asked {
        method: parts.method.as_str(),
        target,
        host: host.or_else(|| headers.get("host")?.first().map(String::as_str)),
        protocol: "HTTP/2.0",
        received,
        peer,
        headers: headers.clone(),
    };
    let Body { kind, mut data } = asked.body(site, &order);
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(order.status).unwrap_or(StatusCode::OK);
    let fields = response.headers_mut();
    name(fields, site);
    fields.insert("content-type", HeaderValue::from_static(kind));
    if order.parts.is_none() {
        fields.insert("content-length", data.len().into());
    }
    let bodiless = order.bodiless(parts.method.as_str());
    let mut stream = respond.send_response(response, bodiless)?;
    if bodiless {
        return Ok(());
    }
    if order.fault == Some(Fault::Half) {
        let half = data.split_to(data.len() / 2);
        send(&mut stream, half, false).await?;
        // A reset drops what has not left yet.
        tokio::time::sleep(Duration::from_millis(100)).await;
        stream.send_reset(Reason::INTERNAL_ERROR);
        return Ok(());
    }
    let count = order.parts.unwrap_or(1);
    for (index, size) in order.parts_of(data.len()).enumerate() {
        if index > 0 && !order.every.is_zero() {
            tokio::time::sleep(order.every).await;
        }
        let part = data.split_to(size);
        send(&mut stream, part, index + 1 == count).await?;
    }
    Ok(())
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "it ends an answer, as the other ways do"
)]
fn refuse(respond: &mut SendResponse<Bytes>, reason: Reason) -> Result<(), h2::Error> {
    respond.send_reset(reason);
    Ok(())
}

/// Says who answers.
pub(super) fn name(headers: &mut HeaderMap, site: &Site) {
    if let Ok(name) = HeaderValue::from_str(site.name()) {
        headers.insert("x-backend", name);
    }
}

/// The fields of a header, as the answer shows them.
pub(super) fn fields(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut fields = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        fields.entry(name.to_string()).or_default().push(value);
    }
    fields
}

/// Sends as the client makes room, so that a slow one does not fill our memory.
pub(super) async fn send(
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
