//! Namespaces: one that is deleted with all that is in it, and those that are not looked at.

use anyhow::{Result, ensure};
use e2e::load::Load;
use e2e::space::{Second, Space, ingress_manifest, merged, origin_manifests};
use e2e::wait::{SOON, eventually};
use serde_json::{Value, json};

#[tokio::test]
async fn a_namespace_is_deleted_and_nobody_else_notices() -> Result<()> {
    let space = Space::new("namespaces").await?;
    let (stays, goes) = (space.host("stays"), space.host("goes"));
    space.origin("web", 1).await?;
    let identity = space.authority.site(&[&stays, &goes])?;
    space.certificate("web-tls", &identity).await?;
    space
        .secure_ingress("web", &stays, "web", "web-tls")
        .await?;

    // The same objects, under the same names, in the namespace that goes.
    let victim = format!("{}-victim", space.namespace);
    let kubectl = &space.cluster.kubectl;
    kubectl.run(&["create", "namespace", &victim]).await?;
    kubectl
        .apply(&victim, &origin_manifests("web", 1).to_string())
        .await?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "web-tls"},
        "stringData": {"tls.crt": identity.certificate, "tls.key": identity.key},
    });
    kubectl.apply(&victim, &secret.to_string()).await?;
    let tls = json!({"spec": {"tls": [{"hosts": [goes], "secretName": "web-tls"}]}});
    let ingress = merged(ingress_manifest("web", &goes, "web"), &tls);
    kubectl.apply(&victim, &ingress.to_string()).await?;

    let url = format!("https://{goes}/");
    eventually("the other namespace is served", SOON * 6, async || {
        let reply = space.client()?.get(&url).await?;
        ensure!(reply.status == 200, "{}", reply.status);
        ensure!(
            reply.json()?["namespace"] == json!(victim),
            "{}",
            reply.body
        );
        Ok(())
    })
    .await?;

    let target = format!("https://{stays}/");
    let load = Load::start(&space.client()?, &[(&target, "web")])?;
    load.proceed(100).await?;
    kubectl
        .run_within(SOON * 6, &["delete", "namespace", &victim], "")
        .await?;
    // Its certificate went with it: nothing that belonged to it is shown to anybody.
    let stranger = space.client()?;
    eventually("its routes are gone", SOON, async || {
        let plain = stranger.get(&format!("http://{goes}/")).await?;
        ensure!(plain.status == 404, "http: {}", plain.status);
        ensure!(
            stranger.connect(&url).await.is_err(),
            "a trusted certificate is still shown"
        );
        Ok(())
    })
    .await?;
    load.proceed(100).await?;
    load.stop().await?.check("another namespace is deleted")?;

    for pod in space.lockgate_pods().await? {
        let log = space.gateway.log(&pod.name).await?;
        let errors: Vec<&str> = log
            .lines()
            .filter(|line| line.contains(&victim) && is_error(line))
            .collect();
        ensure!(errors.is_empty(), "{}: {errors:#?}", pod.name);
    }
    space.finish().await
}

/// Whether a line of a log says that somebody has to act. A warning is in order: the Ingress may be there a moment longer
/// than its Secret.
fn is_error(line: &str) -> bool {
    let entry: Value = serde_json::from_str(line).unwrap_or_default();
    let level = entry.get("level").and_then(Value::as_str);
    level.is_some_and(|level| level.eq_ignore_ascii_case("error"))
}

#[tokio::test]
async fn only_the_watched_namespace_is_served_and_only_it_is_asked_for() -> Result<()> {
    let space = Space::new("watched").await?;
    let elsewhere = format!("{}-elsewhere", space.namespace);
    let kubectl = &space.cluster.kubectl;
    kubectl.run(&["create", "namespace", &elsewhere]).await?;
    space.origin("web", 1).await?;
    let watch = format!("--watch-namespace={}", space.namespace);
    // Its account may see this namespace and, of the rest of the cluster, classes and the policies for namespaces.
    let second = Second {
        flags: &[&watch],
        only: &[&space.namespace],
    };
    let gateway = second.install(&space).await?;
    let ingress = |name: &str| {
        let class = json!({"spec": {"ingressClassName": Second::class(&space)}});
        merged(ingress_manifest(name, &space.host(name), "web"), &class).to_string()
    };
    kubectl.apply(&elsewhere, &ingress("outside")).await?;
    space.apply(&ingress("inside")).await?;

    let client = space.client_of(&gateway)?;
    let address = gateway.address.to_string();
    let url = |name: &str| format!("http://{}/", space.host(name));
    space.answers_of(&client, &url("inside"), 200).await?;
    space.has_addresses("inside", &[&address]).await?;
    space.answers_of(&client, &url("outside"), 404).await?;
    let status = kubectl
        .json(&["--namespace", &elsewhere, "get", "ingress", "outside"])
        .await?;
    ensure!(
        status.pointer("/status/loadBalancer/ingress").is_none(),
        "a status where it does not look: {status:#}"
    );
    if let Some(audit) = space.cluster.audit()? {
        let user = gateway.user();
        let asked = audit.of(&user).find(|entry| {
            let path = entry.uri.split('?').next().unwrap_or_default();
            !path.contains("/namespaces/")
                && !path.ends_with("/ingressclasses")
                && !path.ends_with("/gatewaypolicies")
                && !entry.access.resource.is_empty()
        });
        ensure!(asked.is_none(), "asked for the whole cluster: {asked:?}");
    }
    kubectl
        .run(&["delete", "namespace", &elsewhere, "--wait=false"])
        .await?;
    space.finish().await
}
