//! What others use: Ingresses on other hosts, with annotations of every group, and policies.

use serde_json::{Map, Value, json};

/// Their manifests. `authority` is a certificate in PEM, for what asks for some.
pub(super) fn manifests(authority: &str) -> String {
    let mut objects = vec![
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"namespace": "bench", "name": "users"},
            "stringData": {"auth": "a:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="},
        }),
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"namespace": "bench", "name": "authority"},
            "stringData": {"ca.crt": authority},
        }),
        json!({
            "apiVersion": "lockgate.dev/v1alpha1",
            "kind": "RoutePolicy",
            "metadata": {"namespace": "bench", "name": "beside"},
            "spec": {
                "targetRefs": [{"name": "beside-0"}],
                "responseHeaders": {"set": [{"name": "A", "value": "b"}]},
                "deny": [{"path": {"prefix": "/metrics"}, "exceptFrom": ["192.0.2.0/24"]}],
            },
        }),
        json!({
            "apiVersion": "lockgate.dev/v1alpha1",
            "kind": "GatewayPolicy",
            "metadata": {"name": "elsewhere"},
            "spec": {"namespaces": ["elsewhere"], "hosts": ["elsewhere.test"], "limits": {"bodySize": "1m"}},
        }),
    ];
    for (number, group) in (0_u32..).zip(groups()) {
        if group.get("canary").is_some() {
            objects.push(ingress(&format!("main-{number}"), number, &json!({})));
        }
        objects.push(ingress(&format!("beside-{number}"), number, &group));
    }
    let texts: Vec<String> = objects.iter().map(Value::to_string).collect();
    texts.join("\n---\n")
}

/// Annotations, each group for an Ingress of its own.
fn groups() -> Vec<Value> {
    vec![
        json!({"rewrite-target": "/$2"}),
        json!({"use-regex": "true"}),
        json!({"app-root": "/home"}),
        json!({"permanent-redirect": "https://other.test/"}),
        json!({"from-to-www-redirect": "true"}),
        json!({"server-alias": "alias.beside.test"}),
        json!({"upstream-vhost": "inside.test"}),
        json!({"backend-protocol": "GRPC"}),
        json!({"backend-protocol": "HTTPS", "proxy-ssl-secret": "bench/authority", "proxy-ssl-verify": "on"}),
        json!({"proxy-body-size": "8m", "proxy-read-timeout": "7", "proxy-next-upstream": "error http_503"}),
        json!({"proxy-redirect-from": "http://a/", "proxy-redirect-to": "/", "proxy-cookie-path": "/ /b"}),
        json!({"auth-type": "basic", "auth-secret": "users"}),
        json!({"auth-url": "http://bench.bench.svc/auth", "auth-cache-key": "$cookie_a"}),
        json!({"auth-tls-secret": "bench/authority"}),
        json!({"allowlist-source-range": "192.0.2.0/24", "denylist-source-range": "192.0.2.7"}),
        json!({"satisfy": "any", "allowlist-source-range": "192.0.2.0/24", "auth-type": "basic", "auth-secret": "users"}),
        json!({"limit-rps": "5", "limit-connections": "3", "limit-rate": "100"}),
        json!({"enable-cors": "true", "cors-allow-origin": "https://a.test"}),
        json!({"canary": "true", "canary-weight": "50"}),
        json!({"affinity": "cookie", "session-cookie-name": "stay"}),
        json!({"upstream-hash-by": "$request_uri"}),
        json!({"mirror-target": "http://bench.bench.svc/copy"}),
        json!({"custom-http-errors": "404,503", "default-backend": "bench"}),
        json!({"configuration-snippet": "more_set_headers \"A: b\";"}),
    ]
}

fn ingress(name: &str, number: u32, group: &Value) -> Value {
    let named = group.as_object().into_iter().flatten();
    let annotations: Map<_, _> = named
        .map(|(name, value)| {
            let name = format!("nginx.ingress.kubernetes.io/{name}");
            (name, value.clone())
        })
        .collect();
    let host = format!("beside-{number}.test");
    let service = json!({"service": {"name": "bench", "port": {"number": 80}}});
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"namespace": "bench", "name": name, "annotations": annotations},
        "spec": {
            "ingressClassName": "lockgate",
            "tls": [{"hosts": [host], "secretName": "tls"}],
            "rules": [{"host": host, "http": {"paths": [
                {"path": "/a(/|$)(.*)", "pathType": "ImplementationSpecific", "backend": service},
            ]}}],
        },
    })
}
