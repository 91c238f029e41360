//! One stream: a request and its response.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderMap, Method, StatusCode};
use http2::{Code, Writer};
use model::BackendProtocol;
use table::{CompiledAction, CompiledFilter, CompiledOptions};
use tokio::sync::watch;

use super::super::patience::Clock;
use super::super::{DirectEngine, knows};
use super::outlet::{Client, End};
use super::request::Request;
use super::{fields, foreign, to_http1, to_http2};
use crate::connection::Connection;
use crate::context::RequestContext;
use crate::engine::Worker;
use crate::error::{Reason, Source};
use crate::phases::answer::Answer;
use crate::phases::log::{self, Outcome};
use crate::phases::route::{self, Verdict};
use crate::phases::upstream::Upstream;
use crate::phases::{body, deadline, decide, headers, retry, upstream};
use crate::timer::Timer;

/// What a try to serve a request needs.
pub(super) struct Exchange<'a> {
    pub(super) engine: &'a DirectEngine,
    pub(super) context: &'a mut RequestContext,
    pub(super) request: &'a Request,
    pub(super) client: &'a mut Client,
    pub(super) timer: &'a mut Timer,
    /// Bytes of content from the endpoint.
    pub(super) upstream_received: usize,
}

/// Why a try came to nothing.
#[derive(Debug)]
pub(super) enum Halt {
    /// This happened.
    Failed(Reason),
    /// No connection could be made.
    NotConnected(Reason),
    /// A kept connection turned out to be of no use, and the request can be sent again.
    Stale(Reason),
    /// The endpoint's status is one after which another endpoint is to be asked.
    Unwanted,
}

impl From<Reason> for Halt {
    fn from(reason: Reason) -> Self {
        Self::Failed(reason)
    }
}

impl From<super::outlet::Gone> for Halt {
    fn from(gone: super::outlet::Gone) -> Self {
        Self::Failed(gone.into())
    }
}

/// Serves a request, here or with Pingora. Its route is found at once.
///
/// There are many streams at a time, so their futures are kept small: what is captured stays where it is, and what few
/// requests need is in boxes.
pub(super) fn serve<'a>(
    engine: &'a DirectEngine,
    connection: Arc<Connection>,
    request: Request,
    mut client: Client,
    shutdown: &'a watch::Receiver<bool>,
) -> impl Future<Output = End> + use<'a> {
    let table = engine.worker.shared.tables.pin();
    let mut context = RequestContext::new(table, Arc::clone(&connection));
    let verdict = if request.too_large {
        Verdict::Answer(Box::new(Answer::page(Reason::HeaderTooLarge)))
    } else {
        let head = route::Head {
            request: request.original(),
            target: request.target(),
        };
        decide::find(&mut context, head)
    };
    async move {
        if !qualifies(&context) {
            drop(context);
            let served = foreign::serve(engine, connection, request, client, shutdown);
            return Box::pin(served).await;
        }
        connection.request_started();
        let mut timer = engine.timers.take();
        let mut exchange = Exchange {
            engine,
            context: &mut context,
            request: &request,
            client: &mut client,
            timer: &mut timer,
            upstream_received: 0,
        };
        match verdict {
            Verdict::Answer(answer) => exchange.answer(answer).await,
            Verdict::Forward => exchange.admit_and_forward().await,
        }
        let upstream_received = exchange.upstream_received;
        engine.timers.put(timer);
        let outcome = Outcome {
            request: request.original(),
            target: request.target(),
            status: client.status,
            received: client.received,
            sent: client.sent,
            upstream_received,
        };
        let now = log::finish(&mut context, &engine.worker, &outcome);
        connection.request_finished(now);
        client.end()
    }
}

/// Everything is served here but what goes to a backend with TLS, and routes with error pages. A part of a route that is
/// not named in here is Pingora's.
fn qualifies(context: &RequestContext) -> bool {
    let Some(route) = &context.route else {
        // Answered without one.
        return true;
    };
    let mut filters = route.filters.iter();
    let known = filters.all(|filter| matches!(filter, CompiledFilter::Pace(_)) || knows(filter));
    let cleartext = |slot| {
        let backend = context.table.backend(slot);
        backend.is_none_or(|backend| match backend.protocol {
            BackendProtocol::Http1 | BackendProtocol::H2c => true,
            BackendProtocol::Auto => !context.client.https,
            BackendProtocol::Https => false,
        })
    };
    let targets = match &route.action {
        CompiledAction::Forward(targets) => targets.iter().all(|(slot, _)| cleartext(slot)),
        CompiledAction::Redirect(_) | CompiledAction::Respond { .. } => true,
    };
    // A route may go on to backends that are not among its targets.
    let further = route.options.as_ref().is_none_or(|options| {
        let CompiledOptions {
            canaries,
            backup,
            retry: _,
            deadlines: _,
            balance: _,
            slow_start: _,
            affinity: _,
            hash_by: _,
            errors,
            mirror,
            unlogged: _,
            collect: _,
        } = &**options;
        let mut others = canaries.iter().map(|canary| canary.backend).chain(*backup);
        errors.is_none() && mirror.is_none() && others.all(cleartext)
    });
    known && targets && further
}

impl Exchange<'_> {
    fn worker(&self) -> &Worker {
        &self.engine.worker
    }

    async fn admit_and_forward(&mut self) {
        let refused = match self.admit_and_choose().await {
            Ok(None) => self.forward().await,
            Ok(Some(answer)) => return self.answer(answer).await,
            Err(reason) => Err(reason),
        };
        if let Err(reason) = refused {
            self.fail(reason).await;
        }
    }

    /// Runs the phases before an endpoint is asked. What they return is answered instead.
    async fn admit_and_choose(&mut self) -> Result<Option<Box<Answer>>, Reason> {
        let worker = &self.engine.worker;
        let original = self.request.original();
        // Another server may be asked for a long time, and a client that has gone does not wait for it.
        let admitted = self
            .client
            .or_gone(pin!(decide::admit(self.context, worker, original)))
            .await?;
        if let Err(answer) = admitted {
            return Ok(Some(answer));
        }
        self.collect().await?;
        let chosen = self
            .client
            .or_gone(pin!(decide::choose(self.context, worker, original)))
            .await?;
        Ok(chosen.err())
    }

    /// Waits for the whole body where the route asks for that.
    async fn collect(&mut self) -> Result<(), Reason> {
        let coming = || body::coming(self.request.headers());
        let Some(length) = body::to_collect(self.context, coming) else {
            return Ok(());
        };
        let patience = body::patience(self.context, length);
        let piece = self.context.connection.limits.body_timeout;
        let collected = body::in_time(patience, self.client.collect(length, piece)).await;
        collected.unwrap_or(Err(Reason::ClientTimeout))
    }

    /// When the last of the request came, in this try.
    pub(super) fn sent_at(&self, clock: &Clock) -> Instant {
        let attempt = self.context.tries.last();
        let began = attempt.map_or(clock.received_at, |attempt| attempt.began);
        match self.client.received {
            0 => began,
            _ => clock.received_at.max(began),
        }
    }

    /// Tries endpoints until one has answered, as long as it makes sense.
    async fn forward(&mut self) -> Result<(), Reason> {
        let mut to = upstream::upstream(self.context)?;
        let halt = match to.protocol {
            BackendProtocol::H2c => {
                let mut request = to_http2::Replay::default();
                loop {
                    let Err(halt) = to_http2::exchange(self, &mut request, &to).await else {
                        return Ok(());
                    };
                    match self.again(halt, request.is_whole()).await {
                        Ok(next) => to = next,
                        Err(reason) => break reason,
                    }
                }
            }
            BackendProtocol::Http1 | BackendProtocol::Auto | BackendProtocol::Https => {
                let mut upload = to_http1::Upload::new(self);
                let mut fresh = false;
                loop {
                    let Err(halt) = to_http1::exchange(self, &mut upload, &to, fresh).await else {
                        return Ok(());
                    };
                    // What is closed here was probably closed everywhere: a backend that was started anew.
                    fresh |= matches!(halt, Halt::Stale(_));
                    match self.again(halt, upload.is_whole()).await {
                        Ok(next) => to = next,
                        Err(reason) => break reason,
                    }
                }
            }
        };
        Err(halt)
    }

    /// What to try next after a try that came to nothing; an error if nothing. `whole` says whether everything is
    /// there that has to be sent again.
    async fn again(&mut self, halt: Halt, whole: bool) -> Result<Upstream, Reason> {
        let engine = self.engine;
        let worker = &engine.worker;
        let method = &self.request.method;
        let whole = whole && self.client.status.is_none();
        let (again, reason) = match halt {
            Halt::NotConnected(reason) => {
                let again = retry::not_connected(self.context, worker, &reason);
                (again, deadline::or_over(self.context, reason))
            }
            Halt::Stale(reason) => (retry::went_stale(self.context), reason),
            // What says so has asked the rules.
            Halt::Unwanted => (true, Reason::UpstreamReset),
            Halt::Failed(reason) => {
                let upstream = reason.source() == Source::Upstream;
                let again =
                    whole && upstream && retry::broke(self.context, worker, method, &reason);
                (again, reason)
            }
        };
        if !again {
            return Err(reason);
        }
        upstream::begin_try(self.context, worker).await?;
        upstream::upstream(self.context)
    }

    /// Is this status one after which another endpoint is to be asked?
    pub(super) fn unwanted(&mut self, whole: bool, status: StatusCode, now: Instant) -> bool {
        retry::answered(self.context, status, now);
        let engine = self.engine;
        whole && retry::unwanted(self.context, &engine.worker, &self.request.method, status)
    }

    /// Tells the client of a failure, unless a response has begun or nobody is there to hear of it.
    async fn fail(&mut self, reason: Reason) {
        tracing::debug!(%reason, "A request failed.");
        let reason = self.context.fail(reason).clone();
        if self.client.gone {
            return;
        }
        if self.client.status.is_none() && reason != Reason::ClientClosed {
            self.answer(Box::new(Answer::page(reason))).await;
        } else {
            self.client.reset(Code::INTERNAL_ERROR);
        }
    }

    /// Sends an answer of Lockgate's own.
    async fn answer(&mut self, answer: Box<Answer>) {
        if !self.begin_answer(*answer) {
            return;
        }
        let patience = self.worker().shared.settings.limits.write_timeout;
        let late = Instant::now().checked_add(patience);
        let (client, timer) = (&mut *self.client, &mut *self.timer);
        let sent = poll_fn(|cx| {
            while client.is_sending() {
                match client.poll_send(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(true),
                    Poll::Pending => {
                        let late = late.map_or(Poll::Pending, |at| timer.poll(cx, at));
                        return late.map(|()| false);
                    }
                }
            }
            Poll::Ready(true)
        });
        if !sent.await {
            self.client.reset(Code::CANCEL);
        }
    }

    /// Hands over an answer of Lockgate's own. Says whether there is a body that is still to leave.
    fn begin_answer(&mut self, answer: Answer) -> bool {
        let (fields, body) = answer.render(self.request.headers());
        self.context.own_status = Some(answer.status);
        self.context.fail(answer.reason);
        let mut map = HeaderMap::with_capacity(fields.len() + 4);
        map.extend(fields);
        if answer.status != StatusCode::NO_CONTENT {
            map.insert(CONTENT_LENGTH, body.len().into());
        }
        headers::to_client(self.context, &mut map);
        let empty = body.is_empty() || self.request.method == Method::HEAD;
        let (client, context) = (&mut *self.client, &*self.context);
        let begun = client.begin(answer.status, empty, |out: &mut Writer<'_>| {
            fields::write(out, &map);
            if !map.contains_key(DATE) {
                fields::write_date(out, context);
            }
        });
        let follows = begun.is_ok() && !empty;
        if follows {
            self.client.push(body, true);
        }
        follows
    }
}
