//! What the public suite demands: Ingresses, requests, answers.

use serde_json::{Value, json};

/// A part of the suite.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Feature {
    PathRules,
    HostRules,
    DefaultBackend,
    IngressClass,
    LoadBalancing,
}

impl Feature {
    /// As the suite calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::PathRules => "path_rules",
            Self::HostRules => "host_rules",
            Self::DefaultBackend => "default_backend",
            Self::IngressClass => "ingress_class",
            Self::LoadBalancing => "load_balancing",
        }
    }

    /// Its runs.
    pub(super) fn cases(self) -> Vec<&'static Case> {
        CASES.iter().filter(|case| case.feature == self).collect()
    }
}

/// One run.
pub(super) struct Case {
    pub(super) feature: Feature,
    /// The rule that it is about.
    pub(super) rule: &'static str,
    pub(super) method: &'static str,
    pub(super) url: &'static str,
    pub(super) expected: &'static str,
}

const fn case(
    feature: Feature,
    rule: &'static str,
    url: &'static str,
    expected: &'static str,
) -> Case {
    Case {
        feature,
        rule,
        method: "GET",
        url,
        expected,
    }
}

const fn path(rule: &'static str, url: &'static str, expected: &'static str) -> Case {
    case(Feature::PathRules, rule, url, expected)
}

const fn host(rule: &'static str, url: &'static str, expected: &'static str) -> Case {
    case(Feature::HostRules, rule, url, expected)
}

const fn fallback(method: &'static str, url: &'static str) -> Case {
    Case {
        feature: Feature::DefaultBackend,
        rule: "no rules: everything goes to the default backend",
        method,
        url,
        expected: "200 from echo",
    }
}

/// The host that has a certificate.
pub(super) const TLS_HOST: &str = "foo.bar.example.com";

/// All runs, in the order of the suite.
pub(super) static CASES: [Case; 30] = [
    path(
        "Exact `/foo`",
        "http://exact.paths.example.com/foo",
        "200 from foo-exact",
    ),
    path(
        "Exact `/foo`: a trailing slash is another path",
        "http://exact.paths.example.com/foo/",
        "404",
    ),
    path(
        "Exact `/foo`: case counts",
        "http://exact.paths.example.com/FOO",
        "404",
    ),
    path(
        "Exact `/foo`: nothing else",
        "http://exact.paths.example.com/bar",
        "404",
    ),
    path(
        "Prefix `/foo`",
        "http://prefix.paths.example.com/foo",
        "200 from foo-prefix",
    ),
    path(
        "Prefix `/foo`: a trailing slash of the request is ignored",
        "http://prefix.paths.example.com/foo/",
        "200 from foo-prefix",
    ),
    path(
        "Prefix `/foo`: case counts",
        "http://prefix.paths.example.com/FOO",
        "404",
    ),
    path(
        "Prefix `/aaa/bbb` beside `/aaa`: the longest wins",
        "http://prefix.paths.example.com/aaa/bbb",
        "200 from aaa-slash-bbb-prefix",
    ),
    path(
        "Prefix `/aaa/bbb` beside `/aaa`: what is below",
        "http://prefix.paths.example.com/aaa/bbb/ccc",
        "200 from aaa-slash-bbb-prefix",
    ),
    path(
        "Prefix `/aaa` beside `/aaa/bbb`",
        "http://prefix.paths.example.com/aaa/ccc",
        "200 from aaa-prefix",
    ),
    path(
        "Prefix `/aaa`: whole elements only",
        "http://prefix.paths.example.com/aaaccc",
        "404",
    ),
    path(
        "Prefix `/foo`: the trailing slash once more",
        "http://prefix.paths.example.com/foo/",
        "200 from foo-prefix",
    ),
    path(
        "Exact and Prefix `/foo`: Exact wins",
        "http://mixed.paths.example.com/foo",
        "200 from foo-exact",
    ),
    path(
        "Prefix `/aaa/bbb/`: its own trailing slash is ignored",
        "http://slash.paths.example.com/aaa/bbb",
        "200 from aaa-slash-bbb-slash-prefix",
    ),
    path(
        "Prefix `/aaa/bbb/`",
        "http://slash.paths.example.com/aaa/bbb/",
        "200 from aaa-slash-bbb-slash-prefix",
    ),
    path(
        "Exact `/foo/`: the slash belongs to it",
        "http://slash.paths.example.com/foo",
        "404",
    ),
    host(
        "a host with a certificate, https (backend by port name)",
        "https://foo.bar.example.com/",
        "200 from foo-bar",
    ),
    host(
        "a host with a certificate, http (backend by port name)",
        "http://foo.bar.example.com/",
        "200 from foo-bar",
    ),
    host(
        "a host that no rule names",
        "http://sub.bar.example.com/",
        "404",
    ),
    host(
        "a wildcard (backend by port number)",
        "http://bar.foo.example.com/",
        "200 from wildcard",
    ),
    host(
        "a wildcard stands for one label, not two",
        "http://baz.bar.foo.example.com/",
        "404",
    ),
    host(
        "a wildcard stands for one label, not none",
        "http://foo.example.com/",
        "404",
    ),
    fallback("GET", "http://my-host.example.com/"),
    fallback("GET", "http://my-host.example.com/sub-path"),
    fallback("POST", "http://some-host.example.com/"),
    fallback("PUT", "http://ADDRESS/resource"),
    fallback("DELETE", "http://some-host.example.com/resource"),
    fallback("PATCH", "http://my-host.example.com/resource"),
    case(
        Feature::IngressClass,
        "a class that nobody knows: the status stays empty",
        "",
        "no address",
    ),
    case(
        Feature::LoadBalancing,
        "100 requests to a Service of 10 pods reach all of them",
        "http://load-balancing.example.com/",
        "10 pods",
    ),
];

pub(super) const PATH_SERVICES: [&str; 6] = [
    "foo-exact",
    "foo-prefix",
    "aaa-slash-bbb-prefix",
    "aaa-prefix",
    "aaa-slash-bbb-slash-prefix",
    "foo-slash-exact",
];

/// The spec of the Ingress of `path_rules`.
pub(super) fn path_rules() -> Value {
    let path = |path: &str, kind: &str, service: &str| {
        json!({
            "path": path, "pathType": kind,
            "backend": {"service": {"name": service, "port": {"number": 80}}},
        })
    };
    let rule = |host: &str, paths: Value| json!({"host": host, "http": {"paths": paths}});
    json!({"rules": [
        rule("exact.paths.example.com", json!([path("/foo", "Exact", "foo-exact")])),
        rule("prefix.paths.example.com", json!([
            path("/foo", "Prefix", "foo-prefix"),
            path("/aaa/bbb", "Prefix", "aaa-slash-bbb-prefix"),
            path("/aaa", "Prefix", "aaa-prefix"),
        ])),
        rule("mixed.paths.example.com", json!([
            path("/foo", "Prefix", "foo-prefix"),
            path("/foo", "Exact", "foo-exact"),
        ])),
        rule("slash.paths.example.com", json!([
            path("/aaa/bbb/", "Prefix", "aaa-slash-bbb-slash-prefix"),
            path("/foo/", "Exact", "foo-slash-exact"),
        ])),
    ]})
}

pub(super) const HOST_SERVICES: [&str; 2] = ["wildcard", "foo-bar"];

/// The spec of the Ingress of `host_rules`.
pub(super) fn host_rules() -> Value {
    let rule = |host: &str, service: &str, port: Value| {
        json!({"host": host, "http": {"paths": [{
            "path": "/", "pathType": "Prefix",
            "backend": {"service": {"name": service, "port": port}},
        }]}})
    };
    json!({
        "tls": [{"hosts": [TLS_HOST], "secretName": "conformance-tls"}],
        "rules": [
            rule("*.foo.example.com", "wildcard", json!({"number": 80})),
            rule(TLS_HOST, "foo-bar", json!({"name": "http"})),
        ],
    })
}

/// The spec of the Ingresses without rules.
pub(super) fn default_backend() -> Value {
    json!({"defaultBackend": {"service": {"name": "echo", "port": {"number": 80}}}})
}
