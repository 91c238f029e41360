//! `kubectl apply -k config/default`.

use std::path::Path;

use anyhow::{Context as _, Result};
use e2e::cluster::Access;
use serde_json::Value;

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config");

#[tokio::test]
async fn applying_the_shipped_configuration_twice_changes_nothing() -> Result<()> {
    let access = Access::shared()?;
    let folder = format!("{CONFIG}/default");
    let versions = async || {
        let list = access
            .kubectl
            .json(&["get", "--kustomize", &folder])
            .await?;
        let objects = list
            .pointer("/items")
            .and_then(Value::as_array)
            .context("no objects")?;
        let version = |object: &Value| {
            ["/kind", "/metadata/name", "/metadata/resourceVersion"]
                .map(|field| object.pointer(field).map(ToString::to_string))
        };
        anyhow::Ok(objects.iter().map(version).collect::<Vec<_>>())
    };
    let before = versions().await?;
    access
        .kubectl
        .run(&["apply", "--kustomize", &folder])
        .await?;
    assert_eq!(versions().await?, before);
    Ok(())
}

#[tokio::test]
async fn every_shipped_configuration_passes_strict_validation() -> Result<()> {
    let access = Access::shared()?;
    let mut folders = vec![Path::new(CONFIG).join("default")];
    for overlay in std::fs::read_dir(Path::new(CONFIG).join("overlays"))? {
        folders.push(overlay?.path());
    }
    for folder in folders {
        let folder = folder.display().to_string();
        let arguments = [
            "apply",
            "--dry-run=server",
            "--validate=strict",
            "--kustomize",
            &folder,
        ];
        access.kubectl.run(&arguments).await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_shipped_class_is_ours_and_not_the_default() -> Result<()> {
    let access = Access::shared()?;
    let class = access
        .kubectl
        .json(&["get", "ingressclass", "lockgate"])
        .await?;
    assert_eq!(
        class
            .pointer("/spec/controller")
            .and_then(|controller| controller.as_str()),
        Some("lockgate.dev/ingress-controller"),
    );
    let default = "/metadata/annotations/ingressclass.kubernetes.io~1is-default-class";
    assert_eq!(
        class.pointer(default),
        None,
        "who installs Lockgate must not take over other Ingresses"
    );
    Ok(())
}
