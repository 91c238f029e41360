//! Names of the data plane's metrics, and the counting of requests.

mod meter;
mod nginx;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub(crate) use meter::{BackendSeries, Meter, OVERFLOW, SeriesBudget};
pub(crate) use nginx::NginxMeter;
pub use nginx::{NGINX_BUCKETS, describe_nginx_metrics};

/// Requests answered.
pub(crate) const REQUESTS: &str = "lockgate_requests_total";
/// From the header section of a request to the end of its response.
pub(crate) const REQUEST_SECONDS: &str = "lockgate_request_duration_seconds";
/// From the choice of an endpoint to the header section of its response.
pub(crate) const UPSTREAM_SECONDS: &str = "lockgate_upstream_response_duration_seconds";
/// Size of requests.
pub(crate) const REQUEST_BYTES: &str = "lockgate_request_size_bytes";
/// Size of response bodies.
pub(crate) const RESPONSE_BYTES: &str = "lockgate_response_size_bytes";
/// Responses that Lockgate made itself, or could not finish.
pub(crate) const GENERATED: &str = "lockgate_generated_responses_total";
/// Connections made to endpoints.
pub(crate) const UPSTREAM_CONNECTS: &str = "lockgate_upstream_connects_total";
/// Requests sent on a connection that was there already.
pub(crate) const UPSTREAM_REUSES: &str = "lockgate_upstream_connection_reuses_total";
/// Connections to endpoints that could not be made.
pub(crate) const UPSTREAM_CONNECT_ERRORS: &str = "lockgate_upstream_connect_errors_total";
/// Requests sent to another endpoint, or again.
pub(crate) const UPSTREAM_RETRIES: &str = "lockgate_upstream_retries_total";
/// Requests that were not sent to another endpoint because too many had been.
pub(crate) const UPSTREAM_RETRIES_REFUSED: &str = "lockgate_upstream_retries_refused_total";
/// Copies of requests for other servers, by what became of them.
pub(crate) const MIRRORED: &str = "lockgate_mirrored_requests_total";
/// Access-log lines that were lost.
pub(crate) const LOG_DROPPED: &str = "lockgate_access_log_dropped_lines_total";
/// Label combinations that did not get a series.
pub(crate) const SERIES_OVERFLOW: &str = "lockgate_metric_series_overflow_total";
/// Connections accepted.
pub(crate) const CONNECTIONS: &str = "lockgate_connections_total";
/// Tasks that workers have.
pub(crate) const TASKS: &str = "lockgate_worker_tasks";
/// Connections open now.
pub(crate) const CONNECTIONS_OPEN: &str = "lockgate_connections_open";
/// Connections that ended before they could carry a request, without failures of TLS.
pub(crate) const CONNECTIONS_REFUSED: &str = "lockgate_connections_refused_total";
/// Connections that ended because the client was too slow, or wanted too much.
pub(crate) const CONNECTIONS_CUT: &str = "lockgate_connections_cut_total";
/// Failures of accept.
pub(crate) const ACCEPT_ERRORS: &str = "lockgate_accept_errors_total";
/// How short something is.
pub(crate) const OVERLOAD: &str = "lockgate_overload";
/// Times that something became short.
pub(crate) const OVERLOADS: &str = "lockgate_overloads_total";
/// TLS handshakes completed.
pub(crate) const TLS_HANDSHAKES: &str = "lockgate_tls_handshakes_total";
/// TLS handshakes failed.
pub(crate) const TLS_FAILURES: &str = "lockgate_tls_handshake_failures_total";
/// Duration of completed TLS handshakes.
pub(crate) const TLS_HANDSHAKE_SECONDS: &str = "lockgate_tls_handshake_duration_seconds";

/// Streams that have ended.
pub(crate) const STREAMS: &str = "lockgate_streams_total";
/// Streams that are open.
pub(crate) const STREAMS_OPEN: &str = "lockgate_streams_open";
/// Bytes of streams.
pub(crate) const STREAM_BYTES: &str = "lockgate_stream_bytes_total";
/// Datagrams that were not passed on.
pub(crate) const DATAGRAMS_DROPPED: &str = "lockgate_stream_dropped_datagrams_total";

/// Registers names, units and help texts with the `metrics` facade.
pub fn describe_metrics() {
    describe_requests();
    describe_upstream();
    describe_connections();
    describe_streams();
    describe_counter!(
        MIRRORED,
        "Copies of requests, by what became of them: `sent`, `failed`, or lost because there were too many (`busy`), their body was `too-large` or `incomplete`, or they were `unsendable`."
    );
    describe_counter!(
        LOG_DROPPED,
        "Access-log lines dropped because their reader was too slow."
    );
    describe_counter!(
        SERIES_OVERFLOW,
        "Label combinations beyond the limit; what they count goes to the host `_overflow`."
    );
}

fn describe_requests() {
    describe_counter!(
        REQUESTS,
        "Requests, by host and path of the route, namespace and Ingress that it came from, service and status."
    );
    describe_histogram!(
        REQUEST_SECONDS,
        Unit::Seconds,
        "Time from the header section of a request to the end of its response."
    );
    describe_histogram!(
        UPSTREAM_SECONDS,
        Unit::Seconds,
        "Time from the choice of an endpoint to the header section of its response; of the last try."
    );
    describe_histogram!(
        REQUEST_BYTES,
        Unit::Bytes,
        "Size of requests, header section and body."
    );
    describe_histogram!(RESPONSE_BYTES, Unit::Bytes, "Size of response bodies.");
    describe_counter!(
        GENERATED,
        "Responses that Lockgate made itself or could not finish, by reason, whose fault it was, and status."
    );
}

fn describe_upstream() {
    describe_counter!(
        UPSTREAM_CONNECTS,
        "Connections made to endpoints, by namespace, service and port."
    );
    describe_counter!(
        UPSTREAM_REUSES,
        "Requests sent on a connection that was there already, by namespace, service and port."
    );
    describe_counter!(
        UPSTREAM_CONNECT_ERRORS,
        "Connections to endpoints that could not be made, by namespace, service, port and reason."
    );
    describe_counter!(
        UPSTREAM_RETRIES,
        "Requests sent to another endpoint or again, by namespace, service and port."
    );
    describe_counter!(
        UPSTREAM_RETRIES_REFUSED,
        "Requests that failed without a further try because a fifth of the requests, and ten per second, had been \
         sent again already, by namespace, service and port."
    );
}

fn describe_connections() {
    describe_counter!(CONNECTIONS, "Client connections accepted, by listener.");
    describe_gauge!(CONNECTIONS_OPEN, "Client connections open, by listener.");
    describe_gauge!(
        TASKS,
        "Tasks of a worker, by its number: one for each connection and some more. Without clients they come back to a few."
    );
    describe_counter!(
        CONNECTIONS_REFUSED,
        "Client connections that ended before they could carry a request, by listener and reason."
    );
    describe_counter!(
        CONNECTIONS_CUT,
        "Client connections ended by a deadline or another limit, by listener and reason."
    );
    describe_counter!(
        ACCEPT_ERRORS,
        "Failures to accept a connection, by listener."
    );
    describe_gauge!(
        OVERLOAD,
        "How short something is, by resource: for `connections` 1 while more than fifteen sixteenths of them are in use; for `memory` 1 while idle connections are closed and 2 while few are accepted."
    );
    describe_counter!(OVERLOADS, "Times that something became short, by resource.");
    describe_counter!(
        TLS_HANDSHAKES,
        "TLS handshakes completed, by version and resumption."
    );
    describe_counter!(
        TLS_FAILURES,
        "TLS handshakes failed, by listener and reason."
    );
    describe_histogram!(
        TLS_HANDSHAKE_SECONDS,
        Unit::Seconds,
        "Duration of completed TLS handshakes, from the first byte."
    );
}

fn describe_streams() {
    describe_counter!(
        STREAMS,
        "Streams (TCP, TLS that is passed on, UDP by client) that have ended, by entrance, namespace, service, port and reason."
    );
    describe_gauge!(
        STREAMS_OPEN,
        "Streams open, by entrance, namespace, service and port."
    );
    describe_counter!(
        STREAM_BYTES,
        Unit::Bytes,
        "Bytes of streams, by entrance, namespace, service, port and direction: `received` from clients or `sent` to them."
    );
    describe_counter!(
        DATAGRAMS_DROPPED,
        "Datagrams of UDP clients that were not passed on, by entrance and reason."
    );
}
