//! What one test of the cluster tier works with: a Kubernetes namespace of its own, pods to serve in it, and the
//! Lockgate that is installed in the cluster.
//!
//! ```no_run
//! # async fn test() -> anyhow::Result<()> {
//! use e2e::space::Space;
//!
//! let space = Space::new("hello").await?;
//! space.origin("web", 2).await?;
//! space.ingress("web", &space.host("www"), "web", &serde_json::json!({})).await?;
//! let reply = space.answers(&format!("http://{}/", space.host("www")), 200).await?;
//! assert_eq!(reply.json()?["service"], "web");
//! space.finish().await
//! # }
//! ```
//!
//! Tests run side by side: hosts have to be unique, which [`Space::host`] sees to, and whoever disturbs Lockgate or the
//! cluster takes [`Space::alone`].

mod gateway;
mod manifests;
mod second;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::client::{Client, Reply};
use crate::cluster::Running;
use crate::observe::{self, Event};
use crate::pki::{Authority, Identity};
use crate::wait::{SOON, eventually};

pub use gateway::{Gateway, Pod};
pub use manifests::{ORIGIN_IMAGE, ingress_manifest, merged, origin_manifests};
pub use second::Second;

/// Until pods are scheduled, started and ready on a busy machine.
pub const ROLLOUT: Duration = Duration::from_mins(4);

/// Held by every test: shared by those that leave the installation alone.
static INSTALLATION: LazyLock<Arc<RwLock<()>>> = LazyLock::new(Arc::default);

/// How a test holds the installation.
enum Hold {
    Shared(#[expect(dead_code, reason = "held, not read")] OwnedRwLockReadGuard<()>),
    Alone(#[expect(dead_code, reason = "held, not read")] OwnedRwLockWriteGuard<()>),
}

/// A namespace in the cluster. Dropped without [`Space::finish`], which is what a failing test does, it stays, and what
/// is known about it is written to `$E2E_STATE/failed/`.
pub struct Space {
    /// The name of the namespace, which is also part of every host.
    pub namespace: String,
    /// The cluster: `kubectl` in no namespace, files of the harness, power over the cluster's programs.
    pub cluster: Running,
    /// The Lockgate that is installed in the cluster.
    pub gateway: Gateway,
    /// Signs the sites' certificates; clients trust it.
    pub authority: Authority,
    /// Whether the test has an installation of its own in its namespace.
    second: AtomicBool,
    done: bool,
    _hold: Hold,
}

impl Space {
    /// A namespace whose name begins with `name`, beside other tests.
    pub async fn new(name: &str) -> Result<Self> {
        let hold = Hold::Shared(INSTALLATION.clone().read_owned().await);
        Self::with(name, hold).await
    }

    /// The same, when no other test is running: for tests that disturb Lockgate, its settings or the cluster.
    pub async fn alone(name: &str) -> Result<Self> {
        let hold = Hold::Alone(INSTALLATION.clone().write_owned().await);
        Self::with(name, hold).await
    }

    async fn with(name: &str, hold: Hold) -> Result<Self> {
        let cluster = Running::from_environment()?;
        let gateway = Gateway::find(&cluster.kubectl, "lockgate").await?;
        let manifest = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": format!("{name}-")},
        });
        let create = [
            "create",
            "--filename=-",
            "--output=jsonpath={.metadata.name}",
        ];
        let namespace = cluster
            .kubectl
            .run_with_input(&create, &manifest.to_string())
            .await?;
        Ok(Self {
            namespace: namespace.trim().to_owned(),
            cluster,
            gateway,
            authority: Authority::new("e2e-sites")?,
            second: AtomicBool::new(false),
            done: false,
            _hold: hold,
        })
    }

    /// A host that no other test uses.
    pub fn host(&self, label: &str) -> String {
        format!("{label}.{}.example.com", self.namespace)
    }

    /// The user as which the pods of Lockgate ask the API server.
    pub fn user(&self) -> String {
        self.gateway.user()
    }

    /// `kubectl` in the test's namespace.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.kubectl.run(&self.here(arguments)).await
    }

    /// `kubectl get … -o json` in the test's namespace.
    pub async fn json(&self, arguments: &[&str]) -> Result<Value> {
        self.cluster.kubectl.json(&self.here(arguments)).await
    }

    /// `kubectl apply` in the test's namespace, of YAML or JSON.
    pub async fn apply(&self, manifests: &str) -> Result<()> {
        self.cluster.kubectl.apply(&self.namespace, manifests).await
    }

    /// A command such as `kubectl wait` or `kubectl rollout status`, in the test's namespace, given `deadline` to end.
    pub async fn wait(&self, deadline: Duration, arguments: &[&str]) -> Result<String> {
        let timeout = format!("--timeout={}s", deadline.as_secs());
        let arguments = [&self.here(arguments)[..], &[&timeout]].concat();
        // kubectl is to give up first: it says what it waits for.
        let limit = deadline + Duration::from_secs(15);
        self.cluster.kubectl.run_within(limit, &arguments, "").await
    }

    /// Applies a merge patch to an object such as `ingress/web`.
    pub async fn patch(&self, object: &str, patch: &Value) -> Result<()> {
        let patch = patch.to_string();
        let arguments = ["patch", object, "--type=merge", "--patch", &patch];
        self.kubectl(&arguments).await.map(drop)
    }

    /// A Deployment of origins and its Service, port 80 named `http`; when this returns, all replicas are ready and the
    /// cluster has made them endpoints of the Service, which comes later and much later after an outage.
    pub async fn origin(&self, name: &str, replicas: u32) -> Result<()> {
        self.apply(&origin_manifests(name, replicas).to_string())
            .await?;
        self.rolled_out(name).await?;
        let of_service = format!("--selector=kubernetes.io/service-name={name}");
        eventually(
            &format!("Service {name} has {replicas} endpoints"),
            ROLLOUT,
            async || {
                let slices = self.json(&["get", "endpointslices", &of_service]).await?;
                let all = |value: &Value, field: &str| {
                    let list = value.get(field).and_then(Value::as_array);
                    list.cloned().unwrap_or_default()
                };
                let endpoints = all(&slices, "items").into_iter();
                let ready = endpoints
                    .flat_map(|slice| all(&slice, "endpoints"))
                    .filter(|endpoint| endpoint.pointer("/conditions/ready") == Some(&json!(true)))
                    .count();
                ensure!(ready == replicas as usize, "{ready} are ready");
                Ok(())
            },
        )
        .await
    }

    /// Waits until a Deployment is as it should be.
    pub async fn rolled_out(&self, deployment: &str) -> Result<()> {
        let object = format!("deployment/{deployment}");
        self.wait(ROLLOUT, &["rollout", "status", &object])
            .await
            .map(drop)
    }

    /// Applies an Ingress of class `lockgate` that sends every path of `host` to the port `http` of `service`. The
    /// fields of `extra_spec` are added to its spec.
    pub async fn ingress(
        &self,
        name: &str,
        host: &str,
        service: &str,
        extra_spec: &Value,
    ) -> Result<()> {
        let patch = json!({"spec": extra_spec});
        let manifest = merged(ingress_manifest(name, host, service), &patch);
        self.apply(&manifest.to_string()).await
    }

    /// The same for https alone: the certificate is in `secret`.
    pub async fn secure_ingress(
        &self,
        name: &str,
        host: &str,
        service: &str,
        secret: &str,
    ) -> Result<()> {
        let tls = json!({"tls": [{"hosts": [host], "secretName": secret}]});
        self.ingress(name, host, service, &tls).await
    }

    /// Creates or replaces a TLS Secret.
    pub async fn certificate(&self, secret: &str, identity: &Identity) -> Result<()> {
        let manifest = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": secret},
            "stringData": {"tls.crt": identity.certificate, "tls.key": identity.key},
        });
        self.apply(&manifest.to_string()).await
    }

    /// A client of Lockgate's load balancer that trusts the authority of the sites.
    pub fn client(&self) -> Result<Client> {
        self.client_of(&self.gateway)
    }

    /// The same for another installation.
    pub fn client_of(&self, gateway: &Gateway) -> Result<Client> {
        Client::new(gateway.address)?.trusting(self.authority.roots()?)
    }

    /// The address of Lockgate's load balancer.
    pub fn gateway_address(&self) -> std::net::IpAddr {
        self.gateway.address
    }

    /// The pods of Lockgate that are there now.
    pub async fn lockgate_pods(&self) -> Result<Vec<Pod>> {
        self.gateway.pods().await
    }

    /// What the admin port of one of Lockgate's pods answers, through the API server.
    pub async fn admin(&self, pod: &str, path: &str) -> Result<String> {
        self.gateway.admin(pod, path).await
    }

    /// Waits until every pod of Lockgate has seen what the test has done so far: a request to the load balancer may meet
    /// any of them, so `url` has to be answered with `status` a good number of times in a row. Returns the last answer.
    pub async fn answers(&self, url: &str, status: u16) -> Result<Reply> {
        self.answers_of(&self.client()?, url, status).await
    }

    /// The same for another client.
    pub async fn answers_of(&self, client: &Client, url: &str, status: u16) -> Result<Reply> {
        // With two pods behind the load balancer, one of them is missed in one of 2^16 cases.
        const IN_A_ROW: usize = 16;
        eventually(&format!("{url} answers {status}"), SOON, async || {
            let mut last = None;
            for _ in 0..IN_A_ROW {
                let reply = client.get(url).await?;
                ensure!(reply.status == status, "{}: {}", reply.status, reply.body);
                last = Some(reply);
            }
            last.context("no request")
        })
        .await
    }

    /// The addresses in the status of an Ingress.
    pub async fn addresses(&self, ingress: &str) -> Result<Vec<String>> {
        let object = format!("ingress/{ingress}");
        observe::addresses(&self.cluster.kubectl, &self.namespace, &object).await
    }

    /// Waits until the status of an Ingress shows exactly these addresses.
    pub async fn has_addresses(&self, ingress: &str, expected: &[&str]) -> Result<()> {
        eventually(&format!("{ingress} shows {expected:?}"), SOON, async || {
            let addresses = self.addresses(ingress).await?;
            ensure!(addresses == expected, "{addresses:?}");
            Ok(())
        })
        .await
    }

    /// The Events about an object of the test's namespace.
    pub async fn events(&self, kind: &str, name: &str) -> Result<Vec<Event>> {
        observe::events(&self.cluster.kubectl, &self.namespace, kind, name).await
    }

    /// Ends a test that has passed: the namespace goes, in the background. Its own installation of Lockgate may not have
    /// been refused anything.
    pub async fn finish(mut self) -> Result<()> {
        if self.second.load(Ordering::SeqCst) {
            Second::uninstall(&self).await?;
        }
        let delete = ["delete", "namespace", &self.namespace, "--wait=false"];
        self.cluster.kubectl.run(&delete).await?;
        self.done = true;
        Ok(())
    }

    fn here<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        [&["--namespace", self.namespace.as_str()], arguments].concat()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let folder = self.cluster.state.join("failed").join(&self.namespace);
        if std::fs::create_dir_all(&folder).is_err() {
            return;
        }
        let write = |name: &str, text: &str| {
            let _written = std::fs::write(folder.join(name), text);
        };
        let run = |namespace: &str, arguments: &[&str]| {
            let arguments = [&["--namespace", namespace], arguments].concat();
            self.cluster.kubectl.run_blocking(&arguments)
        };
        let kinds = "all,ingresses,endpointslices,configmaps,events";
        let here = self.namespace.as_str();
        write("describe.txt", &run(here, &["describe", kinds]));
        write("objects.yaml", &run(here, &["get", kinds, "--output=yaml"]));
        let mut installations = vec![self.gateway.namespace.as_str()];
        if self.second.load(Ordering::SeqCst) {
            installations.push(here);
        }
        for namespace in installations {
            write(
                &format!("{namespace}-pods.txt"),
                &run(namespace, &["describe", "pods"]),
            );
            let logs = [
                "logs",
                "--selector=app.kubernetes.io/name=lockgate",
                "--prefix",
                "--tail=-1",
            ];
            write(&format!("{namespace}.log"), &run(namespace, &logs));
            let before = [&logs[..], &["--previous"]].concat();
            write(&format!("{namespace}-before.log"), &run(namespace, &before));
        }
        eprintln!(
            "namespace {} stays; see {}",
            self.namespace,
            folder.display()
        );
    }
}

/// Fails when the API server has refused anything to `user`.
pub fn check_forbidden(cluster: &Running, user: &str) -> Result<()> {
    let Some(audit) = cluster.audit()? else {
        return Ok(());
    };
    let refused = audit.forbidden(user);
    ensure!(
        refused.is_empty(),
        "the shipped RBAC does not allow: {}",
        refused.join("; ")
    );
    Ok(())
}
