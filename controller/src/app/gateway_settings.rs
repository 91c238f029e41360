//! What the settings of the process are for its gateway.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use gateway::NginxLabels;

use super::{ClientLimits, Engine, MetricsNames, Serve, Settings, Source};
use crate::nginx_metrics::Labels;
use crate::telemetry::LogFormat;

pub(super) fn gateway_settings(
    http: Vec<SocketAddr>,
    https: Vec<SocketAddr>,
    serve: &Serve,
    stream_farewell: Duration,
    nginx_metrics: Option<NginxLabels>,
) -> gateway::Settings {
    let defaults = gateway::Settings::default();
    let mut port_addresses: Vec<IpAddr> = http.iter().map(SocketAddr::ip).collect();
    port_addresses.sort_unstable();
    port_addresses.dedup();
    gateway::Settings {
        http,
        https,
        port_addresses,
        stream_farewell,
        workers: serve.workers.unwrap_or(defaults.workers),
        engine: gateway_engine(serve.engine),
        limits: gateway_limits(serve),
        access_log: serve.access_log.map(gateway_format),
        max_series: serve.max_series,
        nginx_metrics,
        ..defaults
    }
}

fn gateway_limits(serve: &Serve) -> gateway::Limits {
    let ClientLimits {
        connections_per_client,
        handshakes,
        proxy_header,
        client_hello,
        handshake,
        write,
        rate,
        header_fields,
        http2_resets,
        http2_control_frames,
    } = serve.limits;
    gateway::Limits {
        max_connections: serve.max_connections,
        max_connections_per_client: connections_per_client,
        max_handshakes: handshakes,
        proxy_header_timeout: proxy_header,
        client_hello_timeout: client_hello,
        handshake_timeout: handshake,
        write_timeout: write,
        min_client_rate: rate,
        max_headers: header_fields,
        h2_max_resets: http2_resets,
        h2_max_control_frames: http2_control_frames,
        ..gateway::Limits::default()
    }
}

/// The same the other way round.
pub(super) fn client_limits(limits: &gateway::Limits) -> ClientLimits {
    ClientLimits {
        connections_per_client: limits.max_connections_per_client,
        handshakes: limits.max_handshakes,
        proxy_header: limits.proxy_header_timeout,
        client_hello: limits.client_hello_timeout,
        handshake: limits.handshake_timeout,
        write: limits.write_timeout,
        rate: limits.min_client_rate,
        header_fields: limits.max_headers,
        http2_resets: limits.h2_max_resets,
        http2_control_frames: limits.h2_max_control_frames,
    }
}

/// What metrics under the names of ingress-nginx say about this process, and the Lease of its election.
pub(super) fn nginx_labels(settings: &Settings) -> Option<(Labels, String)> {
    match settings.serve.metrics_names {
        MetricsNames::Lockgate => return None,
        MetricsNames::Nginx => {}
    }
    let variable = |name| std::env::var(name).unwrap_or_default();
    let labels = Labels {
        class: settings.translation.controller_name.clone(),
        namespace: variable("POD_NAMESPACE"),
        pod: variable("POD_NAME"),
    };
    let election = match &settings.source {
        Source::Cluster(cluster) => cluster.election_id.clone(),
        Source::Manifests(_) => String::new(),
    };
    Some((labels, election))
}

pub(super) fn gateway_labels(labels: Labels) -> NginxLabels {
    NginxLabels {
        class: labels.class,
        namespace: labels.namespace,
        pod: labels.pod,
    }
}

fn gateway_engine(engine: Engine) -> gateway::Engine {
    match engine {
        Engine::Auto => gateway::Engine::Auto,
        Engine::Pingora => gateway::Engine::Pingora,
    }
}

fn gateway_format(format: LogFormat) -> gateway::LogFormat {
    match format {
        LogFormat::Json => gateway::LogFormat::Json,
        LogFormat::Text => gateway::LogFormat::Text,
    }
}
