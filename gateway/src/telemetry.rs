//! Names of the data plane's metrics.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Connections accepted.
pub(crate) const CONNECTIONS: &str = "lockgate_connections_total";
/// Connections open now.
pub(crate) const CONNECTIONS_OPEN: &str = "lockgate_connections_open";
/// Connections that ended before they could carry a request, without failures of TLS.
pub(crate) const CONNECTIONS_REFUSED: &str = "lockgate_connections_refused_total";
/// Connections that ended because the client was too slow.
pub(crate) const CONNECTIONS_CUT: &str = "lockgate_connections_cut_total";
/// Failures of accept.
pub(crate) const ACCEPT_ERRORS: &str = "lockgate_accept_errors_total";
/// TLS handshakes completed.
pub(crate) const TLS_HANDSHAKES: &str = "lockgate_tls_handshakes_total";
/// TLS handshakes failed.
pub(crate) const TLS_FAILURES: &str = "lockgate_tls_handshake_failures_total";
/// Duration of completed TLS handshakes.
pub(crate) const TLS_HANDSHAKE_SECONDS: &str = "lockgate_tls_handshake_duration_seconds";

/// Registers names, units and help texts with the `metrics` facade.
pub fn describe_metrics() {
    describe_counter!(CONNECTIONS, "Client connections accepted, by listener.");
    describe_gauge!(CONNECTIONS_OPEN, "Client connections open, by listener.");
    describe_counter!(
        CONNECTIONS_REFUSED,
        "Client connections that ended before they could carry a request, by listener and reason."
    );
    describe_counter!(
        CONNECTIONS_CUT,
        "Client connections ended by a deadline, by listener and reason."
    );
    describe_counter!(
        ACCEPT_ERRORS,
        "Failures to accept a connection, by listener."
    );
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
