//! Counts requests with a bounded number of series.
//!
//! Handles of series are kept per worker and route, so that a request neither builds labels nor asks the recorder. How
//! many label combinations there may be in all is a [`SeriesBudget`] of the gateway; what comes later counts under
//! the host `_overflow`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use ahash::AHashMap;
use http::StatusCode;
use metrics::{Counter, Histogram, Label, counter, histogram};
use model::BackendId;
use smallvec::SmallVec;
use table::{BackendSlot, CompiledRoute};

use super::{
    GENERATED, REQUEST_BYTES, REQUEST_SECONDS, REQUESTS, RESPONSE_BYTES, SERIES_OVERFLOW,
    UPSTREAM_CONNECT_ERRORS, UPSTREAM_CONNECTS, UPSTREAM_RETRIES, UPSTREAM_RETRIES_REFUSED,
    UPSTREAM_REUSES, UPSTREAM_SECONDS,
};
use crate::context::RequestContext;
use crate::error::Reason;
use crate::phases::log::Outcome;

/// Where everything beyond the budget is counted.
pub(crate) const OVERFLOW: &str = "_overflow";

/// How many label combinations may still be made. One for the whole gateway.
#[derive(Debug)]
pub(crate) struct SeriesBudget {
    most: usize,
    admitted: Mutex<BTreeSet<Box<str>>>,
}

impl SeriesBudget {
    /// Room for `most` combinations.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            admitted: Mutex::default(),
        }
    }

    /// Is there a place for this combination, or does it have one already?
    pub(crate) fn admit(&self, labels: &[&str]) -> bool {
        let key = labels.join("\0");
        let mut admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        if admitted.contains(key.as_str()) {
            return true;
        }
        if admitted.len() < self.most {
            admitted.insert(key.into());
            return true;
        }
        drop(admitted);
        counter!(SERIES_OVERFLOW).increment(1);
        false
    }
}

/// The counters of one worker.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    routes: AHashMap<Key, RouteSeries>,
    generated: SmallVec<[Generated; 4]>,
}

/// Address of the route, 0 without one, and the backend that was chosen. The address stays taken while the entry
/// holds its `Weak`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Key {
    route: usize,
    backend: Option<BackendSlot>,
}

#[derive(Debug)]
struct RouteSeries {
    route: Option<Weak<CompiledRoute>>,
    /// The service's name, against a slot that is given to another backend.
    service: Option<Box<str>>,
    statuses: SmallVec<[(StatusCode, Counter); 4]>,
    seconds: Histogram,
    upstream_seconds: Histogram,
    received: Histogram,
    sent: Histogram,
}

#[derive(Debug)]
struct Generated {
    reason: Reason,
    status: StatusCode,
    counter: Counter,
}

impl Meter {
    /// Nothing counted yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Counts a request.
    pub(crate) fn count(
        &self,
        context: &RequestContext,
        outcome: &Outcome<'_>,
        status: StatusCode,
        elapsed: Duration,
        budget: &SeriesBudget,
    ) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let series = known.series(context, budget);
        series.status(context, status, budget).increment(1);
        series.seconds.record(elapsed.as_secs_f64());
        if let Some(header) = context.tries.last().and_then(|attempt| attempt.header) {
            series.upstream_seconds.record(header.as_secs_f64());
        }
        series
            .received
            .record(size(context.header_bytes + outcome.received));
        series.sent.record(size(outcome.sent));
        if let Some(reason) = &context.reason {
            known.generated(reason, status, budget).increment(1);
        }
    }

    /// Forgets routes that are in no table any more. Returns how many are left.
    pub(crate) fn forget_gone(&self) -> usize {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.routes.retain(|_, series| {
            series
                .route
                .as_ref()
                .is_none_or(|route| route.strong_count() > 0)
        });
        known.routes.len()
    }
}

impl Known {
    fn series(&mut self, context: &RequestContext, budget: &SeriesBudget) -> &mut RouteSeries {
        let key = Key {
            route: context
                .route
                .as_ref()
                .map_or(0, |route| Arc::as_ptr(route).addr()),
            backend: context.target.as_ref().map(|target| target.slot),
        };
        let service = service(context);
        let entry = self
            .routes
            .entry(key)
            .or_insert_with(|| RouteSeries::new(context, budget));
        if entry.service.as_deref() != service {
            *entry = RouteSeries::new(context, budget);
        }
        entry
    }

    fn generated(
        &mut self,
        reason: &Reason,
        status: StatusCode,
        budget: &SeriesBudget,
    ) -> &Counter {
        let at = self
            .generated
            .iter()
            .position(|known| known.status == status && known.reason == *reason);
        let at = at.unwrap_or_else(|| {
            let code = status.as_str().to_owned();
            // Reasons of routes are texts of their owners.
            let text = if budget.admit(&[reason.as_str(), &code]) {
                reason.as_str().to_owned()
            } else {
                OVERFLOW.to_owned()
            };
            self.generated.push(Generated {
                reason: reason.clone(),
                status,
                counter: counter!(
                    GENERATED,
                    "reason" => text,
                    "source" => reason.source().as_str(),
                    "status" => code
                ),
            });
            self.generated.len() - 1
        });
        self.generated
            .get(at)
            .map_or(&NOWHERE, |known| &known.counter)
    }
}

static NOWHERE: Counter = Counter::noop();

impl RouteSeries {
    fn new(context: &RequestContext, budget: &SeriesBudget) -> Self {
        let labels = admitted_labels(context, None, budget);
        Self {
            route: context.route.as_ref().map(Arc::downgrade),
            service: service(context).map(Into::into),
            statuses: SmallVec::new(),
            seconds: histogram!(REQUEST_SECONDS, labels.iter()),
            upstream_seconds: histogram!(UPSTREAM_SECONDS, labels.iter()),
            received: histogram!(REQUEST_BYTES, labels.iter()),
            sent: histogram!(RESPONSE_BYTES, labels.iter()),
        }
    }

    fn status(
        &mut self,
        context: &RequestContext,
        status: StatusCode,
        budget: &SeriesBudget,
    ) -> &Counter {
        let at = self.statuses.iter().position(|(code, _)| *code == status);
        let at = at.unwrap_or_else(|| {
            let labels = admitted_labels(context, Some(status), budget);
            self.statuses
                .push((status, counter!(REQUESTS, labels.iter())));
            self.statuses.len() - 1
        });
        self.statuses
            .get(at)
            .map_or(&NOWHERE, |(_, counter)| counter)
    }
}

fn service(context: &RequestContext) -> Option<&str> {
    context
        .target
        .as_ref()
        .map(|target| &*target.backend.id.service)
}

/// The labels of a request, or those of the overflow. The status is kept even there: it has few values.
fn admitted_labels(
    context: &RequestContext,
    status: Option<StatusCode>,
    budget: &SeriesBudget,
) -> Vec<Label> {
    let (namespace, ingress, host, path) = match &context.route {
        Some(route) => (
            &*route.origin.object.namespace,
            &*route.origin.object.name,
            route.host.to_string(),
            route.path.to_string(),
        ),
        None => ("", "", String::new(), String::new()),
    };
    let service = service(context).unwrap_or_default();
    let code = status.map(|status| status.as_str().to_owned());
    let admitted = budget.admit(&[
        namespace,
        ingress,
        &host,
        &path,
        service,
        code.as_deref().unwrap_or_default(),
    ]);
    let mut labels = if admitted {
        vec![
            Label::new("namespace", namespace.to_owned()),
            Label::new("ingress", ingress.to_owned()),
            Label::new("service", service.to_owned()),
            Label::new("host", host),
            Label::new("path", path),
        ]
    } else {
        vec![
            Label::new("namespace", ""),
            Label::new("ingress", ""),
            Label::new("service", ""),
            Label::new("host", OVERFLOW),
            Label::new("path", ""),
        ]
    };
    if let Some(code) = code {
        labels.push(Label::new("status", code));
    }
    labels
}

/// What is counted for a backend.
#[derive(Debug)]
pub(crate) struct BackendSeries {
    /// Connections made.
    pub(crate) connects: Counter,
    /// Connections used again.
    pub(crate) reuses: Counter,
    /// Tries after the first one.
    pub(crate) retries: Counter,
    labels: [Label; 3],
}

impl BackendSeries {
    /// The counters of this backend.
    pub(crate) fn new(id: &BackendId, budget: &SeriesBudget) -> Self {
        let labels = if budget.admit(&[&id.namespace, &id.service, &id.port]) {
            [
                Label::new("namespace", id.namespace.to_string()),
                Label::new("service", id.service.to_string()),
                Label::new("service_port", id.port.to_string()),
            ]
        } else {
            [
                Label::new("namespace", ""),
                Label::new("service", OVERFLOW),
                Label::new("service_port", ""),
            ]
        };
        Self {
            connects: counter!(UPSTREAM_CONNECTS, labels.iter()),
            reuses: counter!(UPSTREAM_REUSES, labels.iter()),
            retries: counter!(UPSTREAM_RETRIES, labels.iter()),
            labels,
        }
    }

    /// Counts a retry that the budget did not have.
    pub(crate) fn retry_refused(&self) {
        counter!(UPSTREAM_RETRIES_REFUSED, self.labels.iter()).increment(1);
    }

    /// Counts a connection that could not be made. Rare enough to ask the recorder each time.
    pub(crate) fn connect_failed(&self, reason: &Reason) {
        let reason = Label::new("reason", reason.as_str().to_owned());
        let labels: Vec<Label> = self.labels.iter().cloned().chain([reason]).collect();
        counter!(UPSTREAM_CONNECT_ERRORS, labels.iter()).increment(1);
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "sizes beyond 2^53 bytes need not be exact"
)]
pub(super) fn size(bytes: usize) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_keeps_what_it_has_and_takes_no_more() {
        let budget = SeriesBudget::new(2);
        assert!(budget.admit(&["a", "b"]));
        assert!(
            budget.admit(&["ab", ""]),
            "the border between labels counts"
        );
        assert!(!budget.admit(&["c"]));
        assert!(budget.admit(&["a", "b"]), "what is in stays in");
    }
}
