//! Two replicas: both serve, one writes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::cluster::note;
use e2e::load::Load;
use e2e::lockgate::Lockgate;
use e2e::origin::Origin;
use e2e::scene::Scene;
use e2e::wait::{SOON, eventually};
use serde_json::Value;

const FLAGS: [(&str, &str); 1] = [("--publish-status-address", "198.51.100.7")];

#[tokio::test]
async fn when_the_leader_dies_the_other_takes_over() -> Result<()> {
    let scene = Scene::new("leadership").await?;
    let origin = Origin::start("web").await?;
    scene.service("web", &[&origin]).await?;
    scene
        .ingress("first", "first.example.com", "web", "")
        .await?;
    let replicas = [
        scene.lockgate("leader-a", &FLAGS).await?,
        scene.lockgate("leader-b", &FLAGS).await?,
    ];
    let (mut leader, other) = by_role(&scene, replicas).await?;
    has_status(&scene, "first", SOON).await?;

    let load = Load::start(
        &scene.client(&other)?,
        &[("http://first.example.com/", "web")],
    )?;
    leader.kill()?;
    let killed = Instant::now();
    scene
        .ingress("second", "second.example.com", "web", "")
        .await?;
    let client = scene.client(&other)?;
    eventually(
        "the other serves what is new at once",
        Duration::from_secs(5),
        async || {
            let status = client.get("http://second.example.com/").await?.status;
            ensure!(status == 200, "{status}");
            Ok(())
        },
    )
    .await?;
    // Not before the dead leader's time has run out.
    has_status(&scene, "second", Duration::from_mins(1)).await?;
    note(&format!(
        "leader killed: the other writes {:.1?} after",
        killed.elapsed()
    ))?;
    assert_eq!(holder(&scene).await?, other.pod);
    load.stop().await?.check("the leader dies")?;
    scene.finish([other]).await
}

#[tokio::test]
async fn a_leader_that_is_asked_to_end_hands_over_at_once() -> Result<()> {
    let scene = Scene::new("handover").await?;
    let origin = Origin::start("web").await?;
    scene.service("web", &[&origin]).await?;
    let replicas = [
        scene.lockgate("handover-a", &FLAGS).await?,
        scene.lockgate("handover-b", &FLAGS).await?,
    ];
    let (leader, other) = by_role(&scene, replicas).await?;
    leader.stop().await?;
    eventually(
        "the other holds the Lease",
        Duration::from_secs(8),
        async || {
            let holder = holder(&scene).await?;
            ensure!(holder == other.pod, "{holder}");
            Ok(())
        },
    )
    .await?;
    scene
        .ingress("web", "handover.example.com", "web", "")
        .await?;
    has_status(&scene, "web", SOON).await?;
    scene.finish([other]).await
}

/// The replicas, the leader first.
async fn by_role(scene: &Scene, replicas: [Lockgate; 2]) -> Result<(Lockgate, Lockgate)> {
    let holder = eventually("somebody leads", SOON, async || {
        let holder = holder(scene).await?;
        ensure!(
            replicas.iter().any(|replica| replica.pod == holder),
            "held by {holder:?}"
        );
        Ok(holder)
    })
    .await?;
    let [one, two] = replicas;
    Ok(if one.pod == holder {
        (one, two)
    } else {
        (two, one)
    })
}

/// The name of the pod that holds the Lease; an identity may say more after it.
async fn holder(scene: &Scene) -> Result<String> {
    let arguments = [
        "--namespace",
        &scene.installation.namespace,
        "get",
        "leases",
    ];
    let list = scene.access.kubectl.json(&arguments).await?;
    let holder = list
        .pointer("/items/0/spec/holderIdentity")
        .and_then(Value::as_str);
    let holder = holder.context("no Lease, or nobody holds it")?;
    Ok(holder
        .split(['_', '/', ' '])
        .next()
        .unwrap_or_default()
        .to_owned())
}

async fn has_status(scene: &Scene, ingress: &str, deadline: Duration) -> Result<()> {
    eventually(
        &format!("{ingress} has its address"),
        deadline,
        async || {
            let addresses = scene.addresses(ingress).await?;
            ensure!(addresses == ["198.51.100.7"], "{addresses:?}");
            Ok(())
        },
    )
    .await
}
