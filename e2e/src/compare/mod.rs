//! Lockgate and a peer side by side in one cluster, under the load of clients outside of it.

mod generator;
mod page;
mod traefik;
pub(crate) mod usage;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::client::{Client, Version};
use crate::space::{Space, ingress_manifest, origin_manifests};
use crate::wait::eventually;

use generator::Generator;
pub use generator::{Case, Shot};
use page::Facts;

const ORIGINS: u32 = 3;
const BODY: usize = 1024;
const SERVICE: &str = "web";
const SECRET: &str = "tls";
/// How long the machine is watched before the load.
const QUIET: Duration = Duration::from_secs(10);
/// Until both have taken up their Ingresses.
const SERVED: Duration = Duration::from_mins(1);

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How often each case is measured with each gateway.
    pub rounds: usize,
    /// How long each time.
    pub seconds: u64,
    /// The image of Traefik, which is on the nodes.
    pub traefik: String,
    /// The folder that the page is written to.
    pub results: PathBuf,
    /// For the page, such as 2030-01-31.
    pub date: String,
}

/// One run of a generator against one gateway.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The gateway's name.
    pub gateway: String,
    /// What the clients spoke.
    pub case: Case,
    /// Runs of one round are compared with each other.
    pub round: usize,
    /// What the clients saw.
    pub shot: Shot,
    /// CPU seconds of the gateway's pods, where they can be seen.
    pub cpu: Option<f64>,
    /// Memory of the gateway's pods in bytes.
    pub resident: Option<u64>,
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts and sizes far below 2^53"
)]
impl Sample {
    fn throughput(&self) -> f64 {
        self.shot.requests as f64 / self.shot.seconds
    }

    fn per_cpu_second(&self) -> Option<f64> {
        let cpu = self.cpu.filter(|cpu| *cpu > 0.0)?;
        Some(self.shot.requests as f64 / cpu)
    }

    fn mebibytes(&self) -> Option<f64> {
        Some(self.resident? as f64 / f64::from(1 << 20))
    }
}

struct Gateway {
    name: &'static str,
    namespace: String,
    selector: &'static str,
    host: String,
    address: IpAddr,
}

/// Installs Traefik and backends, measures, removes them, and writes the page. Returns where it is and what it says.
pub async fn run(plan: &Plan) -> Result<(PathBuf, String)> {
    let space = Space::alone("load").await?;
    let outcome = measure(plan, &space).await;
    let removed = traefik::uninstall(&space).await;
    let page = outcome?;
    removed?;
    space.finish().await?;
    std::fs::create_dir_all(&plan.results)?;
    let file = plan.results.join(format!("{}-cluster.md", plan.date));
    std::fs::write(&file, &page).with_context(|| format!("cannot write {}", file.display()))?;
    Ok((file, page))
}

async fn measure(plan: &Plan, space: &Space) -> Result<String> {
    let gateways = prepare(plan, space).await?;
    let before = idle().await?;
    let folder = tempfile::tempdir()?;
    let hosts: Vec<String> = gateways
        .iter()
        .map(|gateway| format!("{} {}\n", gateway.address, gateway.host))
        .collect();
    let hosts = hosts.concat();
    let warm = Generator::new(folder.path(), &hosts, 3)?;
    let generator = Generator::new(folder.path(), &hosts, plan.seconds)?;
    let mut samples = Vec::new();
    for round in 0..=plan.rounds {
        for case in Case::ALL {
            // Who comes first changes from round to round.
            let mut order: Vec<&Gateway> = gateways.iter().collect();
            if round % 2 == 0 {
                order.reverse();
            }
            for gateway in order {
                if round == 0 {
                    // Everything is warm afterwards.
                    warm.run(case, &gateway.host).await?;
                    continue;
                }
                let sample = sample(space, &generator, gateway, case, round).await?;
                tell(&sample);
                samples.push(sample);
            }
        }
    }
    let facts = Facts {
        date: plan.date.clone(),
        rounds: plan.rounds,
        seconds: plan.seconds,
        body: BODY,
        origins: ORIGINS,
        lines: [facts(space).await, vec![before]].concat(),
        gateways: gateways
            .iter()
            .map(|gateway| gateway.name.to_owned())
            .collect(),
    };
    Ok(page::render(&facts, &samples))
}

/// Starts everything and waits until each gateway serves what it has to.
async fn prepare(plan: &Plan, space: &Space) -> Result<Vec<Gateway>> {
    let address = traefik::install(space, &plan.traefik).await?;
    let gateways = vec![
        Gateway {
            name: "Lockgate",
            namespace: space.gateway.namespace.clone(),
            selector: "app.kubernetes.io/name=lockgate",
            host: space.host("lockgate"),
            address: space.gateway_address(),
        },
        Gateway {
            name: "Traefik",
            namespace: space.namespace.clone(),
            selector: traefik::SELECTOR,
            host: space.host("traefik"),
            address,
        },
    ];
    space.apply(&origins().to_string()).await?;
    space.rolled_out(SERVICE).await?;
    let hosts: Vec<&str> = gateways
        .iter()
        .map(|gateway| gateway.host.as_str())
        .collect();
    space
        .certificate(SECRET, &space.authority.site(&hosts)?)
        .await?;
    let [lockgate_host, traefik_host] = hosts[..] else {
        anyhow::bail!("two gateways");
    };
    space.apply(&ingress(lockgate_host).to_string()).await?;
    let peers = traefik::ingress(traefik_host, SERVICE, SECRET);
    space.apply(&peers.to_string()).await?;
    for gateway in &gateways {
        let client = Client::new(gateway.address)?.trusting(space.authority.roots()?)?;
        for case in Case::ALL {
            let version = match case {
                Case::Http1 | Case::Https1 => Version::Http1,
                Case::Https2 => Version::Http2,
            };
            let (client, url) = (client.clone().speaking(version)?, case.url(&gateway.host));
            let what = format!("{} serves {} by {}", gateway.name, url, case.name());
            eventually(&what, SERVED, async || {
                // Any of the pods may be met.
                for _ in 0..16 {
                    let reply = client.get(&url).await?;
                    ensure!(
                        reply.status == 200 && reply.body.len() == BODY,
                        "{} with {} bytes",
                        reply.status,
                        reply.body.len()
                    );
                }
                Ok(())
            })
            .await?;
        }
    }
    Ok(gateways)
}

/// Pods that give every request the same short answer.
fn origins() -> Value {
    let mut manifests = origin_manifests(SERVICE, ORIGINS);
    let container = "/items/0/spec/template/spec/containers/0";
    if let Some(Value::Object(container)) = manifests.pointer_mut(container) {
        container.insert("args".to_owned(), json!([format!("--body-size={BODY}")]));
    }
    manifests
}

fn ingress(host: &str) -> Value {
    let mut manifest = ingress_manifest("lockgate", host, SERVICE);
    if let Some(object) = manifest.as_object_mut() {
        let no_redirect = json!({"nginx.ingress.kubernetes.io/ssl-redirect": "false"});
        object.insert(
            "metadata".to_owned(),
            json!({"name": "lockgate", "annotations": no_redirect}),
        );
    }
    if let Some(spec) = manifest.get_mut("spec").and_then(Value::as_object_mut) {
        let tls = json!([{"hosts": [host], "secretName": SECRET}]);
        spec.insert("tls".to_owned(), tls);
    }
    manifest
}

async fn sample(
    space: &Space,
    generator: &Generator<'_>,
    gateway: &Gateway,
    case: Case,
    round: usize,
) -> Result<Sample> {
    let list = [
        "--namespace",
        &gateway.namespace,
        "get",
        "pods",
        "--selector",
        gateway.selector,
        "--output=jsonpath={.items[*].metadata.uid}",
    ];
    let pods = space.cluster.kubectl.run(&list).await?;
    let pods: Vec<String> = pods.split_whitespace().map(str::to_owned).collect();
    let before = usage::of_pods(&pods)?;
    let shot = generator
        .run(case, &gateway.host)
        .await
        .with_context(|| format!("{}, {}", gateway.name, case.name()))?;
    let after = usage::of_pods(&pods)?;
    Ok(Sample {
        gateway: gateway.name.to_owned(),
        case,
        round,
        shot,
        cpu: before
            .zip(after)
            .map(|(before, after)| after.cpu - before.cpu),
        resident: after.map(|after| after.resident),
    })
}

fn tell(sample: &Sample) {
    let [p50, p99, p999] = sample.shot.latency;
    let per_cpu = sample
        .per_cpu_second()
        .map_or_else(|| "unknown".to_owned(), |figure| format!("{figure:.0}"));
    eprintln!(
        "round {}, {}, {}: {:.0} requests/s, p50 {p50:.1} ms, p99 {p99:.1} ms, p99.9 {p999:.1} ms, {} errors, {per_cpu} requests \
         per CPU second",
        sample.round,
        sample.case.name(),
        sample.gateway,
        sample.throughput(),
        sample.shot.errors,
    );
}

/// What the machine does without the load: control plane, nodes, and whatever else runs on it and disturbs.
async fn idle() -> Result<String> {
    let before = usage::Cores::read()?;
    tokio::time::sleep(QUIET).await;
    let busy = before.busy_until(usage::Cores::read()?);
    Ok(format!(
        "all cores were {busy} % busy in the {} s before the load",
        QUIET.as_secs()
    ))
}

/// Machine and versions. What cannot be found out is left out.
async fn facts(space: &Space) -> Vec<String> {
    let mut lines = vec![usage::machine()];
    let kubectl = &space.cluster.kubectl;
    let nodes = kubectl.json(&["get", "nodes"]).await.ok();
    let nodes = nodes
        .as_ref()
        .and_then(|nodes| nodes.get("items")?.as_array());
    let info = |field: &str| {
        let node = nodes?.first()?;
        node.pointer(&format!("/status/nodeInfo/{field}"))?.as_str()
    };
    if let (Some(nodes), Some(kubelet), Some(runtime)) = (
        nodes,
        info("kubeletVersion"),
        info("containerRuntimeVersion"),
    ) {
        lines.push(format!(
            "Kubernetes {kubelet}, {} nodes, {runtime}",
            nodes.len()
        ));
    }
    let lockgate = ["exec", "deployment/lockgate", "--", "/lockgate", "version"];
    if let Ok(version) = space.gateway.kubectl(&lockgate).await {
        lines.extend(version.lines().next().map(str::to_owned));
    }
    lines.extend(traefik::version(space).await.ok());
    lines
}
