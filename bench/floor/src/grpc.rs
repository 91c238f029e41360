//! Calls of gRPC: HTTP/2 on both sides.

use std::io;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, Response};

use crate::links::{Call, Links};
use crate::{Backend, Client};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Passes a call on: first the request, then the response. That is enough for calls of one message.
pub(crate) fn call(
    mut parts: Parts,
    body: RecvStream,
    mut respond: SendResponse<Bytes>,
    client: &Client,
    backend: &Backend,
) -> impl Future<Output = ()> {
    let authority = parts.uri.authority();
    let host = authority.and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    let fields = &mut parts.headers;
    fields.insert(FORWARDED_FOR, client.address.clone());
    fields.insert(FORWARDED_PROTO, client.scheme.clone());
    if let Some(host) = host {
        fields.insert(FORWARDED_HOST, host);
    }
    let mut request = Some(Request::from_parts(parts, ()));
    async move {
        if exchange(&mut request, body, &mut respond, &backend.links)
            .await
            .is_err()
        {
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}

async fn exchange(
    request: &mut Option<Request<()>>,
    body: RecvStream,
    respond: &mut SendResponse<Bytes>,
    links: &Links,
) -> io::Result<()> {
    let ended = body.is_end_stream();
    let Call {
        response,
        body: sender,
        lease: _lease,
    } = links.send(request, ended).await?;
    if !ended {
        relay(body, sender).await.map_err(io::Error::other)?;
    }
    let response = response.await.map_err(io::Error::other)?;
    answer(response, respond).await.map_err(io::Error::other)
}

async fn answer(
    response: Response<RecvStream>,
    respond: &mut SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let (parts, body) = response.into_parts();
    let ended = body.is_end_stream();
    let sender = respond.send_response(Response::from_parts(parts, ()), ended)?;
    if !ended {
        relay(body, sender).await?;
    }
    Ok(())
}

/// Passes on content and trailers. The `h2` crate keeps what the windows have no room for.
async fn relay(mut body: RecvStream, mut sender: SendStream<Bytes>) -> Result<(), h2::Error> {
    while let Some(content) = body.data().await {
        let content = content?;
        let window = body.flow_control();
        window.release_capacity(content.len())?;
        let last = body.is_end_stream();
        sender.send_data(content, last)?;
        if last {
            return Ok(());
        }
    }
    match body.trailers().await? {
        Some(trailers) => sender.send_trailers(trailers),
        None => sender.send_data(Bytes::new(), true),
    }
}
