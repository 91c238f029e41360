//! The installation that the tests of the cluster tier are about.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::kubectl::Kubectl;

/// How long two pods may take to be ready.
const ROLLOUT: Duration = Duration::from_mins(3);

/// Applies `config/default` with an image that the nodes have, as a user does, and waits until it is rolled out. The
/// kustomization that names the image is kept in `state`.
pub async fn install(kubectl: &Kubectl, state: &Path, image: &str) -> Result<()> {
    let (name, tag) = image
        .rsplit_once(':')
        .with_context(|| format!("{image} has no tag"))?;
    let folder = state.join("install");
    fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR"))
        .with_file_name("config")
        .join("default")
        .canonicalize()?;
    fs::write(
        folder.join("kustomization.yaml"),
        format!(
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [{}]\n\
             images: [{{name: registry.example.com/lockgate, newName: {name}, newTag: {tag}}}]\n",
            relative(&folder, &shipped).display(),
        ),
    )?;
    let folder = folder.display().to_string();
    kubectl.run(&["apply", "--kustomize", &folder]).await?;
    let rollout = [
        "rollout",
        "status",
        "deployment/lockgate",
        "--namespace=lockgate",
        "--timeout=170s",
    ];
    kubectl.run_within(ROLLOUT, &rollout, "").await.map(drop)
}

/// Kustomize takes no absolute paths.
fn relative(from: &Path, to: &Path) -> PathBuf {
    from.components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .map(|_| Component::ParentDir)
        .chain(to.components().skip(1))
        .collect()
}
