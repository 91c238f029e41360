//! A real API server asks the admission webhook, as docs/admission.md has it switched on.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use e2e::cluster::Access;
use e2e::lockgate::{Installation, Lockgate};
use e2e::scene::Scene;
use e2e::wait::{SOON, eventually};
use tempfile::TempDir;

use super::guide;

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config");

fn ingress(name: &str, class: &str, annotation: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {name}
  annotations: {{{annotation}}}
spec:
  ingressClassName: {class}
  rules:
  - host: {name}.example.com
    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}
"
    )
}

const BAD: &str = "nginx.ingress.kubernetes.io/limit-rps: many";

/// Applies a manifest and returns what `kubectl` said beside its result.
async fn apply(scene: &Scene, more: &[&str], manifest: &str) -> Result<String> {
    let apply = ["apply", "--namespace", &scene.namespace, "--filename", "-"];
    let arguments = [&apply[..], more].concat();
    let (_printed, beside) = scene
        .access
        .kubectl
        .run_showing(SOON, &arguments, manifest)
        .await?;
    Ok(beside)
}

async fn refused(scene: &Scene, manifest: &str, want: &str) -> Result<()> {
    let error = apply(scene, &["--dry-run=server"], manifest)
        .await
        .err()
        .context("it is not refused")?;
    let error = error.to_string();
    ensure!(error.contains(want), "{want:?} is not in {error}");
    Ok(())
}

/// What happens while nobody answers.
async fn failure_policy(scene: &Scene, policy: &str) -> Result<()> {
    let patch = format!(
        r#"[{{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "{policy}"}}]"#
    );
    let what = ["patch", "validatingwebhookconfiguration", "lockgate"];
    let how = ["--type=json", "--patch", &patch];
    let kubectl = &scene.access.kubectl;
    kubectl.run(&[what, how].concat()).await.map(drop)
}

/// Runs the commands of the page and leads the address of the Service to this machine: there are no pods.
async fn switched_on(scene: &Scene) -> Result<(Lockgate, TempDir)> {
    let page = std::fs::read_to_string(Path::new(CONFIG).with_file_name("docs/admission.md"))?;
    let folder = guide::folder(scene)?;
    let commands = guide::commands(&page);
    ensure!(commands.len() == 6, "{commands:#?}");
    for command in commands {
        guide::run(scene, folder.path(), command).await?;
    }
    // With the flags that the overlay adds.
    let installation = Installation::read(&scene.access).await?;
    let installed = ["--namespace", &installation.namespace];
    let service = ["get", "service", "lockgate-admission"];
    let arguments = [&installed[..], &service].concat();
    let json = scene.access.kubectl.json(&arguments).await?;
    let address = json.pointer("/spec/clusterIP").and_then(|ip| ip.as_str());
    let address = address.context("the Service has no address")?;
    let here = format!("ip address add {address}/32 dev lo");
    guide::run(scene, folder.path(), &here).await?;
    let listen = format!("{address}:443");
    let flags = [("--admission-listen", listen.as_str())];
    let gateway = installation.launch("admission-0", &flags).await?;
    Ok((gateway.ready().await?, folder))
}

#[tokio::test]
async fn the_api_server_asks_before_it_stores() -> Result<()> {
    let scene = Scene::new("admission").await?;
    let outcome = reviews(&scene).await;
    // As it was, for the tests that follow.
    let kubectl = &scene.access.kubectl;
    let installed = ["--namespace", &scene.installation.namespace];
    for (namespace, added) in [
        (&[][..], "validatingwebhookconfiguration/lockgate"),
        (&installed[..], "service/lockgate-admission"),
        (&installed[..], "secret/lockgate-admission"),
    ] {
        let delete = ["delete", added, "--ignore-not-found"];
        kubectl.run(&[namespace, &delete].concat()).await?;
    }
    Installation::apply(&scene.access).await?;
    outcome?;
    scene.finish([]).await
}

async fn reviews(scene: &Scene) -> Result<()> {
    // An error that was there before.
    apply(scene, &[], &ingress("early", "lockgate", BAD)).await?;
    let (gateway, folder) = switched_on(scene).await?;
    eventually("the webhook is asked", SOON, async || {
        refused(
            scene,
            &ingress("bad", "lockgate", BAD),
            "admission webhook \"review.lockgate.dev\" denied the request: \
             metadata.annotations[nginx.ingress.kubernetes.io/limit-rps]: `many` cannot be used",
        )
        .await
    })
    .await?;
    let stored = apply(scene, &[], &ingress("bad", "lockgate", BAD)).await;
    ensure!(stored.is_err(), "it is stored");
    ensure!(scene.kubectl(&["get", "ingress", "bad"]).await.is_err());

    // The Service comes later.
    let good = ingress("good", "lockgate", "a.example.com/b: c");
    let said = apply(scene, &[], &good).await?;
    let want = "Warning: Ingress admission/good: spec.rules[0].http.paths[0].backend: \
                Service admission/web does not exist";
    ensure!(said.contains(want), "{said}");
    scene.kubectl(&["get", "ingress", "good"]).await?;

    // Somebody else's, and one whose fault was there before: whoever labels it, or changes something else, is not held up.
    apply(scene, &[], &ingress("foreign", "other", BAD)).await?;
    let label = ["label", "ingress", "early", "a.example.com/b=c"];
    scene.kubectl(&label).await?;
    let changed = ingress("early", "lockgate", BAD).replace("path: /,", "path: /cart,");
    let said = apply(scene, &[], &changed).await?;
    ensure!(said.contains("(this is so already)"), "{said}");
    scene.kubectl(&["delete", "ingress", "early"]).await?;

    let policy = "apiVersion: lockgate.dev/v1alpha1\nkind: RoutePolicy\nmetadata: {name: bad}\n\
                  spec: {deny: [{path: {regex: '('}}]}\n";
    refused(scene, policy, "spec.deny[0].path").await?;
    let policy = "apiVersion: lockgate.dev/v1alpha1\nkind: GatewayPolicy\nmetadata: {name: bad}\n\
                  spec: {hosts: ['no host']}\n";
    refused(scene, policy, "spec.hosts[0]").await?;

    // An older Ingress has the path.
    let younger = ingress("good", "lockgate", "").replace("name: good\n", "name: younger\n");
    let want = "Ingress admission/good, which is older, has the same host";
    eventually("the older one is known", SOON, async || {
        refused(scene, &younger, want).await
    })
    .await?;

    // Another certificate, by the commands of the page that make one.
    let page = std::fs::read_to_string(Path::new(CONFIG).with_file_name("docs/admission.md"))?;
    for command in guide::commands(&page).into_iter().skip(1).take(2) {
        guide::run(scene, folder.path(), command).await?;
    }
    let renew = "kubectl create secret tls lockgate-admission --namespace lockgate --cert tls.crt --key tls.key \
                 --dry-run=client --output yaml | kubectl apply --filename -";
    guide::run(scene, folder.path(), renew).await?;
    refused(scene, &ingress("bad", "lockgate", BAD), "`many`").await?;

    // It goes away: `Ignore` holds up nobody, `Fail` everybody whose object would be reviewed.
    gateway.stop().await?;
    apply(scene, &[], &ingress("late", "lockgate", BAD)).await?;
    failure_policy(scene, "Fail").await?;
    eventually("nobody is asked, nothing is stored", SOON, async || {
        let want = "failed calling webhook \"review.lockgate.dev\"";
        refused(scene, &ingress("held", "lockgate", ""), want).await
    })
    .await
}

#[tokio::test]
async fn the_policy_for_the_network_is_one() -> Result<()> {
    let access = Access::shared()?;
    let file = Path::new(CONFIG).join("overlays/admission/networkpolicy.yaml");
    let file = file.display().to_string();
    let apply = ["apply", "--dry-run=server", "--validate=strict"];
    let arguments = [&apply[..], &["--filename", &file]].concat();
    access.kubectl.run(&arguments).await.map(drop)
}
