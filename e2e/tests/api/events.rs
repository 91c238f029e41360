//! What the owner of an Ingress is told about mistakes.

use anyhow::{Result, ensure};
use e2e::origin::Origin;
use e2e::scene::Scene;
use e2e::wait::{SOON, eventually};

#[tokio::test]
async fn every_mistake_is_told_to_its_owner_and_harms_nobody_else() -> Result<()> {
    let scene = Scene::new("events").await?;
    let origin = Origin::start("web").await?;
    scene.service("web", &[&origin]).await?;
    scene.ingress("good", "good.example.com", "web", "").await?;
    scene
        .ingress("no-service", "no-service.example.com", "absent", "")
        .await?;
    scene
        .ingress("no-secret", "no-secret.example.com", "web", "absent-tls")
        .await?;
    scene
        .apply(
            r"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: no-port}
spec:
  ingressClassName: lockgate
  rules:
  - host: no-port.example.com
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: web, port: {name: grpc}}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: resource}
spec:
  ingressClassName: lockgate
  rules:
  - host: resource.example.com
    http:
      paths:
      - path: /
        pathType: Prefix
        backend: {resource: {apiGroup: example.com, kind: Bucket, name: files}}
",
        )
        .await?;
    let gateway = scene.lockgate("events-0", &[]).await?;
    // Created later, so it loses to the older one.
    scene
        .ingress("second", "good.example.com", "web", "")
        .await?;

    for (ingress, texts) in [
        (
            "no-service",
            ["absent", "spec.rules[0].http.paths[0].backend"],
        ),
        ("no-secret", ["absent-tls", "spec.tls[0].secretName"]),
        ("no-port", ["grpc", "spec.rules[0].http.paths[0].backend"]),
        (
            "resource",
            ["resource", "spec.rules[0].http.paths[0].backend"],
        ),
        ("second", ["good", "spec.rules[0].http.paths[0]"]),
    ] {
        eventually(
            &format!("kubectl describe ingress {ingress} shows the mistake"),
            SOON,
            async || {
                let printed = scene.kubectl(&["describe", "ingress", ingress]).await?;
                let events = printed
                    .split_once("Events:")
                    .map_or("", |(_, events)| events);
                for text in ["Warning"].iter().chain(&texts) {
                    ensure!(events.contains(text), "{text:?} is not in:\n{events}");
                }
                Ok(())
            },
        )
        .await?;
    }
    let told = scene.events("Ingress", "good").await?;
    ensure!(
        told.iter().all(|event| event.kind != "Warning"),
        "{told:#?}"
    );
    let client = scene.client(&gateway)?;
    for (host, status) in [
        ("good", 200),
        ("no-service", 503),
        ("no-port", 503),
        ("resource", 503),
    ] {
        let reply = client.get(&format!("http://{host}.example.com/")).await?;
        assert_eq!(reply.status, status, "{host}");
    }
    scene.finish([gateway]).await
}

#[tokio::test]
async fn an_event_is_told_once() -> Result<()> {
    let scene = Scene::new("events-once").await?;
    scene
        .ingress("lonely", "lonely.example.com", "absent", "")
        .await?;
    let gateway = scene.lockgate("events-once-0", &[]).await?;
    let told = async || {
        let events = scene.events("Ingress", "lonely").await?;
        ensure!(!events.is_empty(), "no Event");
        Ok(events.len())
    };
    let first = eventually("the owner is told", SOON, told).await?;

    // The same mistake, seen again with every change of the object and after a restart, is no news.
    for change in ["a", "b", "c"] {
        let note = format!("example.com/note={change}");
        scene
            .kubectl(&["annotate", "--overwrite", "ingress", "lonely", &note])
            .await?;
    }
    gateway.stop().await?;
    let gateway = scene.lockgate("events-once-1", &[]).await?;
    scene
        .ingress("marker", "marker.example.com", "also-absent", "")
        .await?;
    eventually("a later mistake is told", SOON, async || {
        ensure!(!scene.events("Ingress", "marker").await?.is_empty());
        Ok(())
    })
    .await?;
    let events = scene.events("Ingress", "lonely").await?;
    assert_eq!(events.len(), first, "{events:#?}");
    // A process that has restarted tells it once more, into the same Event.
    assert!(events.iter().all(|event| event.count <= 2), "{events:#?}");
    scene.finish([gateway]).await
}
