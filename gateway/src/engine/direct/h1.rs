//! An HTTP/1 connection, request by request.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, StatusCode};
use tokio::sync::watch;
use tokio::time::timeout;

use super::body::Body;
use super::client::{Client, Next, Scratch};
use super::edits::{Edits, write_field};
use super::exchange::{Exchange, Request};
use super::patience::Patience;
use super::pool::connect;
use super::request::{Head, Outline};
use super::response::{write_end, write_status};
use super::{DirectEngine, date, qualifies, tunnel};
use crate::connection::Connection;
use crate::context::RequestContext;
use crate::engine::refusal;
use crate::error::{self, Fault, Reason, Source};
use crate::front::conn::Transport;
use crate::front::guard::count_end;
use crate::phases::answer::Answer;
use crate::phases::log::{self, Outcome};
use crate::phases::route::{self, Verdict};
use crate::phases::upstream::Upstream;
use crate::phases::{body, deadline, decide, headers, retry, upstream};
use crate::settings::Limits;

/// How long that may take.
const DRAIN: Duration = Duration::from_secs(5);

/// How a request ended.
#[derive(Debug, Default)]
struct End {
    status: Option<StatusCode>,
    received: usize,
    sent: usize,
    upstream_received: usize,
    /// May there be another one on this connection?
    keep: bool,
    /// The client may still be sending it.
    unread: bool,
}

/// Serves a connection until it ends, or gives it to Pingora for good with the first request that is not for this
/// engine.
pub(super) async fn serve(
    engine: &DirectEngine,
    transport: Transport,
    connection: Arc<Connection>,
    shutdown: &watch::Receiver<bool>,
) {
    let mut closing = pin!(Arc::clone(&connection).unwanted());
    let mut client = Client::new(transport, Arc::clone(&connection));
    let mut head = Head::default();
    let mut left = connection.limits.max_requests_per_connection;
    loop {
        let next = client.next_request(&mut head, closing.as_mut()).await;
        let foreign = match next {
            Next::Closed => break,
            Next::Refused => {
                refuse(engine, &mut client).await;
                break;
            }
            Next::Foreign => Bytes::new(),
            Next::Request(outline) => {
                left = left.saturating_sub(1);
                if left == 0 {
                    count_end(&connection, "requests");
                }
                let section = client.held.split_to(outline.length).freeze();
                let last = left == 0;
                let served = request(engine, &mut client, &mut head, &section, outline, last).await;
                match served {
                    Some(true) => {
                        head.clear();
                        continue;
                    }
                    Some(false) => break,
                    None => section,
                }
            }
        };
        drop(head);
        if !foreign.is_empty() {
            let mut whole = BytesMut::from(foreign);
            whole.extend_from_slice(&client.held);
            client.held = whole;
        }
        if let Some((transport, first)) = client.into_parts() {
            let served = engine.pingora.serve(transport, first, connection, shutdown);
            // Most connections never come here: they are not to have the room for it.
            Box::pin(served).await;
        }
        return;
    }
    client.close().await;
}

/// Answers what is not a request.
async fn refuse(engine: &DirectEngine, client: &mut Client) {
    let connection = Arc::clone(client.connection());
    client.out.bytes().extend_from_slice(refusal::PAGE);
    // Whether the client takes it makes no difference.
    let _ = client
        .send(engine.worker.shared.settings.limits.write_timeout)
        .await;
    log::refused(&connection, &engine.worker, refusal::PAGE_BODY);
    connection.linger();
}

/// Serves a request. Says whether there may be another one; nothing if it is Pingora's to serve.
async fn request(
    engine: &DirectEngine,
    client: &mut Client,
    head: &mut Head,
    section: &Bytes,
    outline: Outline,
    last: bool,
) -> Option<bool> {
    head.fill(section, &outline)?;
    let worker = &engine.worker;
    let connection = Arc::clone(client.connection());
    let limits = &*connection.limits;
    let mut context = RequestContext::new(worker.shared.tables.pin(), Arc::clone(&connection));
    let seen = route::Head {
        request: head.original(),
        target: head.target(),
    };
    let verdict = decide::find(&mut context, seen);
    if !qualifies(&context) {
        return None;
    }
    connection.request_started();
    let keep = outline.keep && !last && !connection.ending();
    let prepared = match verdict {
        Verdict::Answer(answer) => Err(answer),
        Verdict::Forward => decide::admit(&mut context, worker, head.original()).await,
    };
    let waiting = Waiting {
        body: outline.body,
        expects: outline.expects,
        keep,
    };
    let end = match prepared {
        Err(answer) => answer_early(client, head, &mut context, limits, answer, waiting).await,
        Ok(()) => collect_and_forward(engine, limits, client, head, &mut context, waiting).await,
    };
    let outcome = Outcome {
        request: head.original(),
        target: head.target(),
        status: end.status,
        received: end.received,
        sent: end.sent,
        upstream_received: end.upstream_received,
    };
    let now = log::finish(&mut context, worker, &outcome);
    if end.unread {
        connection.linger();
    }
    connection.request_finished(now);
    Some(end.keep)
}

/// What a client has still to send when it is answered.
struct Waiting {
    body: Body,
    expects: bool,
    keep: bool,
}

/// Answers a request that goes nowhere.
async fn answer_early(
    client: &mut Client,
    head: &Head,
    context: &mut RequestContext,
    limits: &Limits,
    answer: Box<Answer>,
    mut waiting: Waiting,
) -> End {
    // A client that waits for permission has not sent the body and will not.
    let small = match waiting.body {
        Body::Length(length) => length == 0 || length <= body::SMALL && !waiting.expects,
        Body::Chunked(_) | Body::UntilClose => false,
    };
    let mut end = End {
        keep: waiting.keep && small && !answer.ends_connection(),
        ..End::default()
    };
    write_answer(client, head, context, *answer, !end.keep, &mut end);
    if client.send(limits.write_timeout).await.is_err() {
        end.keep = false;
        end.unread = !waiting.body.is_done();
        return end;
    }
    if small && !waiting.body.is_done() {
        let read = timeout(DRAIN, discard(client, &mut waiting.body)).await;
        end.received = read.unwrap_or_default();
    }
    end.unread = !waiting.body.is_done();
    end.keep &= !end.unread;
    end
}

/// Serves a request that has been let pass.
async fn collect_and_forward(
    engine: &DirectEngine,
    limits: &Limits,
    client: &mut Client,
    head: &Head,
    context: &mut RequestContext,
    waiting: Waiting,
) -> End {
    if let Err(reason) = collect(client, context, &waiting).await {
        let failed = Failed {
            reason,
            unread: true,
        };
        let end = End {
            received: client.held.len(),
            ..End::default()
        };
        return fail(client, head, context, limits.write_timeout, failed, end).await;
    }
    if let Err(answer) = decide::choose(context, &engine.worker, head.original()).await {
        return answer_early(client, head, context, limits, answer, waiting).await;
    }
    let asked = (waiting.body, waiting.keep);
    forward(engine, limits, client, head, context, asked).await
}

/// Waits for the whole body where the route asks for that.
async fn collect(
    client: &mut Client,
    context: &RequestContext,
    waiting: &Waiting,
) -> Result<(), Reason> {
    let coming = || match waiting.body {
        // One that waits for a permission would be waited for in vain.
        Body::Length(length) if !waiting.expects => Some(length),
        Body::Length(_) | Body::Chunked(_) | Body::UntilClose => None,
    };
    let Some(length) = body::to_collect(context, coming) else {
        return Ok(());
    };
    let limits = Arc::clone(&client.connection().limits);
    let all = async {
        while client.held.len() < length {
            let before = client.held.len();
            let more = timeout(limits.body_timeout, read_more(client)).await;
            more.map_err(|_| Reason::ClientTimeout)?
                .map_err(|_| Reason::ClientClosed)?;
            if client.held.len() == before {
                return Err(Reason::ClientClosed);
            }
        }
        Ok(())
    };
    let collected = body::in_time(body::patience(context, length), all).await;
    collected.unwrap_or(Err(Reason::ClientTimeout))
}

/// Puts what comes next to what is there.
async fn read_more(client: &mut Client) -> io::Result<()> {
    let (io, held) = (&mut client.io, &mut client.held);
    poll_fn(|cx| {
        let mut scratch = Scratch::take();
        let read = scratch.poll_read(io, cx);
        read.map_ok(|bytes| held.extend_from_slice(bytes))
    })
    .await
}

/// Reads a body for nobody. Says how long it was, as far as it came.
async fn discard(client: &mut Client, body: &mut Body) -> usize {
    let mut received = 0;
    loop {
        let held = client.held.split().freeze();
        let mut taken = 0;
        while let Some(rest) = held.get(taken..).filter(|rest| !rest.is_empty()) {
            match body.step(rest) {
                Ok(step) if step.taken > 0 => {
                    taken += step.taken;
                    received += step.content.len();
                }
                _ => break,
            }
        }
        client
            .held
            .extend_from_slice(held.get(taken..).unwrap_or_default());
        if body.is_done() || !client.held.is_empty() {
            return received;
        }
        if read_more(client).await.is_err() || client.held.is_empty() {
            return received;
        }
    }
}

/// Puts an answer of Lockgate's own among what is to be sent.
fn write_answer(
    client: &mut Client,
    head: &Head,
    context: &mut RequestContext,
    answer: Answer,
    close: bool,
    end: &mut End,
) {
    let (fields, body) = answer.render(head.original().headers);
    context.own_status = Some(answer.status);
    context.fail(answer.reason);
    let mut original = HeaderMap::with_capacity(fields.len() + 1);
    original.extend(fields.into_iter().map(|(name, value)| (Some(name), value)));
    if answer.status != StatusCode::NO_CONTENT {
        original.insert(CONTENT_LENGTH, body.len().into());
    }
    let mut edits = Edits::of(&original);
    headers::to_client(context, &mut edits);
    let out = client.out.bytes();
    write_status(out, answer.status, None);
    for (name, value) in &original {
        if !edits.leaves_out(name.as_str().as_bytes()) {
            write_field(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    edits.write(out);
    date::write(out, context.started_at);
    write_end(out, close);
    if head.method != Method::HEAD {
        out.extend_from_slice(&body);
        end.sent = body.len();
    }
    end.status = Some(answer.status);
}

/// Sends a request to an endpoint and its response to the client.
async fn forward(
    engine: &DirectEngine,
    limits: &Limits,
    client: &mut Client,
    head: &Head,
    context: &mut RequestContext,
    (body, keep): (Body, bool),
) -> End {
    let to = match upstream::upstream(context) {
        Ok(to) => to,
        Err(reason) => {
            let failed = Failed {
                reason,
                unread: !body.is_done(),
            };
            return fail(
                client,
                head,
                context,
                limits.write_timeout,
                failed,
                End::default(),
            )
            .await;
        }
    };
    let patience = Patience::new(&to, limits);
    let asked = Request {
        block: head.for_backend(context, body),
        body,
        keep,
    };
    let mut exchange = Exchange::new(context, head, client, &engine.pool, patience, asked);
    let moved = exchange_on_some_endpoint(engine, &mut exchange, to).await;
    let switched = exchange.take_switched();
    let end = End {
        status: exchange.download.status,
        received: exchange.upload.received,
        sent: exchange.download.sent,
        upstream_received: exchange.download.received,
        keep: exchange.download.keep_client,
        unread: !exchange.upload.body.is_done(),
    };
    drop(exchange);
    match (moved, switched) {
        (Ok(()), Some(endpoint)) => {
            // Few connections come here: the others are not to have the room for it.
            let passed = Box::pin(tunnel::pass(client, endpoint, &patience)).await;
            if let Some((source, fault)) = passed.failure {
                context.fail(error::reason(source, fault));
            }
            End {
                received: end.received + passed.received,
                sent: end.sent + passed.sent,
                upstream_received: end.upstream_received + passed.sent,
                unread: passed.unread,
                ..end
            }
        }
        (Ok(()), None) => End {
            keep: end.keep && !end.unread,
            ..end
        },
        (Err(reason), _) => {
            let failed = Failed {
                reason,
                unread: end.unread,
            };
            fail(client, head, context, limits.write_timeout, failed, end).await
        }
    }
}

/// Tries endpoints until one has answered, as long as it makes sense.
async fn exchange_on_some_endpoint(
    engine: &DirectEngine,
    exchange: &mut Exchange<'_>,
    mut to: Upstream,
) -> Result<(), Reason> {
    let worker = &engine.worker;
    let mut fresh = false;
    loop {
        let kept = if fresh || to.suspect {
            None
        } else {
            engine.pool.take(to.address, exchange.began())
        };
        let reused = kept.is_some();
        let connected = match kept {
            Some(stream) => Ok(stream),
            None => connect(&to).await,
        };
        match connected {
            Ok(stream) => {
                retry::connected(exchange.context, reused);
                exchange.begin(to.address, stream, reused);
                let Err((source, fault)) = poll_fn(|cx| exchange.poll(cx)).await else {
                    return Ok(());
                };
                let closed = (source, fault) == (Source::Upstream, Fault::Closed);
                let stale = closed && exchange.is_repeatable();
                if !stale || !retry::went_stale(exchange.context) {
                    return Err(error::reason(source, fault));
                }
                // What is closed here was probably closed everywhere: a backend that was started anew.
                fresh = true;
            }
            Err(fault) => {
                let reason = error::reason(Source::Upstream, fault);
                if !retry::not_connected(exchange.context, worker, &reason) {
                    return Err(deadline::or_over(exchange.context, reason));
                }
            }
        }
        upstream::begin_try(exchange.context, worker).await?;
        to = upstream::upstream(exchange.context)?;
    }
}

/// A failure, and whether the client may still be sending.
struct Failed {
    reason: Reason,
    unread: bool,
}

/// Tells the client of a failure, unless a response has begun or nobody is there to hear of it.
async fn fail(
    client: &mut Client,
    head: &Head,
    context: &mut RequestContext,
    patience: Duration,
    failed: Failed,
    mut end: End,
) -> End {
    let Failed { reason, unread } = failed;
    tracing::debug!(%reason, "A request failed.");
    let reason = context.fail(reason).clone();
    // What is left of the exchange with the client is not known any more.
    end.keep = false;
    end.unread = false;
    if reason == Reason::ClientClosed {
        return end;
    }
    if end.status.is_none() {
        write_answer(client, head, context, Answer::page(reason), true, &mut end);
    }
    // The part of a response that came is the client's.
    let sent: io::Result<()> = client.send(patience).await;
    end.unread = unread && sent.is_ok();
    end
}
