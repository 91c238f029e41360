//! What reads objects of Kubernetes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use translate::{Change, Settings, Translator, manifests as yaml};

/// From objects to the table that serves.
fn translate(text: &str) {
    let parsed = yaml::parse(text);
    let mut translator = Translator::new(Settings::default());
    translator.apply(parsed.objects.into_iter().map(Change::Apply));
    let compiled = table::compile(translator.model());
    for (_, problem) in translator.report().problems() {
        assert!(!problem.message.is_empty());
    }
    drop(compiled);
}

/// Any manifests.
pub(crate) fn manifests(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        translate(text);
    }
}

const WEB: &str = "
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {ports: [{port: 80}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}, addressType: IPv4, ports: [{port: 8080}], endpoints: [{addresses: [10.0.0.1]}]}
";

/// An Ingress with these annotations. Every JSON is YAML.
fn ingress(annotations: &serde_json::Value) -> String {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": { "name": "shop", "namespace": "shop", "annotations": annotations },
        "spec": {
            "ingressClassName": "lockgate",
            "rules": [{
                "host": "shop.test",
                "http": { "paths": [{
                    "path": "/a",
                    "pathType": "Prefix",
                    "backend": { "service": { "name": "web", "port": { "number": 80 } } },
                }] },
            }],
        },
    })
    .to_string()
}

const CLASS: &str = "
---
{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: lockgate}, spec: {controller: lockgate.dev/ingress-controller}}
";

/// Annotations: a name, a line end, a value; null bytes between them.
pub(crate) fn annotations(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let mut annotations = serde_json::Map::new();
    for entry in text.split('\0').take(8) {
        let (name, value) = entry.split_once('\n').unwrap_or((entry, ""));
        let name = format!("nginx.ingress.kubernetes.io/{name}");
        annotations.insert(name, value.into());
    }
    translate(&format!("{}{WEB}{CLASS}", ingress(&annotations.into())));
}

/// Files with users and hashes of their passwords.
pub(crate) fn users(bytes: &[u8]) {
    let annotations = json!({
        "nginx.ingress.kubernetes.io/auth-type": "basic",
        "nginx.ingress.kubernetes.io/auth-secret": "users",
    });
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": "users", "namespace": "shop" },
        "data": { "auth": STANDARD.encode(bytes) },
    });
    translate(&format!(
        "{}\n---\n{secret}{WEB}{CLASS}",
        ingress(&annotations)
    ));
}
