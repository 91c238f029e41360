//! Asks another server whether a request may pass, as the `auth_request` of nginx does.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RANGE,
    SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, WWW_AUTHENTICATE,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use model::{EndpointSet, PathMatch, Timeouts};
use smallvec::SmallVec;
use table::{BackendSlot, CompiledExternal};

use super::{client_certificate, variables};
use crate::context::RequestContext;
use crate::engine::Worker;
use crate::error::Reason;
use crate::external::{Key, Question, Reply, named_by_connection};
use crate::phases::answer::Answer;
use crate::phases::fields::Fields;
use crate::phases::headers;
use crate::phases::original::{Headers, Original, text};
use crate::upstream::{InFlight, Turn, Wish, is_permitted};

/// Endpoints of a backend that are asked, one after the other, while no connection can be made.
const MOST_ENDPOINTS: usize = 3;

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");
const X_ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
const X_ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const X_SCHEME: HeaderName = HeaderName::from_static("x-scheme");
const X_SENT_FROM: HeaderName = HeaderName::from_static("x-sent-from");
/// How many questions have led to this one.
const X_QUESTIONS: HeaderName = HeaderName::from_static("x-lockgate-questions");
/// More than these are a server that is asked through the gateway whether it may be asked.
const MOST_QUESTIONS: u8 = 3;
const X_AUTH_REQUEST_REDIRECT: HeaderName = HeaderName::from_static("x-auth-request-redirect");

/// What belongs to the connection or the body, and what asks for a part of the page or for a newer one.
static NOT_ASKED: [HeaderName; 19] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    CONTENT_LENGTH,
    EXPECT,
    RANGE,
    IF_RANGE,
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_UNMODIFIED_SINCE,
    X_FORWARDED_PROTO,
];

/// Why there is no answer.
enum Failure {
    /// There is nobody to ask.
    Unavailable,
    /// In words for the log.
    Other(String),
}

impl From<String> for Failure {
    fn from(cause: String) -> Self {
        Self::Other(cause)
    }
}

/// May the request pass? What it returns is answered instead.
pub(crate) async fn check(
    external: &CompiledExternal,
    context: &mut RequestContext,
    worker: &Worker,
    request: Original<'_>,
) -> Option<Answer> {
    let id = || headers::request_id(request.headers, || worker.random.wide());
    context.request_id.get_or_insert_with(id);
    let reply = match reply(external, context, worker, request).await {
        Ok(reply) => reply,
        Err(Failure::Unavailable) => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return Some(Answer::with_status(status, Reason::AuthenticationFailed));
        }
        Err(Failure::Other(cause)) => {
            tracing::debug!(%cause, "The server that is asked about requests does not answer.");
            return Some(Answer::page(Reason::AuthenticationFailed));
        }
    };
    match reply.status {
        status if status.is_success() => {
            context.reply = Some(reply);
            None
        }
        StatusCode::UNAUTHORIZED => {
            let signin = external.signin.as_ref().and_then(|signin| {
                // A text that cannot stand in a header leads nowhere.
                HeaderValue::try_from(variables::render(signin, context, request)).ok()
            });
            let challenge = reply.challenge.clone();
            context.reply = Some(reply);
            if let Some(location) = signin {
                return Some(Answer::redirect(
                    StatusCode::FOUND,
                    Reason::Signin,
                    location,
                ));
            }
            let answer = Answer::page(Reason::Unauthorized);
            Some(match challenge {
                Some(challenge) => answer.with_field((WWW_AUTHENTICATE, challenge)),
                None => answer,
            })
        }
        StatusCode::FORBIDDEN => {
            context.reply = Some(reply);
            Some(Answer::page(Reason::AuthenticationDenied))
        }
        status => {
            tracing::debug!(%status, "The server that is asked about requests says neither yes nor no.");
            Some(Answer::page(Reason::AuthenticationFailed))
        }
    }
}

/// The backend gets the headers that the other server has set, and those of the client never.
pub(crate) fn to_backend(
    external: &CompiledExternal,
    context: &RequestContext,
    fields: &mut impl Fields,
) {
    for name in &external.response_headers {
        fields.remove(name);
    }
    for (name, value) in context.reply.iter().flat_map(|reply| &reply.headers) {
        fields.append(name, value.clone());
    }
}

/// The client gets the cookies that the other server has set.
pub(crate) fn to_client(
    external: &CompiledExternal,
    context: &RequestContext,
    fields: &mut impl Fields,
) {
    let Some(reply) = context
        .reply
        .as_ref()
        .filter(|reply| !reply.cookies.is_empty())
    else {
        return;
    };
    let last = context.tries.last().and_then(|attempt| attempt.status);
    let status = context
        .own_status
        .or(last)
        .map_or(0, |status| status.as_u16());
    // Those with which nginx adds headers.
    let usual = matches!(
        status,
        200 | 201 | 204 | 206 | 301 | 302 | 303 | 304 | 307 | 308
    );
    if usual || external.always_set_cookie {
        for cookie in &reply.cookies {
            fields.append(&SET_COOKIE, cookie.clone());
        }
    }
}

/// What the other server says, or has said before.
async fn reply(
    external: &CompiledExternal,
    context: &RequestContext,
    worker: &Worker,
    request: Original<'_>,
) -> Result<Arc<Reply>, Failure> {
    let replies = &worker.shared.replies;
    let key = key(external, context, worker, request);
    if let Some(known) = key.and_then(|key| replies.find(&key, Instant::now())) {
        return Ok(known);
    }
    let response = ask(external, context, worker, request).await?;
    let reply = Arc::new(read(external, &response));
    let holds = external
        .cache
        .as_ref()
        .filter(|_| says_something(reply.status))
        .and_then(|cache| cache.seconds(reply.status));
    if let (Some(key), Some(seconds)) = (key, holds)
        && !reply.transient
    {
        let holds = Duration::from_secs(u64::from(seconds));
        replies.put(key, &reply, holds, Instant::now());
    }
    Ok(reply)
}

/// Is it a yes or a no?
fn says_something(status: StatusCode) -> bool {
    status.is_success() || matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

fn key(
    external: &CompiledExternal,
    context: &RequestContext,
    worker: &Worker,
    request: Original<'_>,
) -> Option<Key> {
    let cache = external.cache.as_ref()?;
    let text = variables::render(&cache.key, context, request);
    if text.is_empty() {
        return None;
    }
    let (kind, path) = match &context.route.as_ref()?.path {
        PathMatch::Exact(path) => ("exact", path.as_str()),
        PathMatch::Prefix(path) => ("prefix", path.as_str()),
        PathMatch::Regex(text) => ("regex", text.as_str()),
    };
    Some(
        worker
            .shared
            .replies
            .key(&[&cache.identity, kind, path, &text]),
    )
}

/// Takes from an answer what matters.
fn read(external: &CompiledExternal, response: &Response<()>) -> Reply {
    let fields = response.headers();
    let mut headers = Vec::new();
    for name in &external.response_headers {
        let values = fields.get_all(name).iter();
        headers.extend(values.map(|value| (name.clone(), value.clone())));
    }
    let cookies: Vec<_> = fields.get_all(SET_COOKIE).iter().cloned().collect();
    let private = fields.get_all(CACHE_CONTROL).iter().any(|value| {
        let text = value.to_str().unwrap_or("no-store").to_ascii_lowercase();
        ["no-store", "no-cache", "private"]
            .iter()
            .any(|word| text.contains(word))
    });
    Reply {
        status: response.status(),
        headers,
        challenge: fields.get(WWW_AUTHENTICATE).cloned(),
        // A cookie is for one client.
        transient: private || !cookies.is_empty(),
        cookies,
    }
}

async fn ask(
    external: &CompiledExternal,
    context: &RequestContext,
    worker: &Worker,
    request: Original<'_>,
) -> Result<Response<()>, Failure> {
    let before = questions(request.headers);
    if before >= MOST_QUESTIONS {
        return Err("the question has led to itself".to_owned().into());
    }
    let authority = variables::render(&external.authority, context, request);
    let target = variables::render(&external.target, context, request);
    let target = PathAndQuery::try_from(target).map_err(|error| error.to_string())?;
    let host = HeaderValue::try_from(&authority).map_err(|error| error.to_string())?;
    let headers = question_headers(external, context, request, host);
    let method = external.method.clone().unwrap_or(Method::GET);
    let timeouts = context
        .route
        .as_ref()
        .map_or_else(Timeouts::default, |route| route.timeouts);
    let patience = u64::from(timeouts.connect.max(1)) + u64::from(timeouts.read.max(1));
    let patience = Duration::from_secs(patience);
    let scheme = if external.https {
        Scheme::HTTPS
    } else {
        Scheme::HTTP
    };
    let question = |authority: Authority| -> Result<Question, String> {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(scheme.clone());
        parts.authority = Some(authority);
        parts.path_and_query = Some(target.clone());
        let mut question = Request::new(Full::default());
        *question.method_mut() = method.clone();
        *question.uri_mut() = Uri::from_parts(parts).map_err(|error| error.to_string())?;
        *question.headers_mut() = headers.clone();
        Ok(question)
    };
    let Some(slot) = external.backend else {
        let authority = Authority::try_from(authority).map_err(|error| error.to_string())?;
        let literal = authority.host().trim_matches(['[', ']']);
        if let Ok(address) = literal.parse::<IpAddr>()
            && !is_permitted(address)
        {
            return Err(format!("{address} is not asked").into());
        }
        let asked = worker.external.ask(question(authority)?, patience).await;
        return asked.map_err(|unanswered| unanswered.cause.into());
    };
    let mut tried: SmallVec<[SocketAddr; 2]> = SmallVec::new();
    let mut refused = None;
    loop {
        let endpoint = match endpoint(context, worker, slot, &tried).await {
            Ok(endpoint) => endpoint,
            Err(failure) => return Err(refused.unwrap_or(failure)),
        };
        let address = endpoint.endpoint().address();
        tried.push(address);
        let authority = Authority::try_from(address.to_string()).map_err(|e| e.to_string())?;
        match worker.external.ask(question(authority)?, patience).await {
            Ok(response) => {
                endpoint.endpoint().connected();
                return Ok(response);
            }
            Err(unanswered) if unanswered.unsent => {
                endpoint.endpoint().refused();
                if tried.len() >= MOST_ENDPOINTS {
                    return Err(unanswered.cause.into());
                }
                refused = Some(unanswered.cause.into());
            }
            Err(unanswered) => return Err(unanswered.cause.into()),
        }
    }
}

/// The next endpoint of the backend that is asked.
async fn endpoint(
    context: &RequestContext,
    worker: &Worker,
    slot: BackendSlot,
    tried: &[SocketAddr],
) -> Result<InFlight, Failure> {
    let backend = context.table.backend(slot).ok_or(Failure::Unavailable)?;
    let resolved = match &*backend.endpoints {
        EndpointSet::Addresses(_) => None,
        EndpointSet::Dns { host, .. } => {
            let name = worker.shared.resolver.name(host);
            let found = worker.shared.resolver.addresses(&name).await;
            Some(found.map_err(|fault| format!("no address: {fault:?}"))?)
        }
        EndpointSet::Invalid(_) => return Err(Failure::Unavailable),
    };
    let turn = Turn {
        balance: model::Balance::default(),
        slow_start: 0,
        random: &worker.random,
        wish: Wish::None,
    };
    worker
        .picker
        .choose(
            slot,
            backend,
            resolved.as_ref(),
            &worker.shared,
            turn,
            |address| tried.contains(&address),
        )
        .map(|(endpoint, _)| endpoint)
        .filter(|endpoint| !tried.contains(&endpoint.address()))
        .map(InFlight::on)
        .ok_or(Failure::Unavailable)
}

/// What the other server is told: what the client has sent, without its body and without what it may not say, and what
/// ingress-nginx adds.
fn question_headers(
    external: &CompiledExternal,
    context: &RequestContext,
    request: Original<'_>,
    host: HeaderValue,
) -> HeaderMap {
    let mut fields = request.headers.map().clone();
    for name in named_by_connection(request.headers.map()) {
        fields.remove(&name);
    }
    for name in &NOT_ASKED {
        fields.remove(name);
    }
    headers::drop_untrusted(&mut fields, context.client.trusted);
    headers::join_cookies(request.version, request.headers, &mut fields);
    headers::identify(context, request, &mut fields);
    let path = request
        .uri
        .path_and_query()
        .map_or("/", PathAndQuery::as_str);
    let scheme = if context.client.https {
        "https"
    } else {
        "http"
    };
    let own_host = request
        .headers
        .text(&HOST)
        .or_else(|| request.uri.authority().map(Authority::as_str))
        .unwrap_or_default();
    let mut set = |name: HeaderName, text: &str| match HeaderValue::from_str(text) {
        Ok(value) => {
            fields.insert(name, value);
        }
        Err(_) => {
            fields.remove(name);
        }
    };
    set(X_ORIGINAL_URL, &format!("{scheme}://{own_host}{path}"));
    set(X_ORIGINAL_METHOD, request.method.as_str());
    set(X_SENT_FROM, "nginx-ingress-controller");
    set(X_QUESTIONS, &(questions(request.headers) + 1).to_string());
    match &external.request_redirect {
        Some(template) => {
            let text = variables::render(template, context, request);
            set(X_AUTH_REQUEST_REDIRECT, &text);
        }
        None => set(X_AUTH_REQUEST_REDIRECT, path),
    }
    if external.method.is_some() {
        set(X_ORIGINAL_URI, path);
        set(X_SCHEME, scheme);
    }
    for (name, template) in &external.headers {
        set(name.clone(), &variables::render(template, context, request));
    }
    fields.insert(HOST, host);
    if let Some(wanted) = context.route.as_deref().and_then(client_certificate::of) {
        client_certificate::tell(wanted, context, &mut fields);
    }
    fields
}

/// Whoever makes this up harms itself alone.
fn questions(headers: Headers<'_>) -> u8 {
    let Some(value) = headers.get(&X_QUESTIONS) else {
        return 0;
    };
    let number = text(value).and_then(|text| text.parse().ok());
    number.unwrap_or(MOST_QUESTIONS).min(MOST_QUESTIONS)
}
