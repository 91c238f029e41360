//! Many objects: how long until all are served, what that costs, how long a change takes among them.
//!
//! A tenth of the size unless `E2E_SCALE` is `full`. `E2E_SCALE_REPORT` names a file for the figures.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::bulk::{Api, Kind};
use e2e::client::{Client, Connection};
use e2e::cluster::note;
use e2e::node::Process;
use e2e::site;
use e2e::space::{Pod, Space};
use e2e::wait::eventually;
use serde_json::{Value, json};
use tokio::task::JoinSet;

const INGRESSES: Kind = Kind {
    group: "apis/networking.k8s.io/v1",
    plural: "ingresses",
};
const SERVICES: Kind = Kind {
    group: "api/v1",
    plural: "services",
};
const SECRETS: Kind = Kind {
    group: "api/v1",
    plural: "secrets",
};
const SLICES: Kind = Kind {
    group: "apis/discovery.k8s.io/v1",
    plural: "endpointslices",
};

/// What stands above the figures.
const ABOUT: &str = "\
`make e2e-scale`: two nodes with their control plane, the pods and the test share one machine. Objects are created through the
API server, 16 requests at a time; Services are headless, so that kube-proxy has no part in it. \"Served\" means that every
replica has answered a request for every host; a change counts from when the patch is sent until every replica answers by it.";

/// Changes of each kind.
const CHANGES: usize = 60;
/// Until everything is served.
const SERVED: Duration = Duration::from_mins(5);
/// Until one change is.
const CHANGED: Duration = Duration::from_secs(30);
/// How long the CPU is watched.
const IDLE: Duration = Duration::from_secs(10);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(20);
/// Requests at the same time while everything is asked for.
const PARALLEL: usize = 8;

#[derive(Clone, Copy, Debug)]
struct Size {
    ingresses: usize,
    secrets: usize,
    endpoints: usize,
}

impl Size {
    fn of_this_run() -> Self {
        let part = match std::env::var("E2E_SCALE").as_deref() {
            Ok("full") => 1,
            _ => 10,
        };
        Self {
            ingresses: 2_000 / part,
            secrets: 1_000 / part,
            endpoints: 10_000 / part,
        }
    }
}

#[tokio::test]
async fn many_objects_are_served_and_changes_among_them_are_quick() -> Result<()> {
    let space = Space::alone("scale").await?;
    let size = Size::of_this_run();
    space.origin("web", 2).await?;
    site::settled(&space, site::SETTLED).await?;
    let scene = Scene::new(&space, size).await?;
    let mut report = format!(
        "{} Ingresses, {} TLS Secrets, {} endpoints in {} EndpointSlices; {} replicas of Lockgate\n",
        size.ingresses,
        size.secrets,
        size.endpoints,
        size.ingresses,
        scene.pods.len(),
    );
    let before = scene.memory()?;

    let objects = scene.objects()?;
    let count = objects.len();
    let begun = Instant::now();
    scene.api.create(&space.namespace, objects).await?;
    let created = begun.elapsed();
    scene.all_served().await?;
    let served = begun.elapsed();
    writeln!(
        report,
        "  all served         {:.1} s after the first of {count} objects is created, {:.1} s after the last (the API server \
         takes {:.1} s to create them)",
        served.as_secs_f64(),
        served.saturating_sub(created).as_secs_f64(),
        created.as_secs_f64(),
    )?;
    scene.certificates_shown().await?;

    let ingress = scene.change_ingresses().await?;
    writeln!(report, "  one Ingress        {}", series(ingress))?;
    let endpoint = scene.change_endpoints().await?;
    writeln!(report, "  one EndpointSlice  {}", series(endpoint))?;

    let after = scene.memory()?;
    for ((pod, before), after) in scene.pods.iter().zip(before).zip(after) {
        let idle = scene.idle(pod).await?;
        writeln!(
            report,
            "  {:<18} {} MiB before, {} MiB with all objects and changes, {idle:.2} % of a CPU while idle",
            pod.name,
            before >> 20,
            after >> 20,
        )?;
    }

    if let Some(control) = space.cluster.control() {
        control.kill("kube-apiserver").await?;
        control.start("kube-apiserver").await?;
        let begun = Instant::now();
        let ready = ["get", "--raw", "/readyz", "--request-timeout=2s"];
        eventually("the API server serves again", SERVED, async || {
            space.cluster.kubectl.run(&ready).await
        })
        .await?;
        let returned = begun.elapsed();
        let change = scene.change_ingress(CHANGES).await?;
        let memory = scene.memory()?.into_iter().max().unwrap_or_default();
        writeln!(
            report,
            "  API server restart it serves {:.1} s after its start, a change made then is served {:.1} s after it is made; {} MiB",
            returned.as_secs_f64(),
            change.as_secs_f64(),
            memory >> 20,
        )?;
    }

    note(report.trim_end())?;
    if let Some(file) = std::env::var_os("E2E_SCALE_REPORT") {
        let page = format!("# A cluster at size\n\n{ABOUT}\n\n```text\n{report}```\n");
        std::fs::write(file, page)?;
    }
    let namespace = space.namespace.clone();
    let kubectl = space.cluster.kubectl.clone();
    space.finish().await?;
    // The next test is not to share the machine with the end of this one.
    eventually("everything is gone", SERVED, async || {
        let left = kubectl
            .run(&["get", "namespace", &namespace, "--ignore-not-found"])
            .await?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })
    .await
}

struct Scene<'a> {
    space: &'a Space,
    size: Size,
    api: Api,
    /// The pods of Lockgate.
    pods: Vec<Pod>,
    /// Name and address of the pods that answer.
    backends: Vec<(String, String)>,
}

impl<'a> Scene<'a> {
    async fn new(space: &'a Space, size: Size) -> Result<Self> {
        let list = space.json(&["get", "pods", "--selector=app=web"]).await?;
        let items = list.get("items").and_then(Value::as_array);
        let backends: Option<Vec<(String, String)>> = items
            .into_iter()
            .flatten()
            .map(|pod| {
                let text = |pointer| Some(pod.pointer(pointer)?.as_str()?.to_owned());
                Some((text("/metadata/name")?, text("/status/podIP")?))
            })
            .collect();
        let backends = backends.context("pods without a name or an address")?;
        ensure!(backends.len() == 2, "{backends:?}");
        Ok(Self {
            space,
            size,
            api: Api::start(&space.cluster.kubectl).await?,
            pods: space.lockgate_pods().await?,
            backends,
        })
    }

    fn host(&self, number: usize) -> String {
        self.space.host(&format!("app-{number}"))
    }

    /// Everything. The endpoints of most Services answer nobody; every Ingress leads `/served` to pods that do.
    fn objects(&self) -> Result<Vec<(Kind, Value)>> {
        let mut objects = Vec::new();
        for number in 0..self.size.ingresses {
            let name = format!("app-{number}");
            // Without an address of their own, kube-proxy has nothing to do with them.
            let service = json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
                "spec": {"clusterIP": "None", "ports": [{"name": "http", "port": 80}]},
            });
            objects.push((SERVICES, service));
            objects.push((SLICES, self.slice(number)));
            objects.push((INGRESSES, self.ingress(number, None)));
            if number < self.size.secrets {
                let identity = self.space.authority.site(&[&self.host(number)])?;
                let secret = json!({
                    "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
                    "metadata": {"name": name},
                    "stringData": {"tls.crt": identity.certificate, "tls.key": identity.key},
                });
                objects.push((SECRETS, secret));
            }
        }
        Ok(objects)
    }

    fn ingress(&self, number: usize, revision: Option<usize>) -> Value {
        let name = format!("app-{number}");
        let path = |path: &str, kind: &str, service: &str| {
            json!({
                "path": path, "pathType": kind,
                "backend": {"service": {"name": service, "port": {"name": "http"}}},
            })
        };
        let mut paths = vec![
            path("/pods", "Prefix", &name),
            path("/served", "Exact", "web"),
        ];
        if let Some(revision) = revision {
            paths.push(path(&format!("/revision/{revision}"), "Exact", "web"));
        }
        let host = self.host(number);
        let mut ingress = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {
                "name": name,
                "annotations": {"nginx.ingress.kubernetes.io/ssl-redirect": "false"},
            },
            "spec": {
                "ingressClassName": "lockgate",
                "rules": [{"host": host, "http": {"paths": paths}}],
            },
        });
        if number < self.size.secrets
            && let Some(Value::Object(spec)) = ingress.get_mut("spec")
        {
            let tls = json!([{"hosts": [host], "secretName": name}]);
            spec.insert("tls".to_owned(), tls);
        }
        ingress
    }

    /// The first ones have a pod that answers, the rest share what is left of the endpoints.
    fn slice(&self, number: usize) -> Value {
        let endpoints: Vec<Value> = if number < CHANGES {
            vec![self.endpoint(0)]
        } else {
            let (others, left) = (self.size.ingresses - CHANGES, self.size.endpoints - CHANGES);
            let (first, end) = (
                (number - CHANGES) * left / others,
                (number - CHANGES + 1) * left / others,
            );
            (first..end)
                .map(|index| {
                    json!({"addresses": [format!("198.18.{}.{}", index / 250, index % 250 + 1)]})
                })
                .collect()
        };
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("app-{number}"),
                "labels": {
                    "kubernetes.io/service-name": format!("app-{number}"),
                    "service.kubernetes.io/headless": "",
                },
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": endpoints,
        })
    }

    fn endpoint(&self, which: usize) -> Value {
        let address = self.backends.get(which).map(|(_, address)| address);
        json!({"addresses": [address]})
    }

    /// Waits until every pod of Lockgate has served every host.
    async fn all_served(&self) -> Result<()> {
        let mut askers = JoinSet::new();
        for pod in &self.pods {
            let client = Client::new(pod.address.parse::<IpAddr>()?)?;
            let hosts: Arc<Vec<String>> =
                Arc::new((0..self.size.ingresses).map(|n| self.host(n)).collect());
            for first in 0..PARALLEL {
                let (client, hosts) = (client.clone(), Arc::clone(&hosts));
                askers.spawn(async move {
                    let mut connection = None;
                    for host in hosts.iter().skip(first).step_by(PARALLEL) {
                        let url = format!("http://{host}:8080/served");
                        served(&client, &mut connection, &url).await?;
                    }
                    anyhow::Ok(())
                });
            }
        }
        while let Some(asker) = askers.join_next().await {
            asker??;
        }
        Ok(())
    }

    /// Shakes hands for every host that has a certificate, with one pod or the other.
    async fn certificates_shown(&self) -> Result<()> {
        let mut askers = JoinSet::new();
        for first in 0..PARALLEL {
            let pod = self.pods.get(first % self.pods.len()).context("no pod")?;
            let client = Client::new(pod.address.parse::<IpAddr>()?)?
                .trusting(self.space.authority.roots()?)?;
            let hosts: Vec<String> = (0..self.size.secrets)
                .skip(first)
                .step_by(PARALLEL)
                .map(|number| self.host(number))
                .collect();
            askers.spawn(async move {
                for host in hosts {
                    let url = format!("https://{host}:8443/served");
                    let status = client.get(&url).await?.status;
                    ensure!(status == 200, "{url}: {status}");
                }
                Ok(())
            });
        }
        while let Some(asker) = askers.join_next().await {
            asker??;
        }
        Ok(())
    }

    async fn change_ingresses(&self) -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        for number in 0..CHANGES {
            times.push(self.change_ingress(number).await?);
        }
        Ok(times)
    }

    /// A new path of an Ingress, until every pod of Lockgate serves it.
    async fn change_ingress(&self, revision: usize) -> Result<Duration> {
        let number = revision % CHANGES;
        let name = format!("app-{number}");
        let patch = json!({"spec": self.ingress(number, Some(revision)).get("spec")});
        let object = INGRESSES.path(&self.space.namespace, &name);
        let url = format!("http://{}:8080/revision/{revision}", self.host(number));
        self.change(&object, &patch, &url, |status, _| status == 200)
            .await
    }

    /// Another pod in an `EndpointSlice`, until every pod of Lockgate sends requests there.
    async fn change_endpoints(&self) -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        let (other, _) = self.backends.get(1).context("no second pod")?;
        for number in 0..CHANGES {
            let object = SLICES.path(&self.space.namespace, &format!("app-{number}"));
            let patch = json!({"endpoints": [self.endpoint(1)]});
            let url = format!("http://{}:8080/pods", self.host(number));
            let changed = |status, pod: &str| status == 200 && pod == other;
            times.push(self.change(&object, &patch, &url, changed).await?);
        }
        Ok(times)
    }

    /// Patches an object and asks every pod of Lockgate over and over; from when the patch is sent until the last of them
    /// answers by it.
    async fn change(
        &self,
        object: &str,
        patch: &Value,
        url: &str,
        changed: impl Fn(u16, &str) -> bool,
    ) -> Result<Duration> {
        let mut connections = Vec::new();
        for pod in &self.pods {
            let client = Client::new(pod.address.parse::<IpAddr>()?)?;
            let mut connection = client.connect(url).await?;
            let reply = connection.get(url).await?;
            ensure!(
                !changed(reply.status.as_u16(), reply.pod()),
                "{url} is answered so before the change"
            );
            connections.push(connection);
        }
        let mut api = self.api.connect().await?;
        let begun = Instant::now();
        let patched = api.patch(object, patch);
        let seen = async {
            for connection in &mut connections {
                loop {
                    let reply = connection.get(url).await?;
                    if changed(reply.status.as_u16(), reply.pod()) {
                        break;
                    }
                    if begun.elapsed() > CHANGED {
                        bail!("{url} is still answered with {}", reply.status);
                    }
                }
            }
            Ok(begun.elapsed())
        };
        let ((), seen) = tokio::try_join!(patched, seen)?;
        Ok(seen)
    }

    /// Memory of each pod of Lockgate; zeros where its processes cannot be seen.
    fn memory(&self) -> Result<Vec<u64>> {
        self.pods
            .iter()
            .map(|pod| Process::of_pod(&pod.name)?.map_or(Ok(0), Process::resident))
            .collect()
    }

    /// What a pod of Lockgate takes of a CPU when nobody asks and nothing changes, in per cent.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a share is not exact to the last of 52 bits"
    )]
    async fn idle(&self, pod: &Pod) -> Result<f64> {
        let Some(process) = Process::of_pod(&pod.name)? else {
            return Ok(f64::NAN);
        };
        let (before, begun) = (process.ticks()?, Instant::now());
        tokio::time::sleep(IDLE).await;
        let ticks = process.ticks()? - before;
        Ok(ticks as f64 / begun.elapsed().as_secs_f64())
    }
}

/// Asks until the answer is 200.
async fn served(client: &Client, kept: &mut Option<Connection>, url: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => client.connect(url).await?,
        };
        let status = connection.get(url).await?.status;
        *kept = Some(connection);
        if status == 200 {
            return Ok(());
        }
        ensure!(begun.elapsed() < SERVED, "{url}: {status}");
        tokio::time::sleep(PAUSE).await;
    }
}

fn series(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |per_cent: usize| {
        let index = (times.len() * per_cent).div_ceil(100).saturating_sub(1);
        times.get(index).copied().unwrap_or_default().as_secs_f64() * 1000.0
    };
    format!(
        "p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms from the patch to the first request that every replica answers by it ({} times)",
        at(50),
        at(99),
        at(100),
        times.len()
    )
}
