//! A model of a given size, as a large cluster would have it.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each program uses its own part of this, and has nothing to recover from"
)]

use std::sync::Arc;

use model::{
    Action, Backend, BackendId, BackendProtocol, Certificate, CertificateId, Endpoint, EndpointSet,
    HostPattern, KeyAlgorithm, KeyFormat, Listener, ListenerName, ListenerProtocol,
    ListenerSelector, NormalPath, ObjectRef, Origin, PathMatch, PrivateKey, Redacted, Route,
    RouteMatch, RoutingModel, Timeouts, TlsHost, TlsPolicy, VirtualHost, WeightedBackend,
};
use rcgen::{CertificateParams, KeyPair};

pub(crate) const HOSTS: u32 = 10_000;
pub(crate) const ENDPOINTS_PER_BACKEND: u32 = 5;
pub(crate) const CERTIFICATES: u32 = 5_000;

pub(crate) fn host(n: u32) -> String {
    format!("host-{n}.apps.example.test")
}

pub(crate) fn pattern(text: &str) -> HostPattern {
    HostPattern::parse(text).unwrap()
}

pub(crate) fn backend(n: u32) -> BackendId {
    BackendId::new(
        &format!("team-{}", n % 100),
        &format!("service-{n}"),
        "http",
    )
}

pub(crate) fn route(path: PathMatch, to: u32) -> Route {
    let namespace = format!("team-{}", to % 100);
    let ingress = ObjectRef::new("Ingress", &namespace, &format!("ingress-{to}"));
    Route {
        matches: RouteMatch::path(path),
        listeners: ListenerSelector::All,
        filters: model::Filters::default(),
        action: Action::Forward(vec![WeightedBackend {
            backend: backend(to),
            weight: 1,
        }]),
        timeouts: Timeouts::default(),
        body_limit: None,
        options: model::RareOptions::default(),
        origin: Origin::new(ingress, "spec.rules[0].http.paths[0]"),
    }
}

pub(crate) fn prefix(text: &str) -> PathMatch {
    PathMatch::Prefix(NormalPath::parse(text).unwrap())
}

pub(crate) fn exact(text: &str) -> PathMatch {
    PathMatch::Exact(NormalPath::parse(text).unwrap())
}

/// `hosts` hosts with two paths each.
pub(crate) fn routes(hosts: u32) -> RoutingModel {
    let mut model = RoutingModel::default();
    for (name, protocol) in [
        (ListenerName::http(), ListenerProtocol::Http),
        (ListenerName::https(), ListenerProtocol::Https),
    ] {
        model.listeners.insert(name, Listener { protocol });
    }
    for n in 0..hosts {
        let routes = vec![route(prefix("/"), n), route(prefix("/api"), n)];
        let host = Arc::new(VirtualHost { routes });
        model.hosts.insert(pattern(&self::host(n)), host);
    }
    model
}

pub(crate) fn endpoints(n: u32, revision: u8) -> Arc<EndpointSet> {
    let addresses = (0..ENDPOINTS_PER_BACKEND).map(|m| {
        let [_, a, b, c] = (n * ENDPOINTS_PER_BACKEND + m).to_be_bytes();
        Endpoint::new(([10 + revision + a, 1 + a, b, c], 8080).into())
    });
    Arc::new(EndpointSet::Addresses(addresses.collect()))
}

/// A leaf for `name` and an issuer to fill the chain.
pub(crate) fn certificate(rsa: bool, name: &str) -> Certificate {
    let (algorithm, signature) = if rsa {
        (KeyAlgorithm::Rsa, &rcgen::PKCS_RSA_SHA256)
    } else {
        (KeyAlgorithm::Ecdsa, &rcgen::PKCS_ECDSA_P256_SHA256)
    };
    let signed = || {
        let key = KeyPair::generate_for(signature).unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        (key.serialize_der(), der)
    };
    let (key, leaf) = signed();
    let (_, issuer) = signed();
    Certificate {
        chain: vec![leaf, issuer],
        key: PrivateKey {
            format: KeyFormat::Pkcs8,
            der: Redacted::new(key),
        },
        algorithm,
        names: vec![name.to_owned()],
        not_before: 0,
        not_after: i64::from(u32::MAX),
        fingerprint: "0".repeat(64),
        origin: Origin::default(),
    }
}

pub(crate) fn certificate_id(n: u32) -> CertificateId {
    CertificateId::secret(&format!("team-{}", n % 100), &format!("tls-{n}"))
}

/// 10,000 hosts, 10,000 backends with 50,000 endpoints, 5,000 certificates.
///
/// The certificates are copies of eight, half of them RSA; each copy takes the memory of a certificate of its own.
pub(crate) fn full() -> RoutingModel {
    let mut model = routes(HOSTS);
    let keys: Vec<_> = (0..8)
        .map(|n| certificate(n % 2 == 0, "*.apps.example.test"))
        .collect();
    for n in 0..HOSTS {
        let lasting = Backend {
            protocol: BackendProtocol::Http1,
            seed: None,
            health: None,
            origin: Origin::default(),
        };
        model.backends.insert(backend(n), Arc::new(lasting));
        model.endpoints.insert(backend(n), endpoints(n, 0));
    }
    for (n, key) in (0..CERTIFICATES).zip(keys.iter().cycle()) {
        model
            .certificates
            .insert(certificate_id(n), Arc::new(key.clone()));
        let tls = TlsHost {
            certificates: vec![certificate_id(n)],
            policy: TlsPolicy::default(),
            origin: Origin::default(),
        };
        model.tls_hosts.insert(pattern(&host(n)), Arc::new(tls));
    }
    model
}
