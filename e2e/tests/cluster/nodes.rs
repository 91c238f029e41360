//! What all the other tests stand on: nodes, cluster DNS, Services, a load balancer.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::client::Client;
use e2e::cluster::{CLIENT, Running};
use e2e::observe;
use e2e::space::Space;
use e2e::wait::{SOON, eventually};
use serde_json::{Value, json};

/// Until a pod has run to its end.
const DONE: Duration = Duration::from_mins(2);

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

#[tokio::test]
async fn a_pod_reaches_a_service_on_another_node_by_its_name() -> Result<()> {
    let space = Space::new("names").await?;
    space.origin("web", 1).await?;
    let origin = origin_node(&space).await?;
    let nodes = space.cluster.kubectl.json(&["get", "nodes"]).await?;
    let names = nodes.pointer("/items").and_then(Value::as_array);
    let other = names
        .into_iter()
        .flatten()
        .filter(|node| node.pointer("/spec/taints").is_none())
        .filter_map(|node| node.pointer("/metadata/name")?.as_str())
        .find(|node| *node != origin)
        .context("no other node")?;

    // Static programs that ask the C library for an address find none, so that the shell does it step by step.
    let ask = format!(
        "address=$(nslookup web.{}.svc.cluster.local | sed -n 's/^Address: //p') && \
         printf 'GET /from/afar HTTP/1.0\r\n\r\n' | nc \"$address\" 80",
        space.namespace
    );
    let manifest = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client"},
        "spec": {
            "nodeName": other, "restartPolicy": "Never",
            "containers": [{
                "name": "client", "image": "localhost/busybox:e2e",
                "command": ["/bin/busybox", "sh", "-c", ask],
            }],
        },
    });
    space.apply(&manifest.to_string()).await?;
    let ended = "--for=jsonpath={.status.phase}=Succeeded";
    space.wait(DONE, &["wait", ended, "pod/client"]).await?;
    let answer = space.kubectl(&["logs", "pod/client"]).await?;
    let (_, body) = answer.split_once("\n\n").context(answer.clone())?;
    let body: Value = serde_json::from_str(body)?;
    assert_eq!(body["path"], "/from/afar", "{body}");
    assert_eq!(body["node"], origin.as_str(), "{body}");
    space.finish().await
}

#[tokio::test]
async fn a_load_balancer_shows_pods_the_address_of_the_client() -> Result<()> {
    let space = Space::new("balancer").await?;
    if space.cluster.control().is_none() {
        eprintln!("skipped: what a load balancer does with addresses is up to the cluster");
        return space.finish().await;
    }
    // On one of two nodes: the load balancer has to find out which.
    space.origin("web", 1).await?;
    let service =
        |policy: &str| json!({"spec": {"type": "LoadBalancer", "externalTrafficPolicy": policy}});
    space.patch("service/web", &service("Local")).await?;
    let address = address(&space).await?;
    let client = Client::new(address)?;
    let node = origin_node(&space).await?;
    let ask = async || {
        let reply = client.get("http://web.invalid/").await?;
        ensure!(reply.status == 200, "{}", reply.status);
        reply.json()
    };
    let first = eventually("the load balancer serves", SOON, ask).await?;
    assert_eq!(first["node"], node.as_str(), "{first}");
    for _ in 0..20 {
        let answer = ask().await?;
        assert_eq!(seen_client(&answer)?, CLIENT, "{answer}");
    }

    // Every node serves, and those without a pod send connections on.
    space.patch("service/web", &service("Cluster")).await?;
    eventually("every node serves", SOON, async || {
        let mut seen = BTreeSet::new();
        for _ in 0..8 {
            let answer = ask().await?;
            seen.insert(seen_client(&answer)?);
        }
        // The node that the connection came to puts its own address in place of the client's.
        ensure!(
            seen.len() == 2 && !seen.contains(&CLIENT.into()),
            "{seen:?}"
        );
        Ok(())
    })
    .await?;
    space.finish().await
}

/// Whom the origin takes for its client.
fn seen_client(answer: &Value) -> Result<IpAddr> {
    let peer: SocketAddr = answer["client"].as_str().context("no client")?.parse()?;
    Ok(peer.ip())
}

/// The node of the only origin.
async fn origin_node(space: &Space) -> Result<String> {
    let node = "jsonpath={.items[0].spec.nodeName}";
    space
        .kubectl(&["get", "pods", "--selector=app=web", "--output", node])
        .await
}

async fn address(space: &Space) -> Result<IpAddr> {
    eventually("the Service has an address", SOON, async || {
        let kubectl = &space.cluster.kubectl;
        let addresses = observe::addresses(kubectl, &space.namespace, "service/web").await?;
        Ok(addresses.first().context("no address")?.parse()?)
    })
    .await
}
