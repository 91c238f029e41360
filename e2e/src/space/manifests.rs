//! What most tests apply.

use serde_json::{Map, Value, json};

/// The origin server's image, which is on every node.
pub const ORIGIN_IMAGE: &str = "localhost/lockgate-origin:e2e";

/// A Deployment of origins and its Service with the ports 80 (`http`) and 443 (`https`).
pub fn origin_manifests(name: &str, replicas: u32) -> Value {
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    let labels = json!({"app": name});
    json!({
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name, "labels": labels},
                "spec": {
                    "replicas": replicas,
                    "selector": {"matchLabels": labels},
                    "template": {
                        "metadata": {"labels": labels},
                        "spec": {
                            "automountServiceAccountToken": false,
                            "enableServiceLinks": false,
                            "containers": [{
                                "name": "origin",
                                "image": ORIGIN_IMAGE,
                                "imagePullPolicy": "IfNotPresent",
                                "env": [
                                    {"name": "POD_NAME", "valueFrom": field("metadata.name")},
                                    {"name": "POD_NAMESPACE", "valueFrom": field("metadata.namespace")},
                                    {"name": "NODE_NAME", "valueFrom": field("spec.nodeName")},
                                    {"name": "SERVICE_NAME", "value": name},
                                ],
                                "ports": [
                                    {"name": "http", "containerPort": 8080},
                                    {"name": "https", "containerPort": 8443},
                                ],
                                "readinessProbe": {
                                    "httpGet": {"path": "/readyz", "port": "http"},
                                    "periodSeconds": 1,
                                },
                                "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}},
                            }],
                        },
                    },
                },
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name, "labels": labels},
                "spec": {
                    "selector": labels,
                    "ports": [
                        {"name": "http", "port": 80, "targetPort": "http"},
                        {"name": "https", "port": 443, "targetPort": "https"},
                    ],
                },
            },
        ],
    })
}

/// An Ingress of class `lockgate` that sends every path of `host` to the port `http` of `service`.
pub fn ingress_manifest(name: &str, host: &str, service: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name},
        "spec": {
            "ingressClassName": "lockgate",
            "rules": [{
                "host": host,
                "http": {"paths": [{
                    "path": "/",
                    "pathType": "Prefix",
                    "backend": {"service": {"name": service, "port": {"name": "http"}}},
                }]},
            }],
        },
    })
}

/// A manifest with a merge patch (RFC 7386) applied: `null` removes a field.
pub fn merged(mut manifest: Value, patch: &Value) -> Value {
    merge(&mut manifest, patch);
    manifest
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(fields) = target {
        for (name, value) in patch {
            if value.is_null() {
                fields.remove(name);
            } else {
                merge(fields.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
    }
}
