//! Copies of requests for another server. Whatever happens to them, the request does not notice.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use http_body_util::Full;
use metrics::counter;
use model::EndpointSet;
use table::{CompiledFilter, CompiledMirror};
use tokio::sync::Semaphore;

use crate::context::RequestContext;
use crate::engine::Worker;
use crate::external::{Question, named_by_connection};
use crate::filters::{client_certificate, variables};
use crate::phases::headers;
use crate::phases::original::Original;
use crate::telemetry;
use crate::upstream::is_permitted;

/// Copies that a worker sends at the same time.
const MOST: usize = 64;
/// The largest body of a copy.
const MOST_BODY: usize = 256 * 1024;
/// How long a copy may take, from the connection to the header section of the answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What belongs to the connection, or is the engine's to say.
static NOT_COPIED: [HeaderName; 10] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    CONTENT_LENGTH,
    EXPECT,
];

/// Places for the copies of one worker.
#[derive(Debug)]
pub(crate) struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST)))
    }
}

/// A copy of a request that is being served.
#[derive(Debug)]
pub(crate) struct Duplicate {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    /// `None` where the copy has no body, or one that is too large.
    body: Option<BytesMut>,
    too_large: bool,
    complete: bool,
}

/// Makes a copy of a request that is about to be sent to its backend, where its route wants one.
pub(crate) fn begin(context: &mut RequestContext, worker: &Worker, request: Original<'_>) {
    let route = context.route.clone();
    let options = route.as_ref().and_then(|route| route.options.as_ref());
    let Some(mirror) = options.and_then(|options| options.mirror.as_deref()) else {
        return;
    };
    if request.headers.has(&UPGRADE) {
        return;
    }
    let id = || headers::request_id(request.headers, || worker.random.wide());
    context.request_id.get_or_insert_with(id);
    match duplicate(mirror, context, worker, request) {
        Some(copy) => context.copy = Some(Box::new(copy)),
        None => count("unsendable"),
    }
}

fn duplicate(
    mirror: &CompiledMirror,
    context: &RequestContext,
    worker: &Worker,
    request: Original<'_>,
) -> Option<Duplicate> {
    let target = variables::render(&mirror.target, context, request);
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(if mirror.https {
        Scheme::HTTPS
    } else {
        Scheme::HTTP
    });
    uri.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
    let own = Authority::try_from(&*mirror.authority).ok()?;
    uri.authority = Some(match endpoint(mirror, context, worker) {
        Ok(Some(address)) => Authority::try_from(address.to_string()).ok()?,
        Ok(None) => own,
        Err(()) => return None,
    });
    let host = match &mirror.host {
        Some(host) => HeaderValue::try_from(variables::render(host, context, request)).ok()?,
        None => HeaderValue::from_str(&mirror.authority).ok()?,
    };
    Some(Duplicate {
        method: request.method.clone(),
        uri: Uri::from_parts(uri).ok()?,
        headers: fields(context, request, host),
        body: (!mirror.without_body).then(BytesMut::new),
        too_large: false,
        complete: mirror.without_body || has_no_body(request),
    })
}

/// An address of the Service that gets copies; nothing where its name is looked up.
fn endpoint(
    mirror: &CompiledMirror,
    context: &RequestContext,
    worker: &Worker,
) -> Result<Option<SocketAddr>, ()> {
    let Some(slot) = mirror.backend else {
        let authority = Authority::try_from(&*mirror.authority).map_err(|_| ())?;
        let literal = authority.host().trim_matches(['[', ']']);
        return match literal.parse() {
            Ok(address) if !is_permitted(address) => Err(()),
            Ok(_) | Err(_) => Ok(None),
        };
    };
    let backend = context.table.backend(slot).ok_or(())?;
    match &*backend.endpoints {
        EndpointSet::Addresses(endpoints) => {
            let count = u64::try_from(endpoints.len()).map_err(|_| ())?;
            let place = worker.random.next_u64().checked_rem(count).ok_or(())?;
            let place = usize::try_from(place).map_err(|_| ())?;
            let endpoint = endpoints.get(place).ok_or(())?;
            Ok(Some(endpoint.address))
        }
        EndpointSet::Dns { .. } => Ok(None),
        EndpointSet::Invalid(_) => Err(()),
    }
}

fn has_no_body(request: Original<'_>) -> bool {
    request.version != Version::HTTP_2
        && !request.headers.has(&TRANSFER_ENCODING)
        && request
            .headers
            .get(&CONTENT_LENGTH)
            .is_none_or(|length| length == b"0")
}

/// What the client has sent, without what it may not say.
fn fields(context: &RequestContext, request: Original<'_>, host: HeaderValue) -> HeaderMap {
    let mut fields = request.headers.map().clone();
    for name in named_by_connection(request.headers.map()) {
        fields.remove(&name);
    }
    for name in &NOT_COPIED {
        fields.remove(name);
    }
    headers::drop_untrusted(&mut fields, context.client.trusted);
    headers::join_cookies(request.version, request.headers, &mut fields);
    headers::identify(context, request, &mut fields);
    for filter in context.route.iter().flat_map(|route| &route.filters) {
        if let CompiledFilter::Access(access) = filter
            && access.basic.is_some()
        {
            // A password is for the gateway.
            fields.remove(AUTHORIZATION);
        }
        if let CompiledFilter::ClientCertificate(wanted) = filter {
            client_certificate::tell(wanted, context, &mut fields);
        }
    }
    fields.insert(HOST, host);
    fields
}

/// Another endpoint is tried: the body begins anew.
pub(crate) fn again(context: &mut RequestContext) {
    if let Some(body) = context.copy.as_mut().and_then(|copy| copy.body.as_mut()) {
        body.clear();
    }
}

/// A part of the body.
pub(crate) fn received(context: &mut RequestContext, part: Option<&Bytes>, last: bool) {
    let Some(copy) = &mut context.copy else {
        return;
    };
    copy.complete |= last;
    let (Some(body), Some(part)) = (&mut copy.body, part) else {
        return;
    };
    if body.len() + part.len() > MOST_BODY {
        copy.body = None;
        copy.too_large = true;
    } else {
        body.extend_from_slice(part);
    }
}

/// The request is over: sends its copy, unless too many are on their way.
pub(crate) fn send(copy: Duplicate, worker: &Worker) {
    if copy.too_large {
        count("too-large");
        return;
    }
    if !copy.complete {
        count("incomplete");
        return;
    }
    let Ok(place) = Arc::clone(&worker.mirrors.0).try_acquire_owned() else {
        count("busy");
        return;
    };
    let mut question = Question::new(Full::new(copy.body.unwrap_or_default().freeze()));
    *question.method_mut() = copy.method;
    *question.uri_mut() = copy.uri;
    *question.headers_mut() = copy.headers;
    let client = Arc::clone(&worker.external);
    tokio::spawn(async move {
        let result = match client.ask(question, PATIENCE).await {
            Ok(_) => "sent",
            Err(unanswered) => {
                tracing::debug!(cause = %unanswered.cause, "A copy of a request got lost");
                "failed"
            }
        };
        count(result);
        drop(place);
    });
}

fn count(result: &'static str) {
    counter!(telemetry::MIRRORED, "result" => result).increment(1);
}
