//! Endpoints that are killed or cannot be reached any more, names that nobody resolves, a replica that runs out of memory.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::cluster::note;
use e2e::node::Process;
use e2e::site::{self, NAME};
use e2e::space::{ROLLOUT, Space};
use e2e::traffic::{Clients, MIX, Traffic};
use e2e::wait::{SOON, eventually};
use serde_json::{Value, json};

/// Enough to see what a fault does: some ten seconds of traffic.
const SOME: u64 = 30_000;
/// Endpoints that do not answer are asked for so long until all workers know.
const KNOWN: Duration = Duration::from_secs(15);
/// Answers that have begun are lost with the endpoint that gives them.
const BEGUN: u64 = 8;
/// Longer than the cluster's DNS lets an answer be kept.
const NAMELESS: Duration = Duration::from_secs(12);

/// Serves a site whose Ingress lets requests be sent to another endpoint when one fails.
async fn patient_site(space: &Space, pods: u32) -> Result<Traffic> {
    let traffic = site::serve(space, &site::manifests(pods)).await?;
    let annotations = json!({"metadata": {"annotations": {
        "nginx.ingress.kubernetes.io/proxy-next-upstream": "error timeout",
        "nginx.ingress.kubernetes.io/proxy-connect-timeout": "1",
        "nginx.ingress.kubernetes.io/proxy-read-timeout": "2",
    }}});
    space
        .patch(&format!("ingress/{NAME}"), &annotations)
        .await?;
    let host = space.host("www");
    space.answers(&format!("https://{host}/"), 200).await?;
    Ok(traffic)
}

/// The processes of the site's pods.
async fn processes(space: &Space) -> Result<Vec<Process>> {
    let selector = format!("--selector=app={NAME}");
    let list = space.json(&["get", "pods", &selector]).await?;
    let items = list.get("items").and_then(Value::as_array);
    let names = items
        .into_iter()
        .flatten()
        .filter_map(|pod| pod.pointer("/metadata/name")?.as_str());
    names
        .map(|name| Process::of_pod(name)?.with_context(|| format!("no process of {name}")))
        .collect()
}

#[tokio::test]
async fn endpoints_that_are_killed_cost_what_they_were_saying() -> Result<()> {
    let space = Space::alone("killed").await?;
    if space.cluster.control().is_none() {
        note("endpoints killed: skipped, the nodes of this cluster are not the harness's")?;
        return space.finish().await;
    }
    let traffic = patient_site(&space, 4).await?;
    let flow = traffic.start(&MIX)?;
    flow.proceed(1_000).await?;
    let killed = processes(&space).await?;
    let half = killed.len() / 2;
    ensure!(half >= 2, "{} pods", killed.len());
    for process in killed.iter().take(half) {
        process.kill()?;
    }
    flow.proceed(1_000).await?;
    space.rolled_out(NAME).await?;
    flow.reach(SOME).await?;
    let tally = flow.stop().await?;
    tally.note(&format!(
        "{half} of {} endpoints killed with SIGKILL",
        killed.len()
    ))?;
    ensure!(
        tally.failed() <= BEGUN * half as u64,
        "more than answers that had begun:\n{}",
        tally.told()
    );
    space.finish().await
}

#[tokio::test]
async fn endpoints_that_cannot_be_reached_are_left_out() -> Result<()> {
    let space = Space::alone("blackhole").await?;
    if space.cluster.control().is_none() {
        note("endpoints blackholed: skipped, the nodes of this cluster are not the harness's")?;
        return space.finish().await;
    }
    let traffic = patient_site(&space, 4).await?;
    let gateways = space.lockgate_pods().await?;
    let addresses: Vec<&str> = gateways.iter().map(|pod| pod.address.as_str()).collect();
    let endpoints = processes(&space).await?;
    let half = endpoints.len() / 2;
    let flow = traffic.start(&MIX)?;
    flow.proceed(1_000).await?;

    let begun = Instant::now();
    let lost = async {
        for process in endpoints.iter().take(half) {
            process.be_deaf_to(&addresses).await?;
        }
        flow.proceed(1_000).await?;
        flow.reach(SOME).await
    }
    .await;
    let away = begun.elapsed();
    for process in endpoints.iter().take(half) {
        process.hear().await?;
    }
    lost?;
    flow.proceed(5_000).await?;
    let tally = flow.stop().await?;
    let latest = tally.last_failure_after(begun).unwrap_or_default();
    tally.note(&format!(
        "{half} of {} endpoints blackholed for {away:.1?} (last failed request {latest:.1?} after)",
        endpoints.len()
    ))?;
    ensure!(
        latest < KNOWN,
        "requests still fail after {latest:.1?}:\n{}",
        tally.told()
    );
    space.finish().await
}

#[tokio::test]
async fn a_name_that_nobody_resolves_any_more_keeps_its_address() -> Result<()> {
    let space = Space::alone("nameless").await?;
    if space.cluster.control().is_none() {
        note("DNS gone: skipped, the DNS of this cluster is not the harness's")?;
        return space.finish().await;
    }
    space.origin("web", 2).await?;
    let target = format!("web.{}.svc.cluster.local", space.namespace);
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "named"},
        "spec": {
            "type": "ExternalName", "externalName": target,
            "ports": [{"name": "http", "port": 80}],
        },
    });
    space.apply(&service.to_string()).await?;
    let host = space.host("named");
    space.ingress("named", &host, "named", &json!({})).await?;
    space.answers(&format!("http://{host}/"), 200).await?;

    let plain: Vec<Clients> = MIX.into_iter().filter(|clients| !clients.tls).collect();
    let flow = Traffic::new(space.gateway_address(), &host).start(&plain)?;
    flow.proceed(1_000).await?;
    let dns = async |arguments: &[&str]| {
        let arguments = [&["--namespace", "kube-system"], arguments].concat();
        space.cluster.kubectl.run(&arguments).await
    };
    let deployment = "deployment/coredns";
    let replicas = dns(&["get", deployment, "--output=jsonpath={.spec.replicas}"]).await?;
    let before = format!("--replicas={}", replicas.trim());
    let gone = async {
        dns(&["scale", deployment, "--replicas=0"]).await?;
        eventually("the cluster's DNS is gone", ROLLOUT, async || {
            let pods = [
                "get",
                "pods",
                "--selector=k8s-app=kube-dns",
                "--output=name",
            ];
            let left = dns(&pods).await?;
            ensure!(left.trim().is_empty(), "{left}");
            Ok(())
        })
        .await?;
        let since = Instant::now();
        while since.elapsed() < NAMELESS {
            flow.proceed(500).await?;
        }
        anyhow::Ok(since.elapsed())
    }
    .await;
    // Whatever has become of it, the next test needs the names.
    dns(&["scale", deployment, &before]).await?;
    let limit = format!("--timeout={}s", ROLLOUT.as_secs());
    let back = [
        "--namespace",
        "kube-system",
        "rollout",
        "status",
        deployment,
        &limit,
    ];
    let patience = ROLLOUT + Duration::from_secs(15);
    space
        .cluster
        .kubectl
        .run_within(patience, &back, "")
        .await?;
    let away = gone?;
    let tally = flow.stop().await?;
    tally.none_failed(&format!(
        "the cluster's DNS away for {away:.1?}, an ExternalName"
    ))?;
    space.finish().await
}

#[tokio::test]
async fn a_replica_that_runs_out_of_memory_is_not_missed() -> Result<()> {
    let space = Space::alone("memory").await?;
    if space.cluster.control().is_none() {
        note("out of memory: skipped, the nodes of this cluster are not the harness's")?;
        return space.finish().await;
    }
    let traffic = site::serve(&space, &site::manifests(2)).await?;
    let pods = space.lockgate_pods().await?;
    let [one, other] = pods.as_slice() else {
        anyhow::bail!("this needs two replicas: {pods:?}");
    };
    let flow = traffic.clone().of_pod(other.address.parse()?).start(&MIX)?;
    let all = traffic.start(&MIX[..1])?;
    flow.proceed(1_000).await?;

    let begun = Instant::now();
    Process::of_pod(&one.name)?
        .with_context(|| format!("no process of {}", one.name))?
        .run_out_of_memory()?;
    let reason = eventually("the container is started anew", ROLLOUT, async || {
        let pods = space.lockgate_pods().await?;
        let pod = pods.iter().find(|pod| pod.name == one.name);
        let pod = pod.context("the pod is gone")?;
        ensure!(pod.restarts > one.restarts, "{} restarts", pod.restarts);
        let last = "--output=jsonpath={.status.containerStatuses[0].lastState.terminated.reason}";
        space
            .gateway
            .kubectl(&["get", "pod", &one.name, last])
            .await
    })
    .await?;
    let restarted = begun.elapsed();
    site::settled(&space, ROLLOUT).await?;
    flow.reach(SOME).await?;
    let through = all.stop().await?;
    let last = through.last_failure_after(begun).unwrap_or_default();
    through.note(&format!(
        "a replica out of memory ({reason}, started anew {restarted:.1?} after), through the load balancer (last {last:.1?} after)"
    ))?;
    ensure!(last < KNOWN, "{}", through.told());
    flow.stop()
        .await?
        .none_failed("a replica out of memory, on the other one")?;
    let host = space.host("www");
    eventually("everything is served again", SOON * 3, async || {
        space.answers(&format!("https://{host}/"), 200).await
    })
    .await?;
    space.finish().await
}
