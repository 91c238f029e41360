//! `lockgate migrate` on a live cluster that a kubeconfig names.

use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use e2e::scene::Scene;
use serde_json::Value;
use tokio::process::Command;

const NGINX: &str = "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: old-nginx}
spec: {controller: k8s.io/ingress-nginx}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: nginx-settings}
data: {proxy-body-size: 16m, worker-processes: '4'}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: honoured
  annotations: {nginx.ingress.kubernetes.io/proxy-read-timeout: '10'}
spec:
  ingressClassName: old-nginx
  rules:
  - host: honoured.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: foreign}
spec:
  ingressClassName: other
  rules: [{host: foreign.example.com}]
";

const REFUSED: &str = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: refused
  annotations: {nginx.ingress.kubernetes.io/configuration-snippet: internal;}
spec:
  ingressClassName: old-nginx
  rules:
  - host: refused.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
";

async fn migrate(scene: &Scene, more: &[&str]) -> Result<Output> {
    let kubeconfig = scene.access.kubectl.kubeconfig().display().to_string();
    Command::new(&scene.access.programs.lockgate)
        .args(["migrate", "--kubeconfig", &kubeconfig, "--output", "json"])
        .args(more)
        .env_clear()
        .output()
        .await
        .context("lockgate migrate")
}

fn names(report: &Value) -> Vec<&str> {
    let ingresses = report.get("ingresses").and_then(Value::as_array);
    let names = ingresses.into_iter().flatten();
    names
        .filter_map(|ingress| ingress.get("name")?.as_str())
        .collect()
}

#[tokio::test]
async fn a_live_cluster_is_read_with_its_class_and_settings() -> Result<()> {
    let scene = Scene::new("migrate").await?;
    scene.apply(NGINX).await?;
    let settings = ["--configmap", "migrate/nginx-settings"];
    let output = migrate(&scene, &settings).await?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(0),
        "{}: {error}",
        output.status
    );
    let report: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(names(&report) == ["honoured"], "{report:#}");
    let text = report.to_string();
    for said in ["proxy-read-timeout", "proxy-body-size", "worker-processes"] {
        ensure!(text.contains(said), "{said} is not in {report:#}");
    }

    scene.apply(REFUSED).await?;
    let output = migrate(&scene, &settings).await?;
    ensure!(output.status.code() == Some(3), "{}", output.status);
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let mut found = names(&report);
    found.sort_unstable();
    ensure!(found == ["honoured", "refused"], "{report:#}");

    let output = migrate(&scene, &["--namespace", "default"]).await?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(names(&report).is_empty(), "{report:#}");

    let output = migrate(&scene, &["--context", "nowhere"]).await?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(1),
        "{}: {error}",
        output.status
    );
    ensure!(error.contains("nowhere"), "{error}");

    scene
        .kubectl(&["delete", "ingressclass", "old-nginx"])
        .await?;
    scene.finish([]).await
}
