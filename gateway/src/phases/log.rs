//! The end of a request: counted and logged.

use std::sync::Arc;
use std::time::Instant;

use http::{Method, Request, StatusCode};

use crate::connection::Connection;
use crate::context::RequestContext;
use crate::engine::Worker;
use crate::error::Reason;
use crate::mirror;
use crate::phases::original::Original;
use crate::phases::{headers, retry};

/// What an engine knows at the end of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome<'a> {
    /// The request as it came.
    pub(crate) request: Original<'a>,
    /// The request target, byte by byte.
    pub(crate) target: &'a [u8],
    /// The status that was sent, if any was.
    pub(crate) status: Option<StatusCode>,
    /// Body bytes that came from the client.
    pub(crate) received: usize,
    /// Body bytes that went to the client.
    pub(crate) sent: usize,
    /// Body bytes that came from the backend.
    pub(crate) upstream_received: usize,
}

/// Counts and logs a request. Says when that was.
pub(crate) fn finish(
    context: &mut RequestContext,
    worker: &Worker,
    outcome: &Outcome<'_>,
) -> Instant {
    let now = Instant::now();
    retry::end_try_at(context, now);
    retry::judge(context);
    // Nothing was sent: what would have been is what the log shows.
    let status = outcome
        .status
        .or_else(|| context.reason.as_ref().map(Reason::status))
        .or(context.own_status)
        .unwrap_or_else(crate::error::client_closed);
    let elapsed = now.saturating_duration_since(context.started);
    worker
        .meter
        .count(context, outcome, status, elapsed, &worker.shared.series);
    if let Some(meter) = &worker.nginx_meter {
        meter.count(context, outcome, status, elapsed, &worker.shared.series);
    }
    if worker.log.is_some() {
        context.connection.logged.count_request();
    }
    if let Some(writer) = &worker.log
        && !context.is_unlogged()
    {
        if writer.names_every_request(context) {
            let id = || headers::request_id(outcome.request.headers, || worker.random.wide());
            context.request_id.get_or_insert_with(id);
        }
        writer.write(context, outcome, status, elapsed);
    }
    if let Some(copy) = context.copy.take() {
        mirror::send(*copy, worker);
    }
    worker.tidy(&context.table);
    now
}

/// Counts and logs what was answered with 400 because it is not a request. There is nothing in it to show.
pub(crate) fn refused(connection: &Arc<Connection>, worker: &Worker, sent: usize) {
    let table = worker.shared.tables.pin();
    let mut context = RequestContext::new(table, Arc::clone(connection));
    let status = context.fail(Reason::BadRequest).status();
    let (mut request, ()) = Request::new(()).into_parts();
    request.method = Method::from_bytes(b"-").unwrap_or_default();
    let outcome = Outcome {
        request: Original::of(&request),
        target: b"",
        status: Some(status),
        received: 0,
        sent,
        upstream_received: 0,
    };
    let _ = finish(&mut context, worker, &outcome);
}
