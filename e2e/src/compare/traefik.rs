//! Traefik, installed beside Lockgate: as many pods, spread in the same way, behind a Service of the same kind.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::observe;
use crate::space::{ROLLOUT, Space};
use crate::wait::eventually;

const MANIFESTS: &str = include_str!("traefik.yaml");
/// What its objects are called, those that belong to no namespace too.
const NAME: &str = "e2e-traefik";
/// What selects its pods.
pub(super) const SELECTOR: &str = "app=e2e-traefik";

/// Applies it and waits until it is ready and has an address.
pub(super) async fn install(space: &Space, image: &str) -> Result<IpAddr> {
    space.apply(&manifests(&space.namespace, image)).await?;
    let deployment = format!("deployment/{NAME}");
    space
        .wait(ROLLOUT, &["rollout", "status", &deployment])
        .await
        .with_context(|| format!("is the image {image} on the nodes?"))?;
    eventually("Traefik's Service has an address", ROLLOUT, async || {
        let service = format!("service/{NAME}");
        let addresses =
            observe::addresses(&space.cluster.kubectl, &space.namespace, &service).await?;
        Ok(addresses.first().context("no address")?.parse()?)
    })
    .await
}

/// Removes what does not go with its namespace.
pub(super) async fn uninstall(space: &Space) -> Result<()> {
    let kubectl = &space.cluster.kubectl;
    let kinds = "clusterrole,clusterrolebinding,ingressclass";
    let delete = ["delete", kinds, NAME, "--ignore-not-found"];
    kubectl.run(&delete).await.map(drop)
}

/// What it says about its version.
pub(super) async fn version(space: &Space) -> Result<String> {
    let deployment = format!("deployment/{NAME}");
    let command = ["exec", &deployment, "--", "/traefik", "version"];
    let text = space.kubectl(&command).await?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim).unwrap_or_default().to_owned()
    };
    Ok(format!(
        "Traefik {}, {}",
        field("Version:"),
        field("Go version:")
    ))
}

/// An Ingress of its class, for the same Service and Secret.
pub(super) fn ingress(host: &str, service: &str, secret: &str) -> Value {
    let mut manifest = crate::space::ingress_manifest("traefik", host, service);
    if let Some(spec) = manifest.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("ingressClassName".to_owned(), NAME.into());
        spec.insert(
            "tls".to_owned(),
            json!([{"hosts": [host], "secretName": secret}]),
        );
    }
    manifest
}

fn manifests(namespace: &str, image: &str) -> String {
    MANIFESTS
        .replace("NAMESPACE", namespace)
        .replace("IMAGE", image)
}
