//! Lockgate itself is replaced under load.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::cluster::note;
use e2e::site;
use e2e::space::{ROLLOUT, Space};
use e2e::traffic::{ENOUGH, MIX};

#[tokio::test]
async fn a_rolling_update_of_lockgate_loses_no_request() -> Result<()> {
    let space = Space::alone("upgrade").await?;
    let traffic = site::serve(&space, &site::manifests(2)).await?;
    let before: BTreeSet<String> = names(&space).await?;

    let flow = traffic.start(&MIX)?;
    flow.proceed(1_000).await?;
    let begun = Instant::now();
    space
        .gateway
        .kubectl(&["rollout", "restart", "deployment/lockgate"])
        .await?;
    let timeout = format!("--timeout={}s", ROLLOUT.as_secs());
    let status = [
        "--namespace",
        &space.gateway.namespace,
        "rollout",
        "status",
        "deployment/lockgate",
        &timeout,
    ];
    space
        .cluster
        .kubectl
        .run_within(ROLLOUT + Duration::from_secs(15), &status, "")
        .await?;
    let rolled_out = begun.elapsed();
    let replicas = site::settled(&space, site::SETTLED).await?;
    let settled = begun.elapsed();
    flow.proceed(5_000).await?;
    flow.reach(ENOUGH).await?;
    let tally = flow.stop().await?;
    note(&format!(
        "rolling update of Lockgate, {replicas} replicas: rolled out after {rolled_out:.1?}, the last old pod gone after {settled:.1?}"
    ))?;
    tally.check("rolling update of Lockgate")?;

    let after = names(&space).await?;
    ensure!(before.is_disjoint(&after), "{before:?} and {after:?}");
    let nodes: BTreeSet<String> = space
        .lockgate_pods()
        .await?
        .into_iter()
        .map(|pod| pod.node)
        .collect();
    ensure!(
        nodes.len() == replicas.min(2),
        "all of Lockgate is on {nodes:?}"
    );
    space.finish().await
}

async fn names(space: &Space) -> Result<BTreeSet<String>> {
    let pods = space.lockgate_pods().await?;
    Ok(pods.into_iter().map(|pod| pod.name).collect())
}
