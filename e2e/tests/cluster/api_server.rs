//! The API server goes away and comes back.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::client::Client;
use e2e::cluster::note;
use e2e::node::{Process, Router, in_namespace};
use e2e::site::{self, NAME};
use e2e::space::{Pod, ROLLOUT, Space};
use e2e::traffic::{ENOUGH, MIX};
use e2e::wait::{eventually, throughout};
use serde_json::{Value, json};

const API_SERVER: &str = "kube-apiserver";
/// How long it is away.
const AWAY: Duration = Duration::from_mins(1);
/// Until it has read everything from etcd, and kubelets and watches have noticed.
const RETURN: Duration = Duration::from_mins(2);
/// Where etcd is in the network of the control plane.
const ETCD: &str = "http://198.51.100.1:2379";

#[tokio::test]
async fn an_api_server_that_is_away_for_a_minute_is_not_missed() -> Result<()> {
    let space = Space::alone("api-server").await?;
    let Some(control) = space.cluster.control() else {
        note("API server away: skipped, the one of this cluster is not the harness's")?;
        return space.finish().await;
    };
    let traffic = site::serve(&space, &site::manifests(2)).await?;
    let pods = space.lockgate_pods().await?;
    let [one, other] = pods.as_slice() else {
        anyhow::bail!("this needs two replicas: {pods:?}");
    };
    let flow = traffic.start(&MIX)?;
    flow.proceed(1_000).await?;

    control.kill(API_SERVER).await?;
    let away = async {
        throughout("every replica stays ready", AWAY, async || {
            for pod in &pods {
                let status = readiness(pod).await?;
                ensure!(status == 200, "{}: /readyz: {status}", pod.name);
            }
            Ok(())
        })
        .await?;
        flow.reach(ENOUGH).await?;
        let tally = flow.stop().await?;
        tally.check("API server away for 60 s")?;

        // A container that starts now knows nothing and says so. Nobody can tell the Service, so requests are sent to the
        // other replica alone.
        let flow = traffic
            .clone()
            .of_pod(other.address.parse()?)
            .start(&MIX[..1])?;
        Process::of_pod(&one.name)?
            .with_context(|| format!("no process of {}", one.name))?
            .kill()?;
        eventually("the container is started anew", ROLLOUT, async || {
            let status = readiness(one).await?;
            ensure!(status == 503, "/readyz: {status}");
            Ok(())
        })
        .await?;
        throughout("it is not ready", Duration::from_secs(3), async || {
            let status = readiness(one).await?;
            ensure!(status == 503, "/readyz: {status}");
            Ok(())
        })
        .await?;
        refuses(one).await?;
        flow.proceed(1_000).await?;
        flow.stop()
            .await?
            .none_failed("API server away, on the replica that was not started anew")
    }
    .await;
    let back = Instant::now();
    control.start(API_SERVER).await?;
    away?;
    serves_again(&space).await?;
    let serves = back.elapsed();
    let picked_up = picks_up(&space, &pods, "returned").await?;
    eventually(
        "the replica that was started anew is ready",
        RETURN,
        async || {
            let status = readiness(one).await?;
            ensure!(status == 200, "/readyz: {status}");
            Ok(())
        },
    )
    .await?;
    note(&format!(
        "API server back: it serves {serves:.1?} after its start, a change is served {picked_up:.1?} after it is made, the \
         replica that was started anew meanwhile is ready {:.1?} after",
        back.elapsed()
    ))?;
    site::settled(&space, ROLLOUT).await?;
    space.finish().await
}

/// Changes are made and etcd forgets them while no watch is there: the API server answers 410 Gone, and everything is
/// listed anew.
#[tokio::test]
async fn a_history_that_is_gone_is_made_up_for() -> Result<()> {
    let space = Space::alone("compaction").await?;
    let Some(control) = space.cluster.control() else {
        note("etcd compacted: skipped, the one of this cluster is not the harness's")?;
        return space.finish().await;
    };
    let traffic = site::serve(&space, &site::manifests(2)).await?;
    let pods = space.lockgate_pods().await?;
    space
        .ingress("goes", &space.host("goes"), NAME, &json!({}))
        .await?;
    space
        .answers(&format!("http://{}/", space.host("goes")), 200)
        .await?;
    let gone = async || {
        let mut sum = 0.0;
        for pod in &pods {
            let text = Client::new(pod.address.parse()?)?
                .get("http://admin.invalid:10254/metrics")
                .await?
                .body;
            sum += expired(&text);
        }
        anyhow::Ok(sum)
    };
    let before = gone().await?;
    let flow = traffic.start(&MIX)?;
    flow.proceed(1_000).await?;

    let addresses: Vec<&str> = pods.iter().map(|pod| pod.address.as_str()).collect();
    Router.cut_from_api_server(&addresses).await?;
    let changed = async {
        space.kubectl(&["delete", "ingress", "goes"]).await?;
        space
            .ingress("comes", &space.host("comes"), NAME, &json!({}))
            .await?;
        compact().await?;
        // What the API server has in memory is older than what etcd still has.
        control.kill(API_SERVER).await?;
        control.start(API_SERVER).await?;
        serves_again(&space).await
    }
    .await;
    Router.let_through().await?;
    changed?;
    let through = Instant::now();
    let [comes, goes] = ["comes", "goes"].map(|name| format!("http://{}/", space.host(name)));
    eventually("what was changed meanwhile is served", RETURN, async || {
        for pod in &pods {
            let client = Client::new(pod.address.parse()?)?;
            for (host, expected) in [(&comes, 200), (&goes, 404)] {
                let url = host.replacen(".example.com/", ".example.com:8080/", 1);
                let status = client.get(&url).await?.status;
                ensure!(status == expected, "{}: {url}: {status}", pod.name);
            }
        }
        Ok(())
    })
    .await?;
    let made_up = through.elapsed();
    picks_up(&space, &pods, "after-compaction").await?;
    // Watches come back one by one, each after a pause of its own.
    let counted = eventually("a watch is told 410 Gone", RETURN, async || {
        let counted = gone().await? - before;
        ensure!(counted >= 1.0, "none is yet");
        Ok(counted)
    })
    .await?;
    note(&format!(
        "etcd compacted while watches were cut: {counted} watches told that their history is gone, what changed meanwhile is \
         served {made_up:.1?} after the cut"
    ))?;
    flow.reach(ENOUGH).await?;
    flow.stop()
        .await?
        .check("etcd compacted, API server restarted")?;
    space.finish().await
}

/// Asks a pod itself, not through the API server.
async fn readiness(pod: &Pod) -> Result<u16> {
    let client = Client::new(pod.address.parse::<IpAddr>()?)?;
    let reply = client.get("http://admin.invalid:10254/readyz").await?;
    Ok(reply.status.as_u16())
}

/// A replica without a state must not keep clients waiting.
async fn refuses(pod: &Pod) -> Result<()> {
    let begun = Instant::now();
    let client = Client::new(pod.address.parse::<IpAddr>()?)?;
    let answer = client.get("http://nobody.example.com:8080/").await;
    ensure!(
        answer.is_err() && begun.elapsed() < Duration::from_secs(2),
        "{answer:?} after {:?}",
        begun.elapsed()
    );
    Ok(())
}

async fn serves_again(space: &Space) -> Result<()> {
    eventually("the API server serves again", RETURN, async || {
        let ready = ["get", "--raw", "/readyz", "--request-timeout=2s"];
        space.cluster.kubectl.run(&ready).await.map(drop)
    })
    .await
}

/// A new Ingress is served by every replica; says how long that took.
async fn picks_up(space: &Space, pods: &[Pod], name: &str) -> Result<Duration> {
    let host = space.host(name);
    let begun = Instant::now();
    eventually("an Ingress can be made", RETURN, async || {
        space.ingress(name, &host, NAME, &json!({})).await
    })
    .await?;
    eventually("a new Ingress is served", RETURN, async || {
        for pod in pods {
            let client = Client::new(pod.address.parse()?)?;
            let status = client.get(&format!("http://{host}:8080/")).await?.status;
            ensure!(status == 200, "{}: {status}", pod.name);
        }
        Ok(())
    })
    .await?;
    let served = begun.elapsed();
    site::status_written(space, name).await?;
    Ok(served)
}

/// How many watches were told that what they ask for is gone, as a pod's metrics count.
fn expired(metrics: &str) -> f64 {
    let lines = metrics.lines().filter(|line| {
        line.starts_with("lockgate_watch_restarts_total{") && line.contains("reason=\"gone\"")
    });
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// Makes etcd forget everything but the present.
async fn compact() -> Result<()> {
    let ask = async |path: &str, body: Value| {
        let url = format!("{ETCD}/v3/kv/{path}");
        let body = body.to_string();
        let arguments = ["--silent", "--show-error", "--fail", "--data", &body, &url];
        let answer = in_namespace("/proc/1/ns/net", "curl", &arguments, "").await?;
        anyhow::Ok(serde_json::from_str::<Value>(&answer)?)
    };
    let head = ask("range", json!({"key": "AA==", "limit": "1"})).await?;
    let revision = head
        .pointer("/header/revision")
        .cloned()
        .context("etcd names no revision")?;
    ask(
        "compaction",
        json!({"revision": revision, "physical": true}),
    )
    .await?;
    Ok(())
}
