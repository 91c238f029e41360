//! What `kubectl describe ingress` tells its owner about mistakes.

use anyhow::{Result, ensure};
use e2e::space::Space;
use e2e::wait::{SOON, eventually};
use serde_json::{Value, json};

#[tokio::test]
async fn a_mistake_is_told_with_object_field_and_consequence() -> Result<()> {
    let space = Space::new("events").await?;
    space.origin("web", 1).await?;
    let host = |label: &str| space.host(label);
    space
        .ingress("good", &host("good"), "web", &json!({}))
        .await?;
    space
        .ingress("no-service", &host("no-service"), "absent", &json!({}))
        .await?;
    space
        .secure_ingress("no-secret", &host("no-secret"), "web", "absent-tls")
        .await?;
    let backend = |name: &str, backend: &Value| {
        json!({"rules": [{
            "host": host(name),
            "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]},
        }]})
    };
    let no_port = json!({"service": {"name": "web", "port": {"name": "grpc"}}});
    let bucket = json!({"apiGroup": "example.com", "kind": "Bucket", "name": "files"});
    let resource = json!({"resource": bucket});
    space
        .ingress(
            "no-port",
            &host("no-port"),
            "web",
            &backend("no-port", &no_port),
        )
        .await?;
    space
        .ingress(
            "resource",
            &host("resource"),
            "web",
            &backend("resource", &resource),
        )
        .await?;
    space
        .answers(&format!("http://{}/", host("good")), 200)
        .await?;
    // Younger, so it loses to the one that is there.
    space
        .ingress("second", &host("good"), "web", &json!({}))
        .await?;

    for (ingress, object, field, consequence) in [
        (
            "no-service",
            "absent",
            "spec.rules[0].http.paths[0].backend",
            "503",
        ),
        (
            "no-port",
            "grpc",
            "spec.rules[0].http.paths[0].backend",
            "503",
        ),
        (
            "resource",
            "resource",
            "spec.rules[0].http.paths[0].backend",
            "503",
        ),
        (
            "no-secret",
            "absent-tls",
            "spec.tls[0].secretName",
            "certificate",
        ),
        (
            "second",
            "/good",
            "spec.rules[0].http.paths[0]",
            "not served",
        ),
    ] {
        eventually(&format!("{ingress}: the owner is told"), SOON, async || {
            let printed = space.kubectl(&["describe", "ingress", ingress]).await?;
            let events = printed.split_once("Events:").map_or("", |(_, text)| text);
            for text in ["Warning", object, field, consequence] {
                ensure!(events.contains(text), "{text:?} is not in:\n{events}");
            }
            Ok(())
        })
        .await?;
    }
    let told = space.events("Ingress", "good").await?;
    ensure!(told.is_empty(), "nothing is wrong with it: {told:#?}");
    space.finish().await
}

#[tokio::test]
async fn two_replicas_tell_a_mistake_once_and_count_its_return() -> Result<()> {
    let space = Space::new("events-once").await?;
    let host = space.host("www");
    space.ingress("web", &host, "web", &json!({})).await?;
    let told = async |count: u64| {
        eventually(&format!("told {count} times"), SOON, async || {
            let events = space.events("Ingress", "web").await?;
            let counts: Vec<u64> = events.iter().map(|event| event.count).collect();
            ensure!(counts == [count], "{events:#?}");
            Ok(())
        })
        .await
    };
    told(1).await?;

    // It is put right, and the same mistake is made again.
    space.origin("web", 1).await?;
    space.answers(&format!("http://{host}/"), 200).await?;
    space.kubectl(&["delete", "service", "web"]).await?;
    space.answers(&format!("http://{host}/"), 503).await?;
    told(2).await?;
    space.finish().await
}
