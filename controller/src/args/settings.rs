//! The settings that the command line amounts to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::{ADMIN_PORT, AccessLogFormat, Compat, RunArgs, ScopeArgs, Switch};
use crate::app;
use crate::telemetry::LogFormat;

impl RunArgs {
    /// How log lines are to be written.
    pub fn log_format(&self) -> LogFormat {
        self.observe
            .log_format
            .unwrap_or(match self.source.manifests {
                Some(_) => LogFormat::Text,
                None => LogFormat::Json,
            })
    }

    /// The settings of the process.
    pub fn settings(self) -> app::Settings {
        let log_format = self.log_format();
        let Self {
            source,
            scope,
            listen,
            limits,
            status,
            admission,
            shutdown,
            observe,
        } = self;
        let local = source.manifests.is_some();
        let everywhere = if local {
            Ipv4Addr::LOCALHOST
        } else {
            Ipv4Addr::UNSPECIFIED
        };
        let admin = listen
            .admin_listen
            .unwrap_or_else(|| SocketAddr::new(IpAddr::V4(everywhere), ADMIN_PORT));
        let own = listen.http_listen.iter().chain(&listen.https_listen);
        let own = own.chain(&admission.admission_listen);
        let own_ports = own.chain([&admin]).map(SocketAddr::port);
        app::Settings {
            translation: translate::Settings {
                adopt_default_class: local,
                allow_loopback_endpoints: local,
                header_configmaps: if local {
                    None
                } else {
                    Some(scope.header_configmaps.iter().cloned().collect())
                },
                admission_secret: admission.admission_secret,
                own_ports: own_ports.filter(|port| *port > 0).collect(),
                ..scope.translation()
            },
            source: match source.manifests {
                Some(folder) => app::Source::Manifests(folder),
                None => app::Source::Cluster(app::ClusterSettings {
                    kubeconfig: source.kubeconfig,
                    publish_service: status.publish_service,
                    publish_status_address: status.publish_status_address,
                    election_id: status.election_id,
                }),
            },
            listen: app::Listen {
                http: listen.http_listen,
                https: listen.https_listen,
                admin,
                admission: admission.admission_listen,
            },
            serve: app::Serve {
                workers: listen.workers,
                max_connections: listen.max_connections,
                memory: listen.max_memory,
                limits: limits.limits(),
                engine: listen.engine,
                max_series: observe.max_metric_series,
                access_log: (observe.access_log == Switch::On).then_some(
                    match observe.access_log_format {
                        None => log_format,
                        Some(AccessLogFormat::Json) => LogFormat::Json,
                        Some(AccessLogFormat::Nginx) => LogFormat::Text,
                    },
                ),
                metrics_names: observe.metrics_names,
            },
            takeover: listen.takeover_socket,
            shutdown_delay: shutdown.shutdown_delay.unwrap_or(if local {
                Duration::ZERO
            } else {
                Duration::from_secs(10)
            }),
            drain_timeout: shutdown.drain_timeout,
        }
    }
}

impl ScopeArgs {
    /// The settings of translation for objects from an API server.
    pub fn translation(self) -> translate::Settings {
        translate::Settings {
            controller_name: self.controller_name,
            ingress_class: self.ingress_class,
            watch_without_class: self.watch_ingress_without_class,
            annotation_prefixes: self
                .annotations_prefix
                .iter()
                .map(|prefix| prefix.trim_end_matches('/').to_owned())
                .collect(),
            watch_namespaces: self.watch_namespace.into_iter().collect(),
            configmap: self.configmap,
            header_configmaps: Some(self.header_configmaps.into_iter().collect()),
            ssl_passthrough: self.enable_ssl_passthrough,
            tcp_services: self.tcp_services_configmap,
            udp_services: self.udp_services_configmap,
            default_certificate_secret: self.default_ssl_certificate,
            default_backend_service: self.default_backend_service,
            locality: translate::Locality {
                node: said(self.node_name),
                zone: said(self.zone),
            },
            compat: self.compat.map(|compat| match compat {
                Compat::Nginx => translate::Compat::Nginx,
                Compat::Strict => translate::Compat::Strict,
            }),
            ..translate::Settings::default()
        }
    }
}

/// A variable that is there and empty says nothing, as where a pod has no such label.
fn said(text: Option<String>) -> Option<Box<str>> {
    let text = text.filter(|text| !text.trim().is_empty())?;
    Some(text.trim().into())
}
