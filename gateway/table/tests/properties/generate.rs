//! Random edits of a small world: few names, so that they meet often.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use model::{
    Action, Backend, BackendId, BackendProtocol, Certificate, CertificateId, Changes, Endpoint,
    EndpointSet, Filter, HeaderChange, HeaderMatch, KeyAlgorithm, Listener, ListenerName,
    ListenerProtocol, ListenerSelector, QueryMatch, Redirect, Route, RouteMatch, RoutingModel,
    StreamRoute, StreamRules, TextMatch, TlsHost, TlsPolicy, TlsVersion, VirtualHost,
    WeightedBackend,
};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::common::{backend, certificate, names, origin, path, pattern, tls_host};
use crate::reference::normal;

const PATTERNS: [&str; 9] = [
    "a.test",
    "b.a.test",
    "x.test",
    "*.test",
    "*.a.test",
    "**.test",
    "**.a.test",
    "**.b.a.test",
    "*",
];
pub(crate) const HOSTS: [&str; 9] = [
    "a.test",
    "b.a.test",
    "c.b.a.test",
    "d.c.b.a.test",
    "x.test",
    "y.test",
    "test",
    "other",
    "",
];
const SERVICES: [&str; 4] = ["one", "two", "three", "four"];
const CERTIFICATES: [&str; 4] = ["k", "l", "m", "n"];
const LISTENERS: [&str; 3] = ["http", "https", "internal"];
const REGEXES: [&str; 12] = [
    "/a", "/a.*", "/b|/a", "/[ab]+$", "/(a", "/.*b", "(?i)/A/B", "/a/", r"\w", "", "^/ab?/",
    "/a)|(?:b",
];

/// Certificates of which the first ones can be used. Making keys takes time.
static KEYS: LazyLock<Vec<Arc<Certificate>>> = LazyLock::new(|| {
    let good = |serial| certificate(KeyAlgorithm::Ecdsa, &["a.test"], serial);
    let ed25519 = certificate(KeyAlgorithm::Ed25519, &["a.test"], "good ed25519");
    let mut mismatched = good("mismatched");
    mismatched.key = ed25519.key.clone();
    let mut garbage = good("garbage");
    garbage.chain = vec![b"garbage".to_vec()];
    [good("good 1"), good("good 2"), ed25519, mismatched, garbage]
        .map(Arc::new)
        .into()
});

pub(crate) fn is_good(certificate: &Certificate) -> bool {
    certificate.fingerprint.starts_with("good")
}

/// One change of a model. `None` removes.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    Host(&'static str, Option<Vec<Route>>),
    TlsHost(&'static str, Option<Arc<TlsHost>>),
    DefaultTls(Option<Arc<TlsHost>>),
    Backend(&'static str, Option<BackendProtocol>),
    Endpoints(&'static str, Option<EndpointSet>),
    Certificate(&'static str, Option<usize>),
    Listeners(Vec<&'static str>),
    Fallback(Option<Box<Route>>),
    Trust(bool),
    Log(Option<&'static str>),
    Port(u16, Option<&'static str>),
    PassedOn(&'static str, Option<&'static str>),
}

/// Carries out `edits`. `count` gives every route an origin of its own.
pub(crate) fn apply(model: &mut RoutingModel, edits: &[Edit], count: &mut u32) {
    let mut numbered = |route: &Route| {
        *count += 1;
        Route {
            origin: origin(&count.to_string()),
            ..route.clone()
        }
    };
    for edit in edits {
        match edit {
            Edit::Host(host, routes) => {
                let host = pattern(host);
                match routes {
                    Some(routes) => {
                        let routes = routes.iter().map(&mut numbered).collect();
                        model.hosts.insert(host, Arc::new(VirtualHost { routes }));
                    }
                    None => drop(model.hosts.remove(&host)),
                }
            }
            Edit::TlsHost(host, tls) => set(&mut model.tls_hosts, pattern(host), tls.clone()),
            Edit::DefaultTls(tls) => model.default_tls.clone_from(tls),
            Edit::Backend(service, protocol) => {
                let lasting = protocol.map(|protocol| {
                    Arc::new(Backend {
                        protocol,
                        seed: None,
                        health: None,
                        origin: origin(service),
                    })
                });
                set(&mut model.backends, backend(service), lasting);
            }
            Edit::Endpoints(service, endpoints) => {
                let endpoints = endpoints.clone().map(Arc::new);
                set(&mut model.endpoints, backend(service), endpoints);
            }
            Edit::Certificate(id, key) => {
                let key = key.map(|key| Arc::clone(&KEYS[key]));
                set(&mut model.certificates, CertificateId::new(id), key);
            }
            Edit::Listeners(listeners) => {
                let protocol = ListenerProtocol::Http;
                model.listeners = names(listeners)
                    .into_iter()
                    .map(|name| (name, Listener { protocol }))
                    .collect();
            }
            Edit::Fallback(route) => {
                model.fallback = route.as_ref().map(|route| Arc::new(numbered(route)));
            }
            Edit::Trust(believed) => model.trust.append_forwarded_for = *believed,
            Edit::Log(text) => {
                model.log_format = text.map(|text| {
                    Arc::new(model::LogFormat {
                        text: text.to_owned(),
                        escape: model::LogEscape::default(),
                    })
                });
            }
            Edit::Port(port, service) => {
                set(&mut model.streams.tcp, *port, service.map(stream));
            }
            Edit::PassedOn(host, service) => {
                set(&mut model.streams.hosts, pattern(host), service.map(stream));
            }
        }
    }
}

fn stream(service: &'static str) -> Arc<StreamRoute> {
    Arc::new(StreamRoute {
        backend: backend(service),
        balance: model::Balance::default(),
        proxy_in: false,
        proxy_out: false,
        rules: StreamRules::default(),
        origin: origin(service),
    })
}

fn set<K: Ord, V>(map: &mut std::collections::BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

pub(crate) fn edits(number: Range<usize>) -> impl Strategy<Value = Vec<Edit>> {
    let mostly = |strategy| option::weighted(0.8, strategy);
    let edit = prop_oneof![
        8 => (select(&PATTERNS[..]), mostly(vec(route(), 0..16).boxed()))
            .prop_map(|(host, routes)| Edit::Host(host, routes)),
        4 => (select(&PATTERNS[..]), option::weighted(0.8, tls()))
            .prop_map(|(host, tls)| Edit::TlsHost(host, tls)),
        2 => option::weighted(0.8, tls()).prop_map(Edit::DefaultTls),
        2 => (select(&SERVICES[..]), option::weighted(0.6, protocol()))
            .prop_map(|(service, protocol)| Edit::Backend(service, protocol)),
        4 => (select(&SERVICES[..]), option::weighted(0.7, endpoints()))
            .prop_map(|(service, endpoints)| Edit::Endpoints(service, endpoints)),
        4 => (select(&CERTIFICATES[..]), option::weighted(0.8, 0..5_usize))
            .prop_map(|(id, key)| Edit::Certificate(id, key)),
        2 => btree_set(select(&LISTENERS[..]), 1..4)
            .prop_map(|listeners| Edit::Listeners(listeners.into_iter().collect())),
        1 => option::weighted(0.7, route().prop_map(Box::new)).prop_map(Edit::Fallback),
        1 => any::<bool>().prop_map(Edit::Trust),
        1 => select(vec![None, Some("$status"), Some("$host $sent_http_x")])
            .prop_map(Edit::Log),
        1 => (1..3_u16, option::of(select(&SERVICES[..])))
            .prop_map(|(port, service)| Edit::Port(port, service)),
        2 => (select(&PATTERNS[..]), option::weighted(0.7, select(&SERVICES[..])))
            .prop_map(|(host, service)| Edit::PassedOn(host, service)),
    ];
    vec(edit, number)
}

/// Changes that name entries which may not have changed, or may not exist.
pub(crate) fn noise() -> impl Strategy<Value = Changes> {
    (
        btree_set(select(&PATTERNS[..]), 0..2),
        btree_set(select(&PATTERNS[..]), 0..2),
        btree_set(select(&SERVICES[..]), 0..2),
        btree_set(select(&CERTIFICATES[..]), 0..2),
        proptest::bool::weighted(0.2),
    )
        .prop_map(|(hosts, tls_hosts, backends, certificates, globals)| {
            let backends: std::collections::BTreeSet<BackendId> =
                backends.into_iter().map(backend).collect();
            Changes {
                hosts: hosts.into_iter().map(pattern).collect(),
                tls_hosts: tls_hosts.into_iter().map(pattern).collect(),
                endpoints: backends.clone(),
                backends,
                certificates: certificates.into_iter().map(CertificateId::new).collect(),
                // Always: an edit may have changed them.
                streams: true,
                globals,
            }
        })
}

fn route() -> impl Strategy<Value = Route> {
    (matches(), listeners(), filters(), action()).prop_map(
        |(matches, listeners, filters, action)| Route {
            listeners,
            filters: filters.into(),
            action,
            ..crate::common::route(matches, "one")
        },
    )
}

fn matches() -> impl Strategy<Value = RouteMatch> {
    let header = (
        prop_oneof![9 => Just("x-a"), 9 => Just("X-B"), 1 => Just("bad name")],
        text(),
    );
    let header = header.prop_map(|(name, value)| HeaderMatch {
        name: name.to_owned(),
        value,
    });
    let query = (select(vec!["q", "r"]), text()).prop_map(|(name, value)| QueryMatch {
        name: name.to_owned(),
        value,
    });
    (
        route_path(),
        option::weighted(0.2, select(vec!["GET".to_owned(), "POST".to_owned()])),
        prop_oneof![3 => Just(Vec::new()).boxed(), 1 => vec(header, 1..3).boxed()],
        prop_oneof![3 => Just(Vec::new()).boxed(), 1 => vec(query, 1..3).boxed()],
    )
        .prop_map(|(path, method, headers, query)| RouteMatch {
            path,
            method,
            headers,
            query,
        })
}

fn text() -> impl Strategy<Value = TextMatch> {
    let exact = select(vec!["", "1", "1,2"]).prop_map(|text| TextMatch::Exact(text.to_owned()));
    let regex = select(vec!["1|12", "[0-9]*", ".", "[", "1,.*"]);
    let regex = regex.prop_map(|text| TextMatch::Regex(text.to_owned()));
    prop_oneof![2 => exact, 1 => regex]
}

fn route_path() -> impl Strategy<Value = model::PathMatch> {
    let kind = prop_oneof![2 => Just("= "), 4 => Just("")];
    let plain = (kind, vec(select(vec!["a", "b", "ab"]), 0..4), any::<bool>());
    prop_oneof![
        5 => plain.prop_map(|(kind, parts, slash)| path(&format!("{kind}{}", joined(&parts, slash)))),
        1 => select(&REGEXES[..]).prop_map(|text| path(&format!("~ {text}"))),
    ]
}

fn joined(parts: &[&str], slash: bool) -> String {
    normal(&format!(
        "/{}{}",
        parts.join("/"),
        if slash { "/" } else { "" }
    ))
}

fn listeners() -> impl Strategy<Value = ListenerSelector> {
    let some = btree_set(select(&LISTENERS[..]), 0..3);
    let some = some.prop_map(|listeners| {
        ListenerSelector::Only(listeners.into_iter().map(ListenerName::new).collect())
    });
    prop_oneof![3 => Just(ListenerSelector::All), 1 => some]
}

fn filters() -> impl Strategy<Value = Vec<Filter>> {
    let removing = |name: &str| {
        vec![Filter::RequestHeaders(HeaderChange {
            remove: vec![name.to_owned()],
            ..HeaderChange::default()
        })]
    };
    prop_oneof![
        6 => Just(Vec::new()),
        2 => Just(removing("x-a")),
        1 => Just(removing("not a name")),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let target = (select(&SERVICES[..]), 0..3_u32).prop_map(|(service, weight)| WeightedBackend {
        backend: backend(service),
        weight,
    });
    let redirect = select(vec![302, 404]).prop_map(|status| {
        Action::Redirect(Box::new(Redirect {
            status,
            ..Redirect::default()
        }))
    });
    let respond = select(vec![200, 503, 600]).prop_map(|status| Action::Respond {
        status,
        reason: "test".to_owned(),
    });
    prop_oneof![
        6 => vec(target, 0..4).prop_map(Action::Forward),
        1 => redirect,
        1 => respond,
    ]
}

fn tls() -> impl Strategy<Value = Arc<TlsHost>> {
    let policy = (
        select(vec![TlsVersion::V1_2, TlsVersion::V1_3]),
        any::<bool>(),
        option::weighted(0.1, Just("NO_SUCH_SUITE".to_owned())),
    );
    let policy = policy.prop_map(|(min_version, http2, suite)| TlsPolicy {
        min_version,
        cipher_suites: suite.into_iter().collect(),
        http2,
        client_auth: None,
    });
    (vec(select(&CERTIFICATES[..]), 0..3), policy)
        .prop_map(|(certificates, policy)| tls_host(&certificates, policy))
}

fn protocol() -> impl Strategy<Value = BackendProtocol> {
    select(vec![
        BackendProtocol::Http1,
        BackendProtocol::H2c,
        BackendProtocol::Https,
    ])
}

fn endpoints() -> impl Strategy<Value = EndpointSet> {
    let addresses = btree_set(1..5_u8, 0..3).prop_map(|hosts| {
        let endpoint = |host| Endpoint::new(([10, 0, 0, host], 80).into());
        EndpointSet::Addresses(hosts.into_iter().map(endpoint).collect())
    });
    prop_oneof![
        4 => addresses,
        1 => Just(EndpointSet::Invalid("no such service".to_owned())),
    ]
}

/// A request with owned parts.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) listener: ListenerName,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
}

pub(crate) fn requests() -> impl Strategy<Value = Vec<Request>> {
    let field = (select(vec!["x-a", "x-b"]), select(vec!["", "1", "2", "12"]));
    let queries = vec!["q=1", "q=1&r=12", "q", "r=1&q=12", "q=&q=1", "qq=1", ""];
    let request = (
        select(&LISTENERS[..]),
        select(&HOSTS[..]),
        (vec(select(vec!["a", "b", "ab", "A"]), 0..5), any::<bool>()),
        option::of(select(queries)),
        select(vec![Method::GET, Method::POST]),
        vec(field, 0..4),
    );
    let request = request.prop_map(|(listener, host, (parts, slash), query, method, fields)| {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        Request {
            listener: ListenerName::new(listener),
            host: host.to_owned(),
            path: joined(&parts, slash),
            query: query.map(str::to_owned),
            method,
            headers,
        }
    });
    vec(request, 1..40)
}

/// Sort keys that put a list of up to sixteen into any order.
pub(crate) fn shuffles() -> impl Strategy<Value = Vec<u32>> {
    vec(any::<u32>(), 16)
}
