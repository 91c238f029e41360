//! An installed Lockgate, as its operator sees it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::net::TcpStream;

use super::ROLLOUT;
use crate::kubectl::Kubectl;
use crate::observe;
use crate::wait::eventually;

const ATTEMPT: Duration = Duration::from_secs(2);

/// A Deployment of Lockgate, named `lockgate` as it is shipped, and its Service.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Where it is installed.
    pub namespace: String,
    /// The address of its load balancer.
    pub address: IpAddr,
    kubectl: Kubectl,
}

/// A pod of Lockgate.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// The node that it runs on.
    pub node: String,
    /// Its own address.
    pub address: String,
    /// Whether Kubernetes takes it for ready.
    pub ready: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// How often its container was started anew.
    pub restarts: u64,
}

impl Gateway {
    /// Finds what is installed in `namespace` and waits until it is ready and has an address.
    pub async fn find(kubectl: &Kubectl, namespace: &str) -> Result<Self> {
        let timeout = format!("--timeout={}s", ROLLOUT.as_secs());
        let arguments = [
            "--namespace",
            namespace,
            "rollout",
            "status",
            "deployment/lockgate",
            &timeout,
        ];
        let limit = ROLLOUT + Duration::from_secs(15);
        kubectl.run_within(limit, &arguments, "").await?;
        let what = format!("the Service {namespace}/lockgate has an address");
        let address = eventually(&what, ROLLOUT, async || {
            let addresses = observe::addresses(kubectl, namespace, "service/lockgate").await?;
            addresses
                .first()
                .context("no address")?
                .parse()
                .context("not an address")
        })
        .await?;
        eventually("the load balancer has found a node", ROLLOUT, async || {
            let address = SocketAddr::new(address, 80);
            // What is dropped on the way is not worth the patience of TCP.
            let connected = tokio::time::timeout(ATTEMPT, TcpStream::connect(address)).await;
            connected
                .context("no answer")?
                .map(drop)
                .with_context(|| address.to_string())
        })
        .await?;
        Ok(Self {
            namespace: namespace.to_owned(),
            address,
            kubectl: kubectl.clone(),
        })
    }

    /// The user as which its pods ask the API server.
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:lockgate", self.namespace)
    }

    /// `kubectl` in its namespace.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let namespace = ["--namespace", self.namespace.as_str()];
        self.kubectl.run(&[&namespace, arguments].concat()).await
    }

    /// Its pods, those that terminate included.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        let arguments = [
            "--namespace",
            &self.namespace,
            "get",
            "pods",
            "--selector=app.kubernetes.io/name=lockgate",
        ];
        let list = self.kubectl.json(&arguments).await?;
        let items = list.get("items").and_then(Value::as_array);
        Ok(items.into_iter().flatten().map(pod).collect())
    }

    /// The pod that leads, as its Lease says.
    pub async fn leader(&self) -> Result<String> {
        let output = "--output=jsonpath={.spec.holderIdentity}";
        let holder = self
            .kubectl(&["get", "lease", "lockgate-leader", output])
            .await?;
        let name = holder.split(['_', '/', ' ']).next().unwrap_or_default();
        ensure!(!name.is_empty(), "nobody leads");
        Ok(name.to_owned())
    }

    /// What the admin port of a pod answers, through the API server. An answer other than 2xx is an error.
    pub async fn admin(&self, pod: &str, path: &str) -> Result<String> {
        let namespace = &self.namespace;
        let url = format!("/api/v1/namespaces/{namespace}/pods/{pod}:10254/proxy{path}");
        self.kubectl.run(&["get", "--raw", &url]).await
    }

    /// The sum of all series of a metric of a pod, 0 where it has none.
    pub async fn metric(&self, pod: &str, name: &str) -> Result<f64> {
        let text = self.admin(pod, "/metrics").await?;
        let values = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let metric = series.split('{').next()?;
            (metric == name).then(|| value.parse::<f64>().ok())?
        });
        Ok(values.sum())
    }

    /// What a pod has logged.
    pub async fn log(&self, pod: &str) -> Result<String> {
        self.kubectl(&["logs", pod]).await
    }
}

fn pod(value: &Value) -> Pod {
    let text = |pointer: &str| {
        value
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let conditions = value
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    let ready = conditions.into_iter().flatten().any(|condition| {
        let is = |field: &str, wanted: &str| {
            condition.get(field).and_then(Value::as_str) == Some(wanted)
        };
        is("type", "Ready") && is("status", "True")
    });
    Pod {
        name: text("/metadata/name"),
        node: text("/spec/nodeName"),
        address: text("/status/podIP"),
        ready,
        terminating: value.pointer("/metadata/deletionTimestamp").is_some(),
        restarts: value
            .pointer("/status/containerStatuses/0/restartCount")
            .and_then(Value::as_u64)
            .unwrap_or_default(),
    }
}
