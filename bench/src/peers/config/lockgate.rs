//! Lockgate: manifests, and the flags of one worker.

use std::ffi::OsString;

use anyhow::Result;
use serde_json::{Value, json};

use super::{BACKTRACKING, ECDSA, EXPRESSION, RSA, Rule, Setting, To};

const NAMESPACE: &str = "bench";

/// Writes the manifests; gives the arguments.
pub(in crate::peers) fn lockgate(setting: &Setting<'_>) -> Result<Vec<OsString>> {
    let mut documents = vec![json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": "lockgate"},
        "spec": {"controller": "lockgate.dev/ingress-controller"},
    })];
    for to in To::ALL {
        documents.extend(service(to, setting));
    }
    for (host, rules) in setting.hosts() {
        // The protocol of a backend is said for a whole Ingress.
        let (grpc, rest): (Vec<_>, Vec<_>) =
            rules.into_iter().partition(|rule| rule.to == To::Grpc);
        for (kind, rules) in [("grpc", grpc), ("http", rest)] {
            if !rules.is_empty() {
                documents.push(ingress(kind, &host, &rules));
            }
        }
    }
    if setting.guarded {
        documents.push(expression());
    }
    let mut text = String::new();
    for (host, leaf) in [(ECDSA, &setting.keys.ecdsa), (RSA, &setting.keys.rsa)] {
        text.push_str(&leaf.secret(NAMESPACE, host));
        text.push_str("---\n");
    }
    for document in documents {
        text.push_str(&document.to_string());
        text.push_str("\n---\n");
    }
    let manifests = setting.home.join("manifests");
    std::fs::create_dir(&manifests)?;
    std::fs::write(manifests.join("bench.yaml"), text)?;
    let log = if setting.logged { "on" } else { "off" };
    Ok([
        "run".into(),
        "--manifests".into(),
        manifests.into(),
        format!("--http-listen={}", setting.http).into(),
        format!("--https-listen={}", setting.https).into(),
        format!("--admin-listen={}", setting.admin).into(),
        format!("--access-log={log}").into(),
        "--log-format=json".into(),
        "--workers=1".into(),
    ]
    .into())
}

fn service(to: To, setting: &Setting<'_>) -> [Value; 2] {
    let name = to.name();
    let address = setting.address(to);
    [
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": NAMESPACE, "name": name},
            "spec": {"ports": [{"name": "http", "port": 80}]},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": NAMESPACE,
                "name": format!("{name}-1"),
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": address.port()}],
            "endpoints": [{"addresses": [address.ip()]}],
        }),
    ]
}

fn ingress(kind: &str, host: &str, rules: &[Rule]) -> Value {
    let paths: Vec<Value> = rules
        .iter()
        .map(|rule| {
            let service = json!({"name": rule.to.name(), "port": {"number": 80}});
            json!({"path": rule.path, "pathType": "Prefix", "backend": {"service": service}})
        })
        .collect();
    let protocol = if kind == "grpc" { "GRPC" } else { "HTTP" };
    let tls = if [ECDSA, RSA].contains(&host) {
        json!([{"hosts": [host], "secretName": host}])
    } else {
        json!([])
    };
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "namespace": NAMESPACE,
            "name": format!("{kind}-{host}"),
            "annotations": {
                "nginx.ingress.kubernetes.io/ssl-redirect": "false",
                "nginx.ingress.kubernetes.io/backend-protocol": protocol,
            },
        },
        "spec": {
            "ingressClassName": "lockgate",
            "tls": tls,
            "rules": [{"host": host, "http": {"paths": paths}}],
        },
    })
}

fn expression() -> Value {
    let service = json!({"name": To::Small.name(), "port": {"number": 80}});
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "namespace": NAMESPACE,
            "name": "expression",
            "annotations": {"nginx.ingress.kubernetes.io/use-regex": "true"},
        },
        "spec": {
            "ingressClassName": "lockgate",
            "rules": [{"host": EXPRESSION, "http": {"paths": [{
                "path": BACKTRACKING,
                "pathType": "ImplementationSpecific",
                "backend": {"service": service},
            }]}}],
        },
    })
}
