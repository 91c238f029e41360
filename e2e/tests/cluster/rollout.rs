//! Backends change under load.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::cluster::note;
use e2e::site::{self, NAME, set};
use e2e::space::{ROLLOUT, Space};
use e2e::traffic::{ENOUGH, MIX};
use e2e::wait::{SOON, eventually};
use serde_json::{Value, json};

/// From the moment when the last pod does not answer any more to the moment when Lockgate knows: its end is told to the API
/// server, and a connection to an address that is gone is given up.
const MEET_NOBODY: Duration = Duration::from_secs(15);

/// The condition that pods of the rolling update wait for.
const GATE: &str = "e2e.lockgate.dev/checked";

#[tokio::test]
async fn rolling_updates_of_a_backend_lose_no_request() -> Result<()> {
    let space = Space::alone("rollout").await?;
    let mut site = site::manifests(4);
    set(
        &mut site,
        "/items/0/spec/template/spec/readinessGates",
        json!([{"conditionType": GATE}]),
    );
    let traffic = {
        let opened = open_gates(&space);
        let served = site::serve(&space, &site);
        tokio::select! {
            served = served => served?,
            failed = opened => return failed,
        }
    };
    let flow = traffic.start(&MIX)?;
    flow.proceed(1_000).await?;
    let mut rollouts = 0;
    while rollouts < 2 || flow.answers() < ENOUGH {
        rollouts += 1;
        let restart = ["rollout", "restart", "deployment/web"];
        space.kubectl(&restart).await?;
        tokio::select! {
            done = space.rolled_out(NAME) => done?,
            failed = open_gates(&space) => return failed,
        }
        // The pods before linger for a while.
        gone(&space, 4).await?;
        flow.proceed(1_000).await?;
    }
    let tally = flow.stop().await?;
    tally.check(&format!(
        "{rollouts} rolling updates of a backend of 4 pods with a readiness gate"
    ))?;
    space.finish().await
}

/// Plays the controller that says of each pod that it may be used. Ends only when it fails.
async fn open_gates(space: &Space) -> Result<()> {
    loop {
        eventually("a pod waits for its gate", ROLLOUT, async || {
            let pods = space.json(&["get", "pods"]).await?;
            let waiting = items(&pods)
                .find(|pod| running(pod) && !has(pod, GATE))
                .and_then(|pod| pod.pointer("/metadata/name")?.as_str())
                .context("none does")?;
            let condition = json!({"status": {"conditions": [{"type": GATE, "status": "True"}]}});
            let arguments = [
                "patch",
                "pod",
                waiting,
                "--subresource=status",
                "--type=strategic",
                "--patch",
                &condition.to_string(),
            ];
            space.kubectl(&arguments).await
        })
        .await?;
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    let items = list.get("items").and_then(Value::as_array);
    items.into_iter().flatten()
}

fn running(pod: &Value) -> bool {
    pod.pointer("/status/phase") == Some(&Value::from("Running"))
        && pod.pointer("/metadata/deletionTimestamp").is_none()
}

fn has(pod: &Value, condition: &str) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions
        .into_iter()
        .flatten()
        .any(|found| found.get("type") == Some(&Value::from(condition)))
}

/// Waits until there are exactly so many pods, those that terminate included.
async fn gone(space: &Space, pods: usize) -> Result<()> {
    eventually(&format!("{pods} pods are there"), ROLLOUT, async || {
        let list = space.json(&["get", "pods"]).await?;
        let found = items(&list).count();
        ensure!(found == pods, "{found}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn scaling_a_backend_loses_no_request_as_long_as_there_is_a_pod() -> Result<()> {
    let space = Space::alone("scaling").await?;
    let traffic = site::serve(&space, &site::manifests(1)).await?;
    let url = format!("http://{}/", space.host("www"));
    let scale = async |replicas: usize| {
        let replicas_argument = format!("--replicas={replicas}");
        let arguments = ["scale", "deployment/web", &replicas_argument];
        space.kubectl(&arguments).await?;
        space.rolled_out(NAME).await?;
        gone(&space, replicas).await
    };

    let flow = traffic.start(&MIX)?;
    flow.proceed(1_000).await?;
    scale(10).await?;
    flow.proceed(1_000).await?;
    scale(3).await?;
    flow.reach(ENOUGH / 2).await?;
    flow.stop()
        .await?
        .none_failed("scaling a backend 1 → 10 → 3")?;

    // The last pods are asked for as long as they are in the EndpointSlices, which is a little longer than they answer:
    // from 200 to 503 there may be a few requests that meet nobody any more.
    let flow = traffic.clone().expecting("200,503").start(&MIX)?;
    flow.proceed(1_000).await?;
    scale(0).await?;
    let reply = space.answers(&url, 503).await?;
    ensure!(
        reply.header("cache-control").contains("no-store"),
        "{:?}",
        reply.headers
    );
    let tally = flow.stop().await?;
    tally.note(
        "scaling a backend 3 → 0, the last pods do not answer any more and are still listed",
    )?;
    ensure!(
        tally.only_wrong_answers() && tally.failing_for() < MEET_NOBODY,
        "{}",
        tally.told()
    );

    let flow = traffic.clone().expecting("503").start(&MIX)?;
    flow.proceed(5_000).await?;
    flow.stop()
        .await?
        .none_failed("a backend of 0 pods, answered with 503")?;
    let mut refused = 0.0;
    for pod in space.lockgate_pods().await? {
        let metrics = space.admin(&pod.name, "/metrics").await?;
        let told = metrics.lines().filter(|line| {
            line.starts_with("lockgate_generated_responses_total{") && line.contains("no-endpoints")
        });
        refused += told
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>();
    }
    ensure!(
        refused >= 5_000.0,
        "`no-endpoints` is counted {refused} times"
    );

    let flow = traffic.clone().expecting("200,503").start(&MIX)?;
    scale(3).await?;
    let since = Instant::now();
    space.answers(&url, 200).await?;
    note(&format!(
        "scaling a backend 0 → 3: served {:.1?} after kubectl says it is rolled out",
        since.elapsed()
    ))?;
    flow.stop()
        .await?
        .none_failed("scaling a backend 0 → 3, answered with 503, then with 200")?;

    let flow = traffic.start(&MIX)?;
    flow.reach(ENOUGH / 2).await?;
    flow.stop()
        .await?
        .none_failed("a backend of 3 that was 0")?;
    eventually("nothing is wrong with the Ingress", SOON, async || {
        let events = space.events("Ingress", NAME).await?;
        let warning = events.iter().rev().find(|event| event.kind == "Warning");
        ensure!(
            warning.is_none_or(|event| event.message.contains("endpoint")),
            "{warning:?}"
        );
        Ok(())
    })
    .await?;
    space.finish().await
}
