//! Nodes go: in good order, and without a word.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::cluster::note;
use e2e::node::Router;
use e2e::site;
use e2e::space::{ROLLOUT, Space};
use e2e::traffic::{ENOUGH, MIX};
use e2e::wait::{SOON, eventually};
use serde_json::{Value, json};

/// Kubernetes waits for 50 seconds before it takes a silent node for lost.
const LOST: Duration = Duration::from_mins(2);

#[tokio::test]
async fn draining_a_node_loses_no_request() -> Result<()> {
    let space = Space::alone("drain").await?;
    let mut site = site::manifests(4);
    add_budget(&mut site);
    let traffic = site::serve(&space, &site).await?;
    let nodes = on_nodes(&space).await?;
    ensure!(nodes.len() >= 2, "Lockgate is on {nodes:?} alone");
    let (node, _) = nodes.last_key_value().context("no node")?;

    let flow = traffic.start(&MIX)?;
    flow.proceed(1_000).await?;
    let begun = Instant::now();
    let timeout = format!("--timeout={}s", site::SETTLED.as_secs());
    let drain = [
        "drain",
        node,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--force",
        &timeout,
    ];
    let kubectl = &space.cluster.kubectl;
    kubectl
        .run_within(site::SETTLED + Duration::from_secs(15), &drain, "")
        .await?;
    let drained = begun.elapsed();
    flow.proceed(1_000).await?;
    kubectl.run(&["uncordon", node]).await?;
    site::settled(&space, site::SETTLED).await?;
    flow.proceed(1_000).await?;
    flow.reach(ENOUGH).await?;
    let tally = flow.stop().await?;
    note(&format!(
        "kubectl drain of a node: done after {drained:.1?}"
    ))?;
    tally.check("kubectl drain of a node with Lockgate and backends")?;
    spread(&space).await?;
    space.finish().await
}

/// Two of the four pods of the site have to be there at any time.
fn add_budget(site: &mut Value) {
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "web"},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}},
    });
    if let Some(items) = site.pointer_mut("/items").and_then(Value::as_array_mut) {
        items.push(budget);
    }
}

/// A node vanishes: its cable is pulled. What it had in flight is lost, and so is what is sent to it until everybody knows.
#[tokio::test]
async fn a_lost_node_is_left_behind() -> Result<()> {
    let space = Space::alone("lost-node").await?;
    if space.cluster.control().is_none() {
        note("a lost node: skipped, the nodes of this cluster are not the harness's")?;
        return space.finish().await;
    }
    let traffic = site::serve(&space, &site::manifests(4)).await?;
    let nodes = on_nodes(&space).await?;
    ensure!(nodes.len() >= 2, "Lockgate is on {nodes:?} alone");
    let (node, _) = nodes.last_key_value().context("no node")?;

    let traffic = traffic.timeout(Duration::from_secs(5));
    let flow = traffic.start(&MIX)?;
    flow.proceed(5_000).await?;
    let begun = Instant::now();
    Router.unplug(node).await?;
    let lost = async {
        let node_is_lost = eventually("Kubernetes takes the node for lost", LOST, async || {
            let object = ["get", "node", node];
            let node = space.cluster.kubectl.json(&object).await?;
            ensure!(!is_ready(&node), "still ready");
            Ok(())
        });
        node_is_lost.await?;
        let known = begun.elapsed();
        flow.proceed(1_000).await?;
        flow.reach(ENOUGH / 2).await?;
        anyhow::Ok(known)
    }
    .await;
    // Whatever has become of it, the next test needs the node.
    Router.plug(node).await?;
    let known = lost?;
    let tally = flow.stop().await?;
    let latest = tally.last_failure_after(begun).unwrap_or_default();
    tally.note(&format!(
        "a node is lost (known to Kubernetes after {known:.1?}, last failed request {latest:.1?} after)"
    ))?;
    eprintln!("{}", tally.told());
    ensure!(
        latest < known + Duration::from_secs(15),
        "requests fail for longer than the node is unknown to be lost:\n{}",
        tally.told()
    );

    let back = Instant::now();
    eventually("the node is ready again", ROLLOUT, async || {
        let node = space.cluster.kubectl.json(&["get", "node", node]).await?;
        ensure!(is_ready(&node), "not ready");
        Ok(())
    })
    .await?;
    site::settled(&space, ROLLOUT).await?;
    space.rolled_out(site::NAME).await?;
    let host = space.host("www");
    space.answers(&format!("https://{host}/"), 200).await?;
    note(&format!(
        "a lost node comes back: everything is ready {:.1?} after",
        back.elapsed()
    ))?;
    let flow = traffic.start(&MIX)?;
    flow.reach(ENOUGH / 2).await?;
    flow.stop().await?.none_failed("a lost node is back")?;
    spread(&space).await?;
    space.finish().await
}

/// How many pods of Lockgate each node has.
async fn on_nodes(space: &Space) -> Result<BTreeMap<String, usize>> {
    let mut nodes = BTreeMap::new();
    for pod in space.lockgate_pods().await? {
        *nodes.entry(pod.node).or_default() += 1;
    }
    Ok(nodes)
}

/// Brings Lockgate back onto both nodes: nothing in Kubernetes does so by itself after a drain.
async fn spread(space: &Space) -> Result<()> {
    site::settled(space, site::SETTLED).await?;
    if on_nodes(space).await?.len() < 2 {
        let restart = ["rollout", "restart", "deployment/lockgate"];
        space.gateway.kubectl(&restart).await?;
    }
    eventually("Lockgate is on both nodes", site::SETTLED, async || {
        let nodes = on_nodes(space).await?;
        ensure!(nodes.len() >= 2, "{nodes:?}");
        Ok(())
    })
    .await?;
    site::settled(space, site::SETTLED).await?;
    let host = space.host("www");
    let deadline = SOON * 3;
    eventually("everything is served again", deadline, async || {
        space.answers(&format!("https://{host}/"), 200).await
    })
    .await
    .map(drop)
}

fn is_ready(node: &Value) -> bool {
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| {
        condition.get("type") == Some(&Value::from("Ready"))
            && condition.get("status") == Some(&Value::from("True"))
    })
}
