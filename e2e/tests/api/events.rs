//! What the owner of an Ingress is told about mistakes.

use anyhow::{Result, ensure};
use e2e::scene::Scene;
use e2e::wait::{SOON, eventually};

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
