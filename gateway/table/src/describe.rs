//! What a table holds, as values for people, tests and debug pages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{
    BackendId, BackendProtocol, CertificateId, ClientBounds, ClientTrust, EndpointSet, Filter,
    Health, HostPattern, KeyAlgorithm, ListenerName, ListenerSelector, LogFormat, Origin,
    RareOptions, Redirect, Route, RouteMatch, Streams, Timeouts, TlsPolicy,
};
use serde::Serialize;

use crate::Table;
use crate::hosts::Patterned;
use crate::listeners::ListenerMask;
use crate::paths::Specificity;
use crate::route::{CompiledAction, CompiledRoute};
use crate::tls::TlsState;

/// Everything that a table holds, in one order. Two tables that serve alike have equal descriptions, however they
/// came to be; private keys are not in it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Description {
    /// Where connections arrive.
    pub listeners: BTreeSet<ListenerName>,
    /// Routes by host, the most specific first.
    pub hosts: BTreeMap<HostPattern, Vec<RouteDescription>>,
    /// What answers when no route matches.
    pub fallback: Option<RouteDescription>,
    /// Every backend that the model has or a route names; `None` for those that only a route names.
    pub backends: BTreeMap<BackendId, Option<BackendDescription>>,
    /// TLS by server name.
    pub tls: BTreeMap<HostPattern, TlsDescription>,
    /// TLS for other names.
    pub default_tls: Option<TlsDescription>,
    /// Every certificate of the model.
    pub certificates: BTreeMap<CertificateId, CertificateDescription>,
    /// Whose word about the client is believed.
    pub trust: ClientTrust,
    /// Limits on clients, as far as somebody has said something about them.
    #[serde(skip_serializing_if = "ClientBounds::is_empty")]
    pub client_bounds: ClientBounds,
    /// What is passed on unread.
    #[serde(skip_serializing_if = "Streams::is_empty")]
    pub streams: Streams,
    /// Lines of the access log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,
}

/// One route.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct RouteDescription {
    /// Which requests.
    pub matches: RouteMatch,
    /// On which listeners.
    pub listeners: ListenerSelector,
    /// What happens on the way.
    pub filters: Vec<Filter>,
    /// What answers.
    pub action: ActionDescription,
    /// How long to wait for the backend.
    pub timeouts: Timeouts,
    /// The largest request body in bytes.
    pub body_limit: Option<u64>,
    /// What few routes ask for.
    #[serde(skip_serializing_if = "RareOptions::is_default")]
    pub options: RareOptions,
    /// Where it was asked for.
    pub origin: Origin,
}

/// What answers.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ActionDescription {
    /// Backends with their weights.
    Forward(Vec<(BackendId, u32)>),
    /// A redirect.
    Redirect(Box<Redirect>),
    /// The gateway itself.
    Respond {
        /// The status.
        status: u16,
        /// The reason in log and metrics.
        reason: String,
    },
}

/// One backend.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct BackendDescription {
    /// What is spoken to it.
    pub protocol: BackendProtocol,
    /// How its endpoints are watched over, where that is not as usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Arc<Health>>,
    /// Its endpoints.
    pub endpoints: Arc<EndpointSet>,
}

/// TLS for the names of one pattern.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct TlsDescription {
    /// The certificates that serve, with the fingerprint of each, in order of preference.
    pub certificates: Vec<(CertificateId, String)>,
    /// They are those of the default, for want of own ones that can be used.
    pub by_default: bool,
    /// Are handshakes refused? Without any certificate, and when the policy cannot be followed.
    pub refused: bool,
    /// Versions, ciphers, protocols.
    pub policy: TlsPolicy,
    /// Where it was asked for.
    pub origin: Origin,
}

/// One certificate.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct CertificateDescription {
    /// Names in it.
    pub names: Vec<String>,
    /// What its key signs with.
    pub algorithm: KeyAlgorithm,
    /// Valid from, in seconds since 1970.
    pub not_before: i64,
    /// Valid until, in seconds since 1970.
    pub not_after: i64,
    /// SHA-256 in lower-case hexadecimal.
    pub fingerprint: String,
    /// Can it be used?
    pub usable: bool,
    /// The object that holds it.
    pub origin: Origin,
}

impl Table {
    /// Everything that the table holds. Takes time in proportion to it.
    pub fn describe(&self) -> Description {
        let hosts = self.hosts.iter().map(|host| {
            let rules = host.paths.rules().into_iter();
            let ranked: BTreeMap<_, _> = rules
                .filter_map(|rule| {
                    let source = host.source.routes.get(rule.position)?;
                    let rank = Specificity::of(&source.matches, rule.position);
                    let route = self.describe_route(source, rule.listeners, &rule.route);
                    Some((rank, route))
                })
                .collect();
            (host.pattern().clone(), ranked.into_values().collect())
        });
        let backends = self.backends.iter().map(|(id, backend)| {
            let description = backend.map(|backend| BackendDescription {
                protocol: backend.protocol,
                health: backend.health.clone(),
                endpoints: Arc::clone(&backend.endpoints),
            });
            (id.clone(), description)
        });
        let tls = self
            .tls
            .hosts()
            .map(|state| (state.pattern().clone(), describe_tls(state)));
        let certificates = self.tls.certificates().map(|certificate| {
            let source = &certificate.source;
            let description = CertificateDescription {
                names: source.names.clone(),
                algorithm: source.algorithm,
                not_before: source.not_before,
                not_after: source.not_after,
                fingerprint: source.fingerprint.clone(),
                usable: certificate.key.is_some(),
                origin: source.origin.clone(),
            };
            (certificate.id.clone(), description)
        });
        Description {
            listeners: self.listeners.names().cloned().collect(),
            hosts: hosts.collect(),
            fallback: self.fallback.as_ref().map(|fallback| {
                self.describe_route(&fallback.source, ListenerMask::ALL, &fallback.route)
            }),
            backends: backends.collect(),
            tls: tls.collect(),
            default_tls: self.tls.default().map(|state| describe_tls(state)),
            certificates: certificates.collect(),
            trust: ClientTrust::clone(&self.trust),
            client_bounds: *self.client_bounds,
            streams: self.streams.source.clone(),
            log_format: self
                .log_format
                .as_ref()
                .map(|format| LogFormat::clone(&format.source)),
        }
    }

    fn describe_route(
        &self,
        source: &Route,
        listeners: ListenerMask,
        compiled: &CompiledRoute,
    ) -> RouteDescription {
        let action = match &compiled.action {
            CompiledAction::Forward(targets) => {
                let targets = targets.iter().filter_map(|(slot, weight)| {
                    let id = self.backends.id(slot)?;
                    Some((id.clone(), weight))
                });
                ActionDescription::Forward(targets.collect())
            }
            CompiledAction::Redirect(redirect) => ActionDescription::Redirect(redirect.clone()),
            CompiledAction::Respond { status, reason } => ActionDescription::Respond {
                status: status.as_u16(),
                reason: reason.as_ref().to_owned(),
            },
        };
        // A route that could not be compiled has lost its filters.
        let filters = if compiled.filters.len() == source.filters.len() {
            source.filters.to_vec()
        } else {
            Vec::new()
        };
        RouteDescription {
            matches: source.matches.clone(),
            listeners: self.listeners.selector(listeners),
            filters,
            action,
            timeouts: compiled.timeouts,
            body_limit: compiled.body_limit,
            options: if compiled.options.is_some() {
                source.options.clone()
            } else {
                RareOptions::default()
            },
            origin: compiled.origin.clone(),
        }
    }
}

fn describe_tls(state: &TlsState) -> TlsDescription {
    let certificates = state.served.iter().map(|certificate| {
        let fingerprint = certificate.source.fingerprint.clone();
        (certificate.id.clone(), fingerprint)
    });
    TlsDescription {
        certificates: certificates.collect(),
        by_default: state.by_default,
        refused: state.entry.is_none(),
        policy: state.source.policy.clone(),
        origin: state.source.origin.clone(),
    }
}
