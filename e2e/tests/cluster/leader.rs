//! The leader goes: nobody else notices.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::cluster::note;
use e2e::site::{self, NAME};
use e2e::space::{Pod, Space};
use e2e::traffic::{ENOUGH, MIX};
use e2e::wait::{SOON, eventually};
use serde_json::json;

/// A Lease that nobody gave back runs out first.
const TAKEN_OVER: Duration = Duration::from_mins(1);
/// The pod that is told to end has its shutdown delay and the connections that it drains.
const HANDED_OVER: Duration = Duration::from_mins(5);

#[tokio::test]
async fn when_the_leader_is_killed_another_replica_takes_over() -> Result<()> {
    let space = Space::alone("leader").await?;
    let traffic = site::serve(&space, &site::manifests(2)).await?;
    ensure!(
        space.lockgate_pods().await?.len() >= 2,
        "this needs two replicas"
    );

    let (leader, other) = by_role(&space).await?;
    let flow = traffic.clone().of_pod(other.address.parse()?).start(&MIX)?;
    let all = traffic.start(&MIX[..1])?;
    flow.proceed(1_000).await?;

    let killed = Instant::now();
    let force = [
        "delete",
        "pod",
        &leader.name,
        "--grace-period=0",
        "--force",
        "--wait=false",
    ];
    space.gateway.kubectl(&force).await?;
    space
        .ingress("killed", &space.host("killed"), NAME, &json!({}))
        .await?;
    let heir = leads_instead(&space, &leader, TAKEN_OVER).await?;
    let taken = killed.elapsed();
    site::status_written(&space, "killed").await?;
    note(&format!(
        "leader killed: {heir} leads {taken:.1?} after, the status of a new Ingress is written {:.1?} after",
        killed.elapsed()
    ))?;
    flow.reach(ENOUGH).await?;
    let through = all.stop().await?;
    let last = through.last_failure_after(killed).unwrap_or_default();
    through.note(&format!(
        "leader killed, through the load balancer, what it had in flight is lost (last {last:.1?} after)"
    ))?;
    ensure!(last < Duration::from_secs(15), "{}", through.told());
    flow.stop()
        .await?
        .check("leader killed, on the replica that is left")?;
    site::settled(&space, site::SETTLED).await?;
    space.finish().await
}

#[tokio::test]
async fn a_leader_that_is_told_to_end_hands_over() -> Result<()> {
    let space = Space::alone("handover").await?;
    let traffic = site::serve(&space, &site::manifests(2)).await?;
    let (leader, _) = by_role(&space).await?;
    let flow = traffic.start(&MIX)?;
    flow.proceed(1_000).await?;

    let told = Instant::now();
    let delete = ["delete", "pod", &leader.name, "--wait=false"];
    space.gateway.kubectl(&delete).await?;
    // While the old leader still serves what it has, statuses go on being written.
    space
        .ingress("told", &space.host("told"), NAME, &json!({}))
        .await?;
    let during = site::status_written(&space, "told").await?;
    let heir = leads_instead(&space, &leader, HANDED_OVER).await?;
    let handed = told.elapsed();
    space
        .ingress("after", &space.host("after"), NAME, &json!({}))
        .await?;
    let after = site::status_written(&space, "after").await?;
    note(&format!(
        "leader told to end: {heir} leads {handed:.1?} after; the status of a new Ingress is written {during:.1?} after it \
         is made before that, {after:.1?} after that"
    ))?;
    site::settled(&space, site::SETTLED).await?;
    flow.proceed(1_000).await?;
    flow.reach(ENOUGH).await?;
    flow.stop().await?.check("leader told to end")?;
    space.finish().await
}

/// The pod that leads, and another one.
async fn by_role(space: &Space) -> Result<(Pod, Pod)> {
    eventually("one of the pods leads", SOON * 3, async || {
        let name = space.gateway.leader().await?;
        let pods = space.lockgate_pods().await?;
        let find = |leads: bool| {
            let mut pods = pods.iter();
            pods.find(|pod| (pod.name == name) == leads && pod.ready && !pod.terminating)
                .cloned()
        };
        let leader = find(true).with_context(|| format!("{name} is no pod that serves"))?;
        Ok((leader, find(false).context("no other pod")?))
    })
    .await
}

/// Waits until another pod leads and returns its name.
async fn leads_instead(space: &Space, before: &Pod, deadline: Duration) -> Result<String> {
    eventually("another replica leads", deadline, async || {
        let leader = space.gateway.leader().await?;
        ensure!(leader != before.name, "{leader} still leads");
        Ok(leader)
    })
    .await
}
