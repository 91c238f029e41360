//! A `GatewayPolicy` as a platform team sees it: it holds, and `kubectl` shows who asks for more.

use anyhow::{Result, ensure};
use e2e::space::Space;
use e2e::wait::{SOON, eventually};
use serde_json::{Value, json};

#[tokio::test]
async fn a_namespace_gets_what_its_policy_permits_and_the_policy_shows_who_asks_for_more()
-> Result<()> {
    let space = Space::new("permits").await?;
    let host = space.host("www");
    space.origin("web", 1).await?;
    let annotated = json!({"nginx.ingress.kubernetes.io/app-root": "/home"});
    let name = format!("permits-{}", space.namespace);
    let policy = |denied: Value| {
        json!({
            "apiVersion": "lockgate.dev/v1alpha1", "kind": "GatewayPolicy",
            "metadata": {"name": name},
            "spec": {"namespaces": [space.namespace], "denyAnnotations": denied},
        })
        .to_string()
    };
    space.apply(&policy(json!(["app-root"]))).await?;
    let manifest = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": "web", "annotations": annotated},
        "spec": {
            "ingressClassName": "lockgate",
            "rules": [{"host": host, "http": {"paths": [{
                "path": "/", "pathType": "Prefix",
                "backend": {"service": {"name": "web", "port": {"number": 80}}},
            }]}}],
        },
    });
    space.apply(&manifest.to_string()).await?;
    space.answers(&format!("http://{host}/"), 503).await?;
    shows(&space, &name, "True").await?;

    space.apply(&policy(json!(["server-alias"]))).await?;
    space.answers(&format!("http://{host}/"), 302).await?;
    shows(&space, &name, "False").await?;

    // What the schema knows is refused before it is stored.
    let wrong = json!({
        "apiVersion": "lockgate.dev/v1alpha1", "kind": "GatewayPolicy",
        "metadata": {"name": format!("{name}-wrong")},
        "spec": {"namespaces": ["No Namespace"]},
    })
    .to_string();
    ensure!(
        space.apply(&wrong).await.is_err(),
        "a namespace that none can be is stored"
    );
    space.kubectl(&["delete", "gatewaypolicy", &name]).await?;
    space.finish().await
}

async fn shows(space: &Space, name: &str, violated: &str) -> Result<()> {
    let path = "--output=jsonpath={.status.conditions[?(@.type==\"Violated\")].status}";
    eventually(&format!("Violated is {violated}"), SOON, async || {
        let printed = space.kubectl(&["get", "gatewaypolicy", name, path]).await?;
        ensure!(printed.trim() == violated, "{printed}");
        Ok(())
    })
    .await
}
