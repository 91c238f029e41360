//! Random changes of a small world, in which nearly everything meets everything.

use proptest::prelude::*;
use proptest::sample::select;
use translate::{Change, Object};

use crate::{CLIENTS, EC, OTHER, WILD, authority, object, secret};

/// One change of one object.
pub(crate) fn edits() -> impl Strategy<Value = Change> {
    let anything = prop_oneof![
        6 => ingresses(),
        1 => classes(),
        2 => services(),
        3 => slices(),
        2 => secrets(),
        1 => configmaps(),
        2 => policies(),
        1 => grants(),
        1 => ports(),
        1 => gateway_policies(),
    ];
    (anything, 0..4_u8).prop_map(|(object, chance)| {
        if chance == 0 {
            Change::Delete(object.reference())
        } else {
            Change::Apply(object)
        }
    })
}

fn namespace() -> impl Strategy<Value = &'static str> {
    select(vec!["a", "b"])
}

fn service() -> impl Strategy<Value = &'static str> {
    select(vec!["s1", "s2"])
}

fn backend() -> impl Strategy<Value = String> {
    {
        (
            service(),
            select(vec![
                "number: 80",
                "name: http",
                "number: 8080",
                "number: 81",
            ]),
        )
            .prop_map(|(service, port)| {
                format!("{{service: {{name: {service}, port: {{{port}}}}}}}")
            })
    }
}

fn host() -> impl Strategy<Value = &'static str> {
    {
        select(vec![
            "shop.test",
            "a.shop.test",
            "b.shop.test",
            "'*.shop.test'",
            "''",
            "bad host",
        ])
    }
}

fn rule() -> impl Strategy<Value = String> {
    {
        (
            host(),
            prop::collection::vec(
                (
                    select(vec!["/", "/a", "/a/", "bad"]),
                    select(vec!["Prefix", "Exact"]),
                    backend(),
                ),
                0..3,
            ),
        )
            .prop_map(|(host, paths)| {
                let paths: Vec<String> = paths
                    .into_iter()
                    .map(|(path, kind, backend)| {
                        format!("{{path: {path}, pathType: {kind}, backend: {backend}}}")
                    })
                    .collect();
                format!("{{host: {host}, http: {{paths: [{}]}}}}", paths.join(", "))
            })
    }
}

fn tls() -> impl Strategy<Value = String> {
    {
        (
            prop::collection::vec(host(), 0..2),
            select(vec!["t1", "t2", "''"]),
        )
            .prop_map(|(hosts, secret)| {
                format!("{{hosts: [{}], secretName: {secret}}}", hosts.join(", "))
            })
    }
}

pub(crate) fn ingresses() -> impl Strategy<Value = Object> {
    let annotation = select(vec![
        "",
        "",
        "nginx.ingress.kubernetes.io/ssl-redirect: 'false'",
        "nginx.ingress.kubernetes.io/backend-protocol: GRPC",
        "nginx.ingress.kubernetes.io/proxy-read-timeout: '7'",
        "nginx.ingress.kubernetes.io/auth-url: http://x",
        "nginx.ingress.kubernetes.io/canary: 'true'",
        "nginx.ingress.kubernetes.io/server-alias: 'a.shop.test, alias.test, b.shop.test'",
        "nginx.ingress.kubernetes.io/from-to-www-redirect: 'true'",
        "nginx.ingress.kubernetes.io/rewrite-target: /x",
        "nginx.ingress.kubernetes.io/app-root: /x",
        "nginx.ingress.kubernetes.io/default-backend: s2",
        "nginx.ingress.kubernetes.io/service-upstream: 'true'",
        "nginx.ingress.kubernetes.io/auth-tls-secret: t1",
        "nginx.ingress.kubernetes.io/auth-tls-secret: t1, nginx.ingress.kubernetes.io/server-alias: 'alias.test'",
        "nginx.ingress.kubernetes.io/auth-tls-secret: t2, nginx.ingress.kubernetes.io/auth-tls-verify-client: optional",
        "nginx.ingress.kubernetes.io/auth-tls-secret: t2, nginx.ingress.kubernetes.io/auth-tls-verify-client: 'off'",
        "nginx.ingress.kubernetes.io/auth-tls-verify-client: 'on'",
        "nginx.ingress.kubernetes.io/custom-headers: a/headers",
        "nginx.ingress.kubernetes.io/auth-url: http://x, nginx.ingress.kubernetes.io/auth-proxy-set-headers: a/headers",
        "nginx.ingress.kubernetes.io/ssl-passthrough: 'true'",
        "nginx.ingress.kubernetes.io/ssl-passthrough: 'true'",
        "kubernetes.io/ingress.class: lockgate",
        "lockgate.dev/route-policy: p1",
        "nginx.ingress.kubernetes.io/auth-secret: b/t1",
        "nginx.ingress.kubernetes.io/configuration-snippet: 'deny all;'",
        "nginx.ingress.kubernetes.io/configuration-snippet: 'lua x;'",
    ]);
    (
        (namespace(), select(vec!["i1", "i2", "i3"]), 1..4_u8),
        select(vec!["", "ingressClassName: c1, ", "ingressClassName: c1, ", "ingressClassName: c2, "]),
        annotation,
        prop::option::of(backend()),
        prop::collection::vec(rule(), 0..3),
        prop::collection::vec(tls(), 0..3),
    )
        .prop_map(|((namespace, name, day), class, annotation, default, rules, tls)| {
            let default = default.map_or(String::new(), |backend| format!("defaultBackend: {backend}, "));
            object(&format!(
                "{{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: '2026-01-0{day}T00:00:00Z', annotations: {{{annotation}}}}}, spec: {{{class}{default}rules: [{}], tls: [{}]}}}}",
                rules.join(", "),
                tls.join(", ")
            ))
        })
}

fn classes() -> impl Strategy<Value = Object> {
    (
        select(vec!["c1", "c2"]),
        select(vec!["lockgate.dev/ingress-controller", "lockgate.dev/ingress-controller", "other.test/x"]),
        any::<bool>(),
    )
        .prop_map(|(name, controller, default)| {
            object(&format!(
                "{{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {{name: {name}, annotations: {{ingressclass.kubernetes.io/is-default-class: '{default}'}}}}, spec: {{controller: {controller}}}}}"
            ))
        })
}

fn services() -> impl Strategy<Value = Object> {
    (
        namespace(),
        service(),
        select(vec![
            "ports: [{port: 80, name: http}]",
            "ports: [{port: 80, targetPort: 8080}]",
            "ports: [{port: 81, name: http, appProtocol: kubernetes.io/h2c}, {port: 80, name: other}]",
            "type: ExternalName, externalName: example.com",
            "type: ExternalName, externalName: localhost",
        ]),
    )
        .prop_map(|(namespace, name, spec)| {
            object(&format!(
                "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{{spec}}}}}"
            ))
        })
}

fn slices() -> impl Strategy<Value = Object> {
    (
        namespace(),
        select(vec!["e1", "e2", "e3"]),
        service(),
        select(vec!["{port: 8080}", "{name: http, port: 8080}", "{name: other, port: 9090}"]),
        select(vec![
            "{addresses: [10.0.0.1]}",
            "{addresses: [10.0.0.1], hints: {forZones: [{name: z1}]}}",
            "{addresses: [10.0.0.4], hints: {forZones: [{name: z2}], forNodes: [{name: n1}]}}",
            "{addresses: [10.0.0.2]}, {addresses: [127.0.0.1]}",
            "{addresses: [10.0.0.3], conditions: {ready: false, terminating: true}}",
            "",
        ]),
    )
        .prop_map(|(namespace, name, service, port, endpoints)| {
            object(&format!(
                "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: {name}, namespace: {namespace}, labels: {{kubernetes.io/service-name: {service}}}}}, addressType: IPv4, ports: [{port}], endpoints: [{endpoints}]}}"
            ))
        })
}

fn secrets() -> impl Strategy<Value = Object> {
    let name = || (namespace(), select(vec!["t1", "t2"]));
    let pair = select(vec![EC, WILD, OTHER, (EC.0, OTHER.1), ("", "")]);
    let pairs = (name(), pair).prop_map(|((namespace, name), pair)| secret(namespace, name, pair));
    let certificate = select(vec![CLIENTS, CLIENTS, EC.0, ""]);
    let authorities = (name(), certificate)
        .prop_map(|((namespace, name), certificate)| authority(namespace, name, certificate));
    prop_oneof![pairs, authorities]
}

pub(crate) fn gateway_policies() -> impl Strategy<Value = Object> {
    (
        select(vec!["p1", "p2"]),
        select(vec!["", "namespaces: [a]", "namespaces: [b, c]", "namespaces: ['*']"]),
        select(vec![
            "",
            "hosts: [shop.test]",
            "hosts: ['*.shop.test', alias.test]",
            "hosts: ['*']",
            "hosts: ['bad host']",
            "maxRisk: Low",
            "denyAnnotations: [app-root, nonsense]",
            "allowAnnotations: [server-alias]",
            "limits: {timeoutSeconds: 5}",
        ]),
    )
        .prop_map(|(name, namespaces, rest)| {
            let comma = if namespaces.is_empty() || rest.is_empty() { "" } else { ", " };
            object(&format!(
                "{{apiVersion: lockgate.dev/v1alpha1, kind: GatewayPolicy, metadata: {{name: {name}}}, spec: {{{namespaces}{comma}{rest}}}}}"
            ))
        })
}

fn configmaps() -> impl Strategy<Value = Object> {
    let headers = select(vec!["X-A: b", "X-A: c, X-B: d", "X-A: $host", "X A: b"])
        .prop_map(|data| ("headers", data));
    let settings = select(vec![
        "proxy-set-headers: a/headers",
        "add-headers: a/headers, global-allowed-response-headers: 'X-A, X-B'",
        "global-allowed-response-headers: X-A",
        "global-auth-url: 'http://s1.a.svc:81/'",
        "hsts: 'false'",
        "server-tokens: 'true'",
        "ssl-redirect: 'false'",
        "use-http2: 'false'",
        "proxy-read-timeout: '9'",
        "nonsense: x",
        "use-forwarded-headers: 'true'",
        "proxy-stream-timeout: 5s",
        "'53': 'a/s1:80'",
    ])
    .prop_map(|data| ("settings", data));
    prop_oneof![headers, settings].prop_map(|(name, data)| {
        object(&format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}, namespace: a}}, data: {{{data}}}}}"
        ))
    })
}

pub(crate) fn policies() -> impl Strategy<Value = Object> {
    (
        namespace(),
        select(vec!["p1", "p2"]),
        select(vec![
            "",
            "targetRefs: [{name: i1}]",
            "targetRefs: [{name: i2}], deny: [{path: {prefix: /a}}]",
            "deny: [{path: {regex: '('}}]",
            "rewrite: /x",
            "basicAuth: {secretName: t1}",
        ]),
    )
        .prop_map(|(namespace, name, spec)| {
            object(&format!(
                "{{apiVersion: lockgate.dev/v1alpha1, kind: RoutePolicy, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{{spec}}}}}"
            ))
        })
}

fn grants() -> impl Strategy<Value = Object> {
    (
        namespace(),
        select(vec!["g1", "g2"]),
        namespace(),
        select(vec!["Ingress", "HTTPRoute"]),
        select(vec!["", ", name: t1", ", name: t2"]),
    )
        .prop_map(|(namespace, name, from, kind, to)| {
            object(&format!(
                "{{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{from: [{{group: networking.k8s.io, kind: {kind}, namespace: {from}}}], to: [{{group: '', kind: Secret{to}}}]}}}}"
            ))
        })
}

fn ports() -> impl Strategy<Value = Object> {
    select(vec![
        "'1': 'a/s1:80', '2': 'b/s2:http'",
        "'1': 'a/s1:80:PROXY'",
        "'2': 'a/s3:80', x: nothing",
        "",
    ])
    .prop_map(|data| {
        object(&format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: tcp, namespace: a}}, data: {{{data}}}}}"
        ))
    })
}
