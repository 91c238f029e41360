//! A `RoutePolicy` as its owner sees it: it acts, `kubectl` shows whether it can be used, and who is harmed is told.

use anyhow::{Result, ensure};
use e2e::origin::Origin;
use e2e::scene::Scene;
use e2e::wait::{SOON, eventually};

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: lockgate.dev/v1alpha1\nkind: RoutePolicy\nmetadata: {{name: shop}}\nspec: {spec}\n"
    )
}

#[tokio::test]
async fn a_policy_acts_and_shows_whether_it_can_be_used() -> Result<()> {
    let scene = Scene::new("policies").await?;
    let origin = Origin::start("web").await?;
    scene.service("web", &[&origin]).await?;
    let gateway = scene.lockgate("policies-0", &[]).await?;
    scene
        .apply(&policy(
            "{targetRefs: [{name: web}], deny: [{path: {prefix: /private}, status: 404}]}",
        ))
        .await?;
    scene.ingress("web", "www.example.com", "web", "").await?;
    let client = scene.client(&gateway)?;
    let answers = async |path: &str, status: u16| {
        eventually(&format!("{path} answers {status}"), SOON, async || {
            let reply = client.get(&format!("http://www.example.com{path}")).await?;
            ensure!(reply.status == status, "{}", reply.status);
            Ok(())
        })
        .await
    };
    answers("/", 200).await?;
    answers("/private", 404).await?;
    shows(&scene, "True", "Accepted").await?;

    // The schema accepts it; only a compiler of regular expressions does not.
    scene
        .apply(&policy(
            "{targetRefs: [{name: web}], deny: [{path: {regex: '('}}]}",
        ))
        .await?;
    answers("/", 503).await?;
    shows(&scene, "False", "Invalid").await?;
    for (kind, name, text) in [
        ("Ingress", "web", "RoutePolicy policies/shop cannot be used"),
        ("RoutePolicy", "shop", "spec.deny[0].path"),
    ] {
        eventually(&format!("{kind} {name}: told"), SOON, async || {
            let events = scene.events(kind, name).await?;
            let told = events.iter().any(|event| event.message.contains(text));
            ensure!(told, "{text:?} is not in {events:#?}");
            Ok(())
        })
        .await?;
    }

    // What the schema knows is refused before it is stored.
    for spec in [
        "{deny: [{status: 403}]}",
        "{deny: [{methods: [PUT], status: 200}]}",
        "{deny: [{path: {prefix: /a, regex: b}}]}",
        "{deny: [{headers: [{name: a}]}]}",
        "{rateLimit: {}}",
        "{rateLimit: {requestsPerSecond: 0}}",
        "{redirect: {url: /, status: 200}}",
        "{pathRules: [{regex: a, to: 'https://b.test/'}]}",
        "{targetRefs: [{kind: Service, name: web}]}",
        "{rewrite: x}",
    ] {
        let refused = scene.apply(&policy(spec)).await;
        ensure!(refused.is_err(), "{spec} is stored");
    }
    scene.kubectl(&["delete", "routepolicy", "shop"]).await?;
    answers("/private", 200).await?;
    scene.finish([gateway]).await
}

async fn shows(scene: &Scene, status: &str, reason: &str) -> Result<()> {
    eventually(&format!("Accepted is {status}"), SOON, async || {
        let printed = scene.kubectl(&["get", "routepolicies"]).await?;
        let row = printed.lines().nth(1).unwrap_or_default();
        let shown: Vec<&str> = row.split_whitespace().skip(1).take(2).collect();
        ensure!(shown == [status, reason], "{printed}");
        Ok(())
    })
    .await
}
