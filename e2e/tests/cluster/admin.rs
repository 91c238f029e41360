//! What an operator sees of each pod: probes, metrics, routes, logs.

use anyhow::{Context as _, Result, ensure};
use e2e::space::Space;
use e2e::wait::{SOON, eventually};
use serde_json::{Value, json};

#[tokio::test]
async fn every_pod_is_ready_and_tells_its_metrics_and_routes() -> Result<()> {
    let space = Space::new("admin").await?;
    let host = space.host("www");
    space.origin("web", 1).await?;
    space.ingress("web", &host, "web", &json!({})).await?;
    space.answers(&format!("http://{host}/"), 200).await?;

    let pods = space.lockgate_pods().await?;
    ensure!(pods.len() == 2, "two replicas are shipped: {pods:#?}");
    let mut leaders = 0.0;
    for pod in &pods {
        let name = pod.name.as_str();
        ensure!(pod.ready, "{name} is not ready");
        space.admin(name, "/readyz").await?;
        space.admin(name, "/healthz").await?;
        let routes = space.admin(name, "/debug/routes").await?;
        ensure!(routes.contains(&host), "{name} does not know {host}");
        for metric in ["lockgate_table_generation", "lockgate_build_info"] {
            let value = space.gateway.metric(name, metric).await?;
            ensure!(value >= 1.0, "{name}: {metric} is {value}");
        }
        leaders += space.gateway.metric(name, "lockgate_leader").await?;
    }
    ensure!((leaders - 1.0).abs() < 0.1, "{leaders} leaders");
    // The load balancer spreads connections: in the end each pod has had some.
    let client = space.client()?;
    eventually("each pod counts requests of this host", SOON, async || {
        client.get(&format!("http://{host}/counted")).await?;
        for pod in &pods {
            let text = space.admin(&pod.name, "/metrics").await?;
            let counted = text
                .lines()
                .any(|line| line.starts_with("lockgate_requests_total{") && line.contains(&host));
            ensure!(counted, "{} has counted none", pod.name);
        }
        Ok(())
    })
    .await?;
    space.finish().await
}

#[tokio::test]
async fn nothing_of_the_admin_port_is_reached_from_outside() -> Result<()> {
    let space = Space::new("admin-outside").await?;
    let client = space.client()?;
    let address = space.gateway_address();
    for path in ["/metrics", "/debug/routes", "/healthz", "/readyz"] {
        let reply = client.get(&format!("http://{address}{path}")).await?;
        ensure!(reply.status == 404, "{path}: {}", reply.status);
    }
    let admin = format!("http://{address}:10254/");
    ensure!(
        client.connect(&admin).await.is_err(),
        "the Service exposes the admin port"
    );
    space.finish().await
}

#[tokio::test]
async fn kubectl_logs_shows_requests_line_by_line() -> Result<()> {
    let space = Space::new("admin-logs").await?;
    let host = space.host("www");
    space.origin("web", 1).await?;
    space.ingress("web", &host, "web", &json!({})).await?;
    space.answers(&format!("http://{host}/"), 200).await?;
    let reply = space
        .client()?
        .get(&format!("http://{host}/findable?a=b"))
        .await?;
    let line = eventually("the request is in a log", SOON, async || {
        for pod in space.lockgate_pods().await? {
            let log = space
                .gateway
                .kubectl(&["logs", &pod.name, "--since=2m"])
                .await?;
            let mut lines = log.lines();
            if let Some(line) =
                lines.find(|line| line.contains("/findable") && line.contains(&host))
            {
                return Ok(line.to_owned());
            }
        }
        anyhow::bail!("not there")
    })
    .await?;
    let line: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
    let text = line.to_string();
    for expected in [space.namespace.as_str(), "\"web\"", "200", "GET"] {
        ensure!(text.contains(expected), "{expected} is not in {line:#}");
    }
    // The client is the one outside the cluster, not a node on the way.
    let seen = reply.json()?;
    let client = seen.pointer("/headers/x-forwarded-for/0");
    let client = client
        .and_then(Value::as_str)
        .context("no x-forwarded-for")?;
    ensure!(text.contains(client), "{client} is not in {line:#}");

    // Every line can be read by a program.
    for pod in space.lockgate_pods().await? {
        let log = space
            .gateway
            .kubectl(&["logs", &pod.name, "--tail=200"])
            .await?;
        for line in log.lines() {
            serde_json::from_str::<Value>(line).with_context(|| format!("no JSON: {line}"))?;
        }
    }
    space.finish().await
}
