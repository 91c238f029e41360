//! Short ways to write models, shared by the tests of this crate.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses its own part of this, and a test may fail"
)]

use std::collections::BTreeSet;
use std::sync::Arc;

use http::{HeaderMap, Method};
use model::{
    Action, BackendId, Certificate, CertificateId, HostPattern, KeyAlgorithm, KeyFormat, Listener,
    ListenerName, ListenerProtocol, ListenerSelector, NormalPath, ObjectRef, Origin, PathMatch,
    PrivateKey, Redacted, Route, RouteMatch, RoutingModel, Timeouts, TlsHost, TlsPolicy,
    VirtualHost, WeightedBackend,
};
use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};
use table::{CompiledRoute, Lookup, Table};

pub(crate) fn pattern(text: &str) -> HostPattern {
    HostPattern::parse(text).unwrap()
}

pub(crate) fn origin(field: &str) -> Origin {
    Origin::new(ObjectRef::new("Ingress", "shop", "web"), field)
}

pub(crate) fn backend(service: &str) -> BackendId {
    BackendId::new("shop", service, "http")
}

/// `= /a` is exact, `~ /a` a regular expression, anything else a prefix.
pub(crate) fn path(text: &str) -> PathMatch {
    if let Some(text) = text.strip_prefix("= ") {
        PathMatch::Exact(NormalPath::parse(text).unwrap())
    } else if let Some(text) = text.strip_prefix("~ ") {
        PathMatch::Regex(text.to_owned())
    } else {
        PathMatch::Prefix(NormalPath::parse(text).unwrap())
    }
}

/// A route that forwards to the service `to`. Its origin's field is `to` as well.
pub(crate) fn route(matches: RouteMatch, to: &str) -> Route {
    Route {
        matches,
        listeners: ListenerSelector::All,
        filters: model::Filters::default(),
        action: Action::Forward(vec![WeightedBackend {
            backend: backend(to),
            weight: 1,
        }]),
        timeouts: Timeouts::default(),
        body_limit: None,
        options: model::RareOptions::default(),
        origin: origin(to),
    }
}

pub(crate) fn only(names: &[&str]) -> ListenerSelector {
    ListenerSelector::Only(names.iter().map(|name| ListenerName::new(name)).collect())
}

/// A model with the two listeners of the Ingress API.
pub(crate) fn empty_model() -> RoutingModel {
    let mut model = RoutingModel::default();
    for (name, protocol) in [
        (ListenerName::http(), ListenerProtocol::Http),
        (ListenerName::https(), ListenerProtocol::Https),
    ] {
        model.listeners.insert(name, Listener { protocol });
    }
    model
}

pub(crate) fn add_host(model: &mut RoutingModel, host: &str, routes: Vec<Route>) {
    let host = pattern(host);
    model.hosts.insert(host, Arc::new(VirtualHost { routes }));
}

/// The route for a plain GET on the listener `http`.
pub(crate) fn get<'a>(table: &'a Table, host: &str, path: &str) -> Option<&'a CompiledRoute> {
    let request = Lookup {
        listener: table.listener(&ListenerName::http()).unwrap(),
        host,
        path,
        query: None,
        method: &Method::GET,
        headers: &HeaderMap::new(),
    };
    table.lookup(&request).map(|route| &**route)
}

/// The field of the origin of that route: what [`route`] was told.
pub(crate) fn winner<'a>(table: &'a Table, host: &str, path: &str) -> Option<&'a str> {
    get(table, host, path).map(|route| &*route.origin.field)
}

pub(crate) const ALGORITHMS: [(KeyAlgorithm, &SignatureAlgorithm); 3] = [
    (KeyAlgorithm::Ecdsa, &rcgen::PKCS_ECDSA_P256_SHA256),
    (KeyAlgorithm::Ed25519, &rcgen::PKCS_ED25519),
    (KeyAlgorithm::Rsa, &rcgen::PKCS_RSA_SHA256),
];

/// A new self-signed certificate. `serial` makes its fingerprint recognisable.
pub(crate) fn certificate(algorithm: KeyAlgorithm, names: &[&str], serial: &str) -> Certificate {
    let (_, signature) = ALGORITHMS
        .into_iter()
        .find(|(known, _)| *known == algorithm)
        .unwrap();
    let key = KeyPair::generate_for(signature).unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let params = CertificateParams::new(names.clone()).unwrap();
    let signed = params.self_signed(&key).unwrap();
    Certificate {
        chain: vec![signed.der().to_vec()],
        key: PrivateKey {
            format: KeyFormat::Pkcs8,
            der: Redacted::new(key.serialize_der()),
        },
        algorithm,
        names,
        not_before: 0,
        not_after: i64::from(u32::MAX),
        fingerprint: serial.to_owned(),
        origin: Origin::new(ObjectRef::new("Secret", "shop", serial), ""),
    }
}

pub(crate) fn tls_host(certificates: &[&str], policy: TlsPolicy) -> Arc<TlsHost> {
    Arc::new(TlsHost {
        certificates: certificates
            .iter()
            .map(|id| CertificateId::new(id))
            .collect(),
        policy,
        origin: origin("spec.tls[0]"),
    })
}

pub(crate) fn names(listeners: &[&str]) -> BTreeSet<ListenerName> {
    listeners
        .iter()
        .map(|name| ListenerName::new(name))
        .collect()
}
