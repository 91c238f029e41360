//! What all the other tests stand on: nodes, cluster DNS, Services, a load balancer.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use e2e::cluster::Running;
use serde_json::Value;

#[tokio::test]
async fn two_nodes_in_two_zones_are_ready() -> Result<()> {
    let cluster = Running::from_environment()?;
    let list = cluster.kubectl.json(&["get", "nodes"]).await?;
    let nodes = list
        .pointer("/items")
        .and_then(Value::as_array)
        .context("no list of nodes")?;
    let mut zones = BTreeSet::new();
    for node in nodes {
        let zone = node.pointer("/metadata/labels/topology.kubernetes.io~1zone");
        zones.extend(zone.and_then(Value::as_str));
        let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
        let ready = conditions.into_iter().flatten().any(|condition| {
            condition.get("type") == Some(&Value::from("Ready"))
                && condition.get("status") == Some(&Value::from("True"))
        });
        ensure!(ready, "not ready: {node:#}");
    }
    ensure!(zones.len() >= 2, "zones: {zones:?}");
    Ok(())
}
