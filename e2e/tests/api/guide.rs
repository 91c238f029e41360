//! The commands of `docs/migrate-from-ingress-nginx.md` that need a cluster, in their order.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use e2e::lockgate::Installation;
use e2e::scene::Scene;
use tempfile::TempDir;
use tokio::process::Command;

/// What ingress-nginx would have left in the cluster.
const NGINX: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: ingress-nginx-controller, namespace: ingress-nginx}
data: {proxy-body-size: 16m, worker-processes: '4'}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: nginx}
spec: {controller: k8s.io/ingress-nginx}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: shop
  namespace: ingress-nginx
  annotations: {nginx.ingress.kubernetes.io/proxy-read-timeout: '10'}
spec:
  ingressClassName: nginx
  rules:
  - host: shop.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
";

/// The commands of a page: the lines of its blocks of `sh`.
pub(crate) fn commands(page: &str) -> Vec<&str> {
    let mut inside = false;
    let mut commands = Vec::new();
    for line in page.lines().map(str::trim) {
        match line {
            "```sh" => inside = true,
            line if line.starts_with("```") => inside = false,
            line if inside && !line.is_empty() => commands.push(line),
            _ => {}
        }
    }
    commands
}

#[tokio::test]
async fn the_commands_of_the_guide_that_need_a_cluster_work() -> Result<()> {
    let scene = Scene::new("guide").await?;
    let kubectl = &scene.access.kubectl;
    kubectl
        .run(&["create", "namespace", "ingress-nginx"])
        .await?;
    kubectl
        .run_with_input(&["apply", "--filename", "-"], NGINX)
        .await?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/migrate-from-ingress-nginx.md"))?;
    let folder = folder(&scene)?;
    let mut ran = 0;
    let mut outcome = Ok(());
    for command in commands(&page) {
        if command.contains("e2e/migrate") {
            continue;
        }
        outcome = run(&scene, folder.path(), command).await;
        if outcome.is_err() {
            break;
        }
        ran += 1;
    }
    // As it was, for the tests that follow. What a patch has set, `apply` does not take back.
    let settings = ["delete", "configmap", "lockgate", "--namespace", "lockgate"];
    kubectl.run(&settings).await?;
    Installation::apply(&scene.access).await?;
    let class = ["delete", "ingressclass", "nginx"];
    kubectl.run(&class).await?;
    kubectl
        .run(&["delete", "namespace", "ingress-nginx", "--wait=false"])
        .await?;
    outcome?;
    ensure!(ran == 7, "{ran} commands");
    scene.finish([]).await
}

/// A folder that looks like the repository.
pub(crate) fn folder(scene: &Scene) -> Result<TempDir> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = tempfile::tempdir_in(&scene.access.folder)?;
    for name in ["config", "e2e"] {
        let target = root.canonicalize()?.join(name);
        std::os::unix::fs::symlink(target, folder.path().join(name))?;
    }
    std::fs::create_dir(folder.path().join("target"))?;
    Ok(folder)
}

/// Runs a command as a user types it.
pub(crate) async fn run(scene: &Scene, folder: &Path, command: &str) -> Result<()> {
    let output = Command::new("bash")
        .args(["-o", "pipefail", "-euc", command])
        .current_dir(folder)
        .env("PATH", programs(scene)?)
        .env("KUBECONFIG", scene.access.kubectl.kubeconfig())
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| command.to_owned())?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command}: {}: {error}",
        output.status
    );
    Ok(())
}

/// Where `kubectl` and `lockgate` are, before what is there anyway.
fn programs(scene: &Scene) -> Result<String> {
    let folder = |program: &Path| program.parent().map(|folder| folder.display().to_string());
    let mut all = vec![
        folder(scene.access.kubectl.program()).context("kubectl")?,
        folder(&scene.access.programs.lockgate).context("lockgate")?,
    ];
    all.extend(std::env::var("PATH"));
    Ok(all.join(":"))
}
