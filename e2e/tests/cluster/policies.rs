//! A `RoutePolicy` as its owner sees it: it acts, and `kubectl` shows whether it can be used.

use anyhow::{Result, ensure};
use e2e::space::Space;
use e2e::wait::{SOON, eventually};
use serde_json::json;

#[tokio::test]
async fn a_policy_acts_and_shows_whether_it_can_be_used() -> Result<()> {
    let space = Space::new("policies").await?;
    let host = space.host("www");
    space.origin("web", 1).await?;
    let policy = |spec: serde_json::Value| {
        json!({
            "apiVersion": "lockgate.dev/v1alpha1", "kind": "RoutePolicy",
            "metadata": {"name": "shop"}, "spec": spec,
        })
        .to_string()
    };
    space
        .apply(&policy(json!({
            "targetRefs": [{"name": "web"}],
            "responseHeaders": {"set": [{"name": "X-Frame-Options", "value": "DENY"}]},
            "deny": [{"path": {"prefix": "/private"}, "status": 404}],
        })))
        .await?;
    space.ingress("web", &host, "web", &json!({})).await?;
    let reply = space.answers(&format!("http://{host}/"), 200).await?;
    let header = reply.headers.get("x-frame-options");
    ensure!(header.is_some_and(|value| value == "DENY"), "{header:?}");
    space
        .answers(&format!("http://{host}/private"), 404)
        .await?;
    shows(&space, "True").await?;

    // The schema accepts it; only a compiler of regular expressions does not.
    space
        .apply(&policy(json!({
            "targetRefs": [{"name": "web"}],
            "deny": [{"path": {"regex": "("}}],
        })))
        .await?;
    space.answers(&format!("http://{host}/"), 503).await?;
    shows(&space, "False").await?;

    // What the schema knows is refused before it is stored.
    let refused = space
        .apply(&policy(json!({"deny": [{"status": 403}]})))
        .await;
    ensure!(refused.is_err(), "a rule without a condition is stored");
    space.kubectl(&["delete", "routepolicy", "shop"]).await?;
    space
        .answers(&format!("http://{host}/private"), 200)
        .await?;
    space.finish().await
}

async fn shows(space: &Space, accepted: &str) -> Result<()> {
    eventually(&format!("Accepted is {accepted}"), SOON, async || {
        let printed = space.kubectl(&["get", "routepolicies"]).await?;
        let row = printed.lines().nth(1).unwrap_or_default();
        let shown = row.split_whitespace().nth(1);
        ensure!(shown == Some(accepted), "{printed}");
        Ok(())
    })
    .await
}
