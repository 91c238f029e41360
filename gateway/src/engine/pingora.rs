//! The engine on Pingora's HTTP proxy.
//!
//! The only place that names Pingora's proxy types. Each callback hands over to a phase; what is left in here is the
//! translation between Pingora's types and those of the phases, and the settings that keep Pingora within bounds.

mod clear;
mod fields;
mod narrow;
mod peer;
mod refusals;
mod session;
mod upgrades;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, HOST};
use http::{StatusCode, Uri, Version};
use pingora::apps::{HttpServerApp as _, HttpServerOptions};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::protocols::http::custom::server::Session as CustomSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::proxy::{FailToProxy, HttpProxy, ProxyHttp, ProxyWarnLogContext, Session, http_proxy};
use pingora::server::ShutdownWatch;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use self::fields::{RequestFields, ResponseFields};
use super::Worker;
use crate::connection::{Connection, Deadline};
use crate::context::RequestContext;
use crate::error::{self, Fault, Reason, Source};
use crate::front::conn::{self, Transport};
use crate::mirror;
use crate::phases::answer::Answer;
use crate::phases::log::Outcome;
use crate::phases::original::{Headers, Original};
use crate::phases::route::{Head, Verdict};
use crate::phases::{body, deadline, decide, headers, log, retry, route, stand_in, upstream};
use crate::settings::Limits;

/// Attempts that Pingora makes; [`retry`] asks for fewer.
const MOST_ATTEMPTS: usize = 8;
/// An error with which Pingora is told to ask another endpoint, because the response of this one is not wanted.
const UNWANTED: ErrorType = ErrorType::Custom("unwanted response");
/// How long that may take.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves connections with Pingora; one per worker.
pub(crate) struct PingoraEngine {
    proxy: Arc<HttpProxy<Proxy>>,
    worker: Arc<Worker>,
}

impl fmt::Debug for PingoraEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PingoraEngine")
    }
}

impl PingoraEngine {
    /// An engine for one worker.
    pub(crate) fn new(worker: Arc<Worker>) -> Self {
        let limits = &worker.shared.settings.limits;
        let conf = ServerConf {
            upstream_keepalive_pool_size: limits.upstream_idle_connections,
            threads: 1,
            max_retries: MOST_ATTEMPTS,
            ..ServerConf::default()
        };
        let server_options = server_options(limits);
        let inner = Proxy {
            worker: Arc::clone(&worker),
            tls: peer::KnownTls::default(),
        };
        let mut proxy = http_proxy(&Arc::new(conf), inner);
        proxy.server_options = Some(server_options);
        Self {
            proxy: Arc::new(proxy),
            worker,
        }
    }

    /// Serves a connection until it ends. `first` has been read from it already.
    pub(crate) async fn serve(
        &self,
        transport: Transport,
        first: Bytes,
        connection: Arc<Connection>,
        shutdown: &ShutdownWatch,
    ) {
        // It does not say when it waits for the rest of a request.
        transport.acknowledge();
        let stream = conn::session(transport, first, Arc::clone(&connection));
        session::serve(&self.proxy, &self.worker, stream, connection, shutdown).await;
    }

    /// Serves one request of a connection whose streams somebody else accepts. Its reader fails once `leash` has passed.
    pub(crate) async fn serve_stream(
        &self,
        stream: Box<dyn CustomSession>,
        connection: Arc<Connection>,
        leash: Arc<Deadline>,
        shutdown: &ShutdownWatch,
    ) {
        let (proxy, worker) = (&self.proxy, &self.worker);
        session::serve_stream(proxy, worker, stream, connection, leash, shutdown).await;
    }

    /// Wakes connections that wait for a request.
    pub(crate) async fn cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}

fn server_options(limits: &Limits) -> HttpServerOptions {
    let mut options = HttpServerOptions::default();
    // HTTP/2 without TLS is recognised by the front.
    options.h2c = false;
    // Otherwise Pingora answers CONNECT itself, and neither log nor metrics see it.
    options.allow_connect_method_proxying = true;
    options.keepalive_request_limit = Some(limits.max_requests_per_connection);
    options.h2_idle_timeout = Some(limits.idle_timeout);
    options
}

fn h2_options(limits: &Limits) -> H2Options {
    let mut options = default_h2_options();
    options.max_concurrent_streams(limits.h2_max_streams);
    options.initial_window_size(limits.h2_stream_window);
    options.initial_connection_window_size(limits.h2_connection_window);
    options.max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX));
    options
}

/// What Pingora calls back.
struct Proxy {
    worker: Arc<Worker>,
    tls: peer::KnownTls,
}

/// The context of a request; there is none when a request came without a connection, which is refused.
type Context = Option<Box<RequestContext>>;

fn context(context: &mut Context) -> Result<&mut RequestContext> {
    context
        .as_deref_mut()
        .ok_or_else(|| Error::explain(ErrorType::InternalError, "a request without a connection"))
}

/// A host that only an absolute target names gets into the field where all others have it: for whoever looks at it here,
/// and for the backend, which gets the target in another form.
fn name_host(session: &mut Session) -> Result<()> {
    let request = session.req_header_mut();
    if request.version >= Version::HTTP_2 || request.headers.contains_key(HOST) {
        return Ok(());
    }
    // What cannot be read is refused where hosts are compared.
    if let Ok(Some(host)) = route::absolute_authority(request.raw_path()) {
        let host = host.to_owned();
        request.insert_header(HOST, host)?;
    }
    Ok(())
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        let (connection, leash) = session::begin_request()?;
        let table = self.worker.shared.tables.pin();
        let mut context = RequestContext::new(table, connection);
        context.leash = leash;
        Some(Box::new(context))
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {
        // The default is a module for compression, which costs something per request even while it is off.
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        let context = context(ctx)?;
        set_limits(session, &context.connection.limits);
        upgrades::stay(session);
        name_host(session)?;
        let answer = match self.decide(session, context).await {
            None => self.choose(session, context).await?,
            answer => answer,
        };
        match answer {
            None => Ok(false),
            Some(answer) => {
                keep_after_small_body(session);
                write_answer(session, context, *answer).await?;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        ctx: &mut Context,
    ) -> Result<Box<HttpPeer>> {
        let context = context(ctx)?;
        // The first try has begun already: what fails there is answered without an error.
        if context.tries.last().is_none_or(|last| last.ended.is_some()) {
            upstream::begin_try(context, &self.worker)
                .await
                .map_err(|reason| failed(context, reason))?;
        }
        mirror::again(context);
        context.body_received = 0;
        deadline::arm(context, false);
        let mut upstream = upstream::upstream(context).map_err(|reason| failed(context, reason))?;
        if let Some(left) = deadline::left(context) {
            upstream.read = upstream.read.min(left);
        }
        Ok(Box::new(peer::peer(upstream, &self.tls)))
    }

    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        _fd: std::os::unix::io::RawFd,
        _digest: Option<&Digest>,
        ctx: &mut Context,
    ) -> Result<()> {
        let context = context(ctx)?;
        retry::connected(context, reused);
        deadline::arm(context, session.is_body_done());
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        let context = context(ctx)?;
        let target = headers::target(context, &request.uri);
        if !request.raw_path().starts_with(b"/") && request.version < Version::HTTP_2 {
            let target = target.as_ref().unwrap_or(&request.uri);
            // The form that is for proxies is not for an origin (RFC 9112, 3.2.1), which would go by the host in it.
            let target = target.path_and_query().cloned();
            request.set_uri(target.map_or_else(Uri::default, Uri::from));
        } else if let Some(target) = target {
            request.set_uri(target);
        }
        headers::to_backend(
            context,
            Original::of(session.req_header()),
            &mut RequestFields(request),
        );
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        let context = context(ctx)?;
        if !clear::is_clear(session.req_header(), response) {
            return Err(Error::new_up(ErrorType::InvalidHTTPHeader));
        }
        retry::answered(context, response.status, Instant::now());
        deadline::arm(context, true);
        let method = &session.req_header().method;
        let status = response.status;
        if is_at_hand(session)
            && (retry::unwanted(context, &self.worker, method, status)
                || stand_in::replaces(context, &self.worker, status))
        {
            let mut error = Error::new_up(UNWANTED);
            error.set_retry(true);
            return Err(error);
        }
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        part: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Context,
    ) -> Result<()> {
        let context = context(ctx)?;
        if session.was_upgraded() {
            // It belongs to another protocol, and to no body.
            return Ok(());
        }
        // Pingora writes an empty part as a chunk, which is the end of the body, and then the end.
        part.take_if(|part| end_of_stream && part.is_empty());
        mirror::received(context, part.as_ref(), end_of_stream);
        if end_of_stream && context.sent_at.is_none() {
            context.sent_at = Some(Instant::now());
            deadline::arm(context, true);
        }
        let Some(part) = part else {
            return Ok(());
        };
        body::received(context, part.len()).map_err(|reason| failed(context, reason))
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        let context = context(ctx)?;
        if context.connection.ending() {
            // The drain may have begun while the backend was working: the client is to know that this was the last response.
            session.set_keepalive(None);
        }
        if response.status == StatusCode::SWITCHING_PROTOCOLS {
            // From now on the endpoint's silence is what counts: a client may listen for hours.
            session.set_read_timeout(None);
            if let Some(leash) = &context.leash {
                leash.clear();
            }
            session::switch_protocols();
        }
        headers::to_client(context, &mut ResponseFields(response));
        Ok(())
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        _end_of_stream: bool,
        ctx: &mut Context,
    ) -> Result<Option<Duration>> {
        let bytes = body.as_ref().map_or(0, Bytes::len);
        if let Some(ctx) = ctx.as_deref().filter(|ctx| ctx.connection.http2) {
            ctx.connection.gave(bytes);
        }
        let pace = ctx.as_deref_mut().and_then(|ctx| ctx.pace.as_mut());
        Ok(pace.and_then(|pace| pace.delay(bytes, Instant::now())))
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        if let Some(context) = ctx.as_deref_mut() {
            let reason = reason_of(Source::Upstream, &error);
            let again = retry::not_connected(context, &self.worker, &reason)
                || is_at_hand(session)
                    && stand_in::replaces_failure(context, &self.worker, reason.status());
            if !again && deadline::is_over(context) {
                context.fail(Reason::RequestTimeout { silent: false });
            }
            error.set_retry(again);
        }
        error
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Context,
        client_reused: bool,
    ) -> Box<Error> {
        if *error.etype() == UNWANTED {
            return error;
        }
        error.retry.decide_reuse(client_reused);
        let at_hand = is_at_hand(session);
        let sent = session.is_body_done();
        let method = &session.req_header().method;
        let stale = error.retry() && at_hand && method.is_idempotent();
        let again = ctx.as_deref_mut().is_some_and(|context| {
            let missed = deadline::missed(context, sent);
            if stale && missed.is_none() {
                return retry::went_stale(context);
            }
            let reason = missed.unwrap_or_else(|| reason_of(source_of(&error), &error));
            if let Reason::RequestTimeout { .. } = reason {
                context.fail(reason);
                return false;
            }
            let is_try = reason == Reason::TryTimeout;
            let again = at_hand
                && reason.source() == Source::Upstream
                && (retry::broke(context, &self.worker, method, &reason)
                    || stand_in::replaces_failure(context, &self.worker, reason.status()));
            if is_try && !again {
                context.fail(reason);
            }
            again
        });
        error.set_retry(again);
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Context,
    ) -> FailToProxy {
        let Some(context) = ctx.as_deref_mut() else {
            return failure(StatusCode::INTERNAL_SERVER_ERROR);
        };
        let reason = reason_of(source_of(error), error);
        tracing::debug!(%error, %reason, "A request failed.");
        let reason = context.fail(reason).clone();
        // Where an error page was to be made, the client gets the status that it was for.
        let stand_in = context.stand_in.filter(|stand_in| stand_in.for_page);
        let status = stand_in.map_or_else(|| reason.status(), |stand_in| stand_in.status);
        let client_is_gone = reason == Reason::ClientClosed;
        if !client_is_gone && session.response_written().is_none() {
            // What is left of the exchange with the client is not known any more.
            session.set_keepalive(None);
            if let Err(error) =
                write_answer(session, context, Answer::with_status(status, reason)).await
            {
                tracing::debug!(%error, "A client did not take its answer.");
            }
        }
        failure(status)
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, ctx: &mut Context) {
        let Some(context) = ctx.as_deref_mut() else {
            return;
        };
        let request = session.req_header();
        let outcome = Outcome {
            request: Original::of(request),
            target: request.raw_path(),
            status: session.response_written().map(|response| response.status),
            received: session.body_bytes_read(),
            sent: session.body_bytes_sent(),
            upstream_received: session.upstream_body_bytes_received(),
        };
        let now = log::finish(context, &self.worker, &outcome);
        if !session.is_body_done() {
            context.connection.linger();
        }
        context.connection.request_finished(now);
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &Context, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Context,
        _error: &Error,
        _log: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

impl Proxy {
    /// Runs the phases before a backend is asked; what they return is answered.
    async fn decide(&self, session: &Session, context: &mut RequestContext) -> Option<Box<Answer>> {
        let request = session.req_header();
        let original = Original::of(request);
        let head = Head {
            request: original,
            target: request.raw_path(),
        };
        match decide::find(context, head) {
            Verdict::Answer(answer) => Some(answer),
            Verdict::Forward => decide::admit(context, &self.worker, original).await.err(),
        }
    }

    async fn choose(
        &self,
        session: &mut Session,
        context: &mut RequestContext,
    ) -> Result<Option<Box<Answer>>> {
        let coming = || body::coming(Headers::Map(&session.req_header().headers));
        if let Some(length) = body::to_collect(context, coming) {
            let patience = body::patience(context, length);
            let piece = context.connection.limits.body_timeout;
            let late = |_: Elapsed| Error::new_down(ErrorType::ReadTimedout);
            // What is read is sent from here, as to a second endpoint; there is room for the largest that is collected.
            session.as_mut().enable_retry_buffering();
            let all = async {
                loop {
                    let read = timeout(piece, session.read_request_body()).await;
                    let read = read.map_err(late)?.map_err(Error::into_down)?;
                    if read.is_none() {
                        return Ok::<_, Box<Error>>(());
                    }
                }
            };
            body::in_time(patience, all).await.map_err(late)??;
        }
        let original = Original::of(session.req_header());
        let refused = decide::choose(context, &self.worker, original).await.err();
        if refused.is_none() {
            mirror::begin(context, &self.worker, original);
        }
        Ok(refused)
    }
}

/// Can the request be sent once more as a whole, and has the client seen nothing of an answer?
fn is_at_hand(session: &Session) -> bool {
    !session.as_ref().retry_buffer_truncated() && session.response_written().is_none()
}

/// Bounds on what the client may take its time for.
fn set_limits(session: &mut Session, limits: &Limits) {
    // Pingora makes the idle time endless after the first request. It is only ever shortened here: setting it where
    // it is off would keep connections open that were to be closed, as after a request with both Content-Length and
    // Transfer-Encoding (RFC 9112, 6.1).
    // The connection itself ends what is idle, and gives a header section its own time. This is only the end of all that.
    let idle = limits.idle_timeout.saturating_add(limits.header_timeout);
    let idle = idle.as_secs().max(1);
    match session.get_keepalive() {
        None => {}
        Some(0) => session.set_keepalive(Some(idle)),
        Some(given) => session.set_keepalive(Some(given.min(idle))),
    }
    session.set_read_timeout(Some(limits.body_timeout));
    session.set_write_timeout(Some(limits.write_timeout));
    session.set_total_drain_timeout(Some(DRAIN));
}

/// Lets the connection live on after an answer although the request has a body, if that is small. A client that waits
/// for `100 Continue` has not sent it and will not.
fn keep_after_small_body(session: &mut Session) {
    let headers = &session.req_header().headers;
    let small = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
        .is_some_and(|length| length <= body::SMALL);
    if small && !headers.contains_key(EXPECT) {
        session.set_close_on_response_before_downstream_finish(false);
    }
}

/// Sends an answer of Lockgate's own.
async fn write_answer(
    session: &mut Session,
    context: &mut RequestContext,
    answer: Answer,
) -> Result<()> {
    let request = session.req_header();
    let is_head = request.method == http::Method::HEAD;
    let (fields, body) = answer.render(Headers::Map(&request.headers));
    let mut response = Box::new(ResponseHeader::build(answer.status, Some(8))?);
    for (name, value) in fields {
        response.insert_header(name, value)?;
    }
    if answer.status != StatusCode::NO_CONTENT {
        response.insert_header(CONTENT_LENGTH, body.len())?;
    }
    if answer.ends_connection() {
        session.set_keepalive(None);
    }
    context.own_status = Some(answer.status);
    context.fail(answer.reason);
    headers::to_client(context, &mut ResponseFields(&mut response));
    session.write_response_header(response, is_head).await?;
    let body = (!is_head).then_some(body);
    session.write_response_body(body, true).await
}

#[expect(
    clippy::unnecessary_box_returns,
    reason = "Pingora's results hold boxed errors"
)]
fn failed(context: &mut RequestContext, reason: Reason) -> Box<Error> {
    let status = reason.status().as_u16();
    context.fail(reason);
    Error::new(ErrorType::HTTPStatus(status))
}

fn failure(status: StatusCode) -> FailToProxy {
    FailToProxy {
        error_code: status.as_u16(),
        can_reuse_downstream: false,
    }
}

fn source_of(error: &Error) -> Source {
    match error.esource() {
        ErrorSource::Upstream => Source::Upstream,
        ErrorSource::Downstream => Source::Client,
        ErrorSource::Internal | ErrorSource::Unset => Source::Gateway,
    }
}

fn reason_of(source: Source, error: &Error) -> Reason {
    // What came cannot be the rest of a request: the connection says so ([`refusals`]), and Pingora calls it a failed read.
    let cause = error.root_cause().downcast_ref::<std::io::Error>();
    let invalid = cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::InvalidData);
    let fault = if invalid && source == Source::Client {
        Fault::Invalid
    } else {
        fault(error.etype())
    };
    error::reason(source, fault)
}

fn fault(kind: &ErrorType) -> Fault {
    match kind {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Fault::ConnectTimeout,
        ErrorType::ConnectRefused
        | ErrorType::ConnectNoRoute
        | ErrorType::ConnectError
        | ErrorType::BindError
        | ErrorType::SocketError
        | ErrorType::ConnectProxyFailure => Fault::Connect,
        ErrorType::TLSWantX509Lookup
        | ErrorType::TLSHandshakeFailure
        | ErrorType::InvalidCert
        | ErrorType::HandshakeError => Fault::Tls,
        ErrorType::ReadTimedout => Fault::ReadTimeout,
        ErrorType::WriteTimedout => Fault::WriteTimeout,
        ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed => Fault::Closed,
        ErrorType::InvalidHTTPHeader
        | ErrorType::H1Error
        | ErrorType::H2Error
        | ErrorType::H2Downgrade
        | ErrorType::InvalidH2 => Fault::Invalid,
        ErrorType::AcceptError
        | ErrorType::HTTPStatus(_)
        | ErrorType::FileOpenError
        | ErrorType::FileCreateError
        | ErrorType::FileReadError
        | ErrorType::FileWriteError
        | ErrorType::InternalError
        | ErrorType::UnknownError
        | ErrorType::Custom(_)
        | ErrorType::CustomCode(..) => Fault::Other,
    }
}
