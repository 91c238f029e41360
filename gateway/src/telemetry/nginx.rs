//! The metrics of requests under the names of ingress-nginx, for dashboards and alerts that know those.
//!
//! They are kept only where somebody asks for them. Otherwise a request costs one look at an empty option.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use ahash::AHashMap;
use http::{Method, StatusCode};
use metrics::{
    Counter, Histogram, Label, Unit, counter, describe_counter, describe_histogram, histogram,
};
use model::{Name, PathMatch};
use table::{BackendSlot, CompiledRoute};

use super::SeriesBudget;
use super::meter::{OVERFLOW, size};
use crate::asked::{Asked, Named};
use crate::context::RequestContext;
use crate::phases::log::Outcome;
use crate::settings::NginxLabels;

const REQUESTS: &str = "nginx_ingress_controller_requests";
const REQUEST_SECONDS: &str = "nginx_ingress_controller_request_duration_seconds";
const CONNECT_SECONDS: &str = "nginx_ingress_controller_connect_duration_seconds";
const HEADER_SECONDS: &str = "nginx_ingress_controller_header_duration_seconds";
const RESPONSE_SECONDS: &str = "nginx_ingress_controller_response_duration_seconds";
const REQUEST_SIZE: &str = "nginx_ingress_controller_request_size";
const RESPONSE_SIZE: &str = "nginx_ingress_controller_response_size";
const BYTES_SENT: &str = "nginx_ingress_controller_bytes_sent";

const TIMES: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
const LENGTHS: &[f64] = &[10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0];
const SIZES: &[f64] = &[10.0, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7];

/// The upper bounds of the buckets of histograms under names of ingress-nginx, which are its defaults.
pub const NGINX_BUCKETS: [(&str, &[f64]); 7] = [
    (REQUEST_SECONDS, TIMES),
    (CONNECT_SECONDS, TIMES),
    (HEADER_SECONDS, TIMES),
    (RESPONSE_SECONDS, TIMES),
    (REQUEST_SIZE, LENGTHS),
    (RESPONSE_SIZE, LENGTHS),
    (BYTES_SENT, SIZES),
];

/// Registers help texts of the metrics of requests under the names of ingress-nginx.
pub fn describe_nginx_metrics() {
    describe_counter!(REQUESTS, "Requests that a route was found for.");
    describe_histogram!(
        REQUEST_SECONDS,
        Unit::Seconds,
        "Time from the header section of a request to the end of its response."
    );
    describe_histogram!(
        CONNECT_SECONDS,
        Unit::Seconds,
        "Time until there was a connection to an endpoint; 0 for one that was there already."
    );
    describe_histogram!(
        HEADER_SECONDS,
        Unit::Seconds,
        "Time until an endpoint had sent the header section of its response."
    );
    describe_histogram!(
        RESPONSE_SECONDS,
        Unit::Seconds,
        "Time until an endpoint had sent all of its response."
    );
    describe_histogram!(REQUEST_SIZE, "Size of requests, header section and body.");
    describe_histogram!(RESPONSE_SIZE, "Size of response bodies.");
    describe_histogram!(BYTES_SENT, "The same as `response_size`, in other buckets.");
}

/// The series of one worker.
#[derive(Debug)]
pub(crate) struct NginxMeter {
    labels: [Label; 3],
    known: Mutex<AHashMap<Key, Series>>,
}

/// Address of the route and the backend that was chosen. The address stays taken while the entry holds its `Weak`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Key {
    route: usize,
    backend: Option<BackendSlot>,
    method: &'static str,
    status: StatusCode,
}

#[derive(Debug)]
struct Series {
    route: Weak<CompiledRoute>,
    /// The service's name, against a slot that is given to another backend.
    service: Option<Name>,
    requests: Counter,
    seconds: Histogram,
    connect: Histogram,
    header: Histogram,
    response: Histogram,
    received: Histogram,
    sent: Histogram,
    bytes_sent: Histogram,
}

impl NginxMeter {
    /// Nothing counted yet.
    pub(crate) fn new(labels: &NginxLabels) -> Self {
        let NginxLabels {
            class,
            namespace,
            pod,
        } = labels;
        Self {
            labels: [
                Label::new("controller_class", class.clone()),
                Label::new("controller_namespace", namespace.clone()),
                Label::new("controller_pod", pod.clone()),
            ],
            known: Mutex::default(),
        }
    }

    /// Counts a request. As with ingress-nginx, one that no route was found for counts for nothing.
    pub(crate) fn count(
        &self,
        context: &RequestContext,
        outcome: &Outcome<'_>,
        status: StatusCode,
        elapsed: Duration,
        budget: &SeriesBudget,
    ) {
        let Some(route) = &context.route else { return };
        let target = context.target.as_ref();
        let method = known_method(outcome.request.method);
        let key = Key {
            route: Arc::as_ptr(route).addr(),
            backend: target.map(|target| target.slot),
            method,
            status,
        };
        let service = target.map(|target| &*target.backend.id.service);
        let make = || self.series(context, route, method, status, budget);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let series = known.entry(key).or_insert_with(make);
        if series.service.as_deref() != service {
            *series = make();
        }
        series.requests.increment(1);
        series.seconds.record(elapsed.as_secs_f64());
        series
            .received
            .record(size(context.header_bytes + outcome.received));
        series.sent.record(size(outcome.sent));
        series.bytes_sent.record(size(outcome.sent));
        let Some(last) = context.tries.last() else {
            return;
        };
        for (histogram, time) in [
            (&series.connect, last.connected),
            (&series.header, last.header),
            (&series.response, last.ended),
        ] {
            if let Some(time) = time {
                histogram.record(time.as_secs_f64());
            }
        }
    }

    /// Forgets routes that are in no table any more. Returns how many combinations are left.
    pub(crate) fn forget_gone(&self) -> usize {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, series| series.route.strong_count() > 0);
        known.len()
    }

    fn series(
        &self,
        context: &RequestContext,
        route: &Arc<CompiledRoute>,
        method: &'static str,
        status: StatusCode,
        budget: &SeriesBudget,
    ) -> Series {
        let asked = Asked::by(context);
        let main = asked.main.map(Named::service).unwrap_or_default();
        let canary = asked.canary.map(|named| named.to_string());
        let canary = canary.unwrap_or_default();
        let object = &route.origin.object;
        let host = match &route.host {
            model::HostPattern::Any => "_".to_owned(),
            host @ (model::HostPattern::Exact(_) | model::HostPattern::Wildcard { .. }) => {
                host.to_string()
            }
        };
        let mut values = [
            ("status", status.as_str().to_owned()),
            ("method", method.to_owned()),
            ("path", path(&route.path)),
            ("namespace", object.namespace.to_string()),
            ("ingress", object.name.to_string()),
            ("service", main.to_owned()),
            ("canary", canary),
            ("host", host),
        ];
        let texts = values.iter().map(|(_, value)| value.as_str());
        let texts: Vec<&str> = ["nginx"].into_iter().chain(texts).collect();
        let admitted = budget.admit(&texts);
        if !admitted {
            for (name, value) in &mut values {
                match *name {
                    "status" => {}
                    "host" => OVERFLOW.clone_into(value),
                    _ => value.clear(),
                }
            }
        }
        let own = values
            .into_iter()
            .map(|(name, value)| Label::new(name, value));
        let labels: Vec<Label> = self.labels.iter().cloned().chain(own).collect();
        let target = context.target.as_ref();
        Series {
            route: Arc::downgrade(route),
            service: target.map(|target| target.backend.id.service.clone()),
            requests: counter!(REQUESTS, labels.iter()),
            seconds: histogram!(REQUEST_SECONDS, labels.iter()),
            connect: histogram!(CONNECT_SECONDS, labels.iter()),
            header: histogram!(HEADER_SECONDS, labels.iter()),
            response: histogram!(RESPONSE_SECONDS, labels.iter()),
            received: histogram!(REQUEST_SIZE, labels.iter()),
            sent: histogram!(RESPONSE_SIZE, labels.iter()),
            bytes_sent: histogram!(BYTES_SENT, labels.iter()),
        }
    }
}

/// The method as a label. Clients make up names; those that are no standard ones share one series, so that memory is bounded.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::CONNECT => "CONNECT",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::PATCH => "PATCH",
        _ => OVERFLOW,
    }
}

/// The path as the Ingress has it.
fn path(path: &PathMatch) -> String {
    match path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) => path.as_str().to_owned(),
        PathMatch::Regex(text) => text.strip_prefix("(?i)").unwrap_or(text).to_owned(),
    }
}
