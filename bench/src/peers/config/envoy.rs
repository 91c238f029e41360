//! Envoy.

use std::ffi::OsString;
use std::net::SocketAddr;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Setting, To, arguments};

const HTTP: &str = "type.googleapis.com/envoy.extensions";

/// Writes the configuration; gives the arguments.
pub(in crate::peers) fn envoy(setting: &Setting<'_>) -> Result<Vec<OsString>> {
    let keys = setting.key_files()?;
    let certificates: Vec<Value> = keys
        .iter()
        .map(|files| {
            json!({
                "certificate_chain": {"filename": files.certificate},
                "private_key": {"filename": files.key},
            })
        })
        .collect();
    let tls = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": format!("{HTTP}.transport_sockets.tls.v3.DownstreamTlsContext"),
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
                "tls_certificates": certificates,
            },
        },
    });
    let manager = manager(setting);
    let config = json!({
        "static_resources": {
            "listeners": [
                listener("http", setting.http, &manager, None),
                listener("https", setting.https, &manager, Some(&tls)),
            ],
            "clusters": To::ALL.map(|to| cluster(to, setting.address(to))),
        },
    });
    let file = setting.write("envoy.json", &config.to_string())?;
    Ok(arguments([
        "-c".as_ref(),
        file.as_ref(),
        "--concurrency".as_ref(),
        "1".as_ref(),
        "--disable-hot-restart".as_ref(),
        "--log-level".as_ref(),
        "error".as_ref(),
    ]))
}

fn manager(setting: &Setting<'_>) -> Value {
    let hosts: Vec<Value> = setting
        .hosts()
        .into_iter()
        .map(|(host, rules)| {
            let routes: Vec<Value> = rules
                .iter()
                .map(|rule| {
                    json!({
                        "match": {"prefix": rule.path},
                        "route": {"cluster": rule.to.name(), "timeout": "0s"},
                    })
                })
                .collect();
            json!({"name": host, "domains": [host], "routes": routes})
        })
        .collect();
    let log = json!([{
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": format!("{HTTP}.access_loggers.file.v3.FileAccessLog"),
            "path": setting.log_file(),
        },
    }]);
    json!({
        "@type": format!("{HTTP}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "bench",
        "use_remote_address": true,
        "common_http_protocol_options": {"idle_timeout": "300s"},
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "access_log": if setting.logged { log } else { json!([]) },
        "route_config": {
            "virtual_hosts": hosts,
            "request_headers_to_add": [
                {"header": {"key": "x-forwarded-host", "value": "%REQ(:AUTHORITY)%"}},
            ],
        },
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": format!("{HTTP}.filters.http.router.v3.Router")},
        }],
    })
}

fn listener(name: &str, address: SocketAddr, manager: &Value, tls: Option<&Value>) -> Value {
    let mut chain = json!({
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
    });
    if let (Some(tls), Some(chain)) = (tls, chain.as_object_mut()) {
        chain.insert("transport_socket".to_owned(), tls.clone());
    }
    json!({"name": name, "address": socket(address), "filter_chains": [chain]})
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip(), "port_value": address.port()}})
}

fn cluster(to: To, address: SocketAddr) -> Value {
    let protocol = if to == To::Grpc {
        "http2_protocol_options"
    } else {
        "http_protocol_options"
    };
    let much = 1_000_000;
    json!({
        "name": to.name(),
        "type": "STATIC",
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": format!("{HTTP}.upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": {protocol: {}},
            },
        },
        "circuit_breakers": {"thresholds": [{
            "max_connections": much, "max_pending_requests": much, "max_requests": much, "max_retries": much,
        }]},
        "load_assignment": {
            "cluster_name": to.name(),
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(address)}}]}],
        },
    })
}
