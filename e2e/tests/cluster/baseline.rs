//! What an installation needs from the cluster's network, which docs/network.md lists: nothing has to be allowed first.

use anyhow::{Context as _, Result, ensure};
use e2e::space::Space;
use serde_json::{Value, json};

#[tokio::test]
async fn it_serves_without_any_network_policy() -> Result<()> {
    let space = Space::new("baseline").await?;
    let list = space
        .cluster
        .kubectl
        .json(&["get", "networkpolicies", "--all-namespaces"])
        .await?;
    let policies = list.get("items").and_then(Value::as_array);
    ensure!(
        policies.is_some_and(Vec::is_empty),
        "this cluster has some: {list:#}"
    );
    space.origin("web", 1).await?;
    let host = space.host("www");
    space.ingress("web", &host, "web", &json!({})).await?;
    let reply = space.answers(&format!("http://{host}/"), 200).await?;
    ensure!(reply.json()?["host"] == json!(host), "{}", reply.body);
    space.finish().await
}

/// The page names the ports that the shipped objects have, and no others.
#[tokio::test]
async fn the_documented_ports_are_the_shipped_ones() -> Result<()> {
    let space = Space::new("ports").await?;
    let page = include_str!("../../../docs/network.md");
    let containers = space
        .gateway
        .kubectl(&["get", "deployment", "lockgate", "--output=json"])
        .await?;
    let deployment: Value = serde_json::from_str(&containers)?;
    let ports = deployment
        .pointer("/spec/template/spec/containers/0/ports")
        .and_then(Value::as_array)
        .context("no ports")?;
    let mut shipped: Vec<u64> = ports
        .iter()
        .filter_map(|port| port.get("containerPort")?.as_u64())
        .collect();
    let rows = page.lines().filter(|line| line.starts_with("| to it"));
    let mut documented: Vec<u64> = rows
        .flat_map(|row| row.split(|c: char| !c.is_ascii_digit()))
        .filter_map(|word| word.parse().ok())
        .filter(|port| *port > 1000)
        .collect();
    shipped.sort_unstable();
    documented.sort_unstable();
    documented.dedup();
    ensure!(
        shipped == documented,
        "shipped {shipped:?}, documented {documented:?}"
    );
    space.finish().await
}
