//! A whole Kubernetes: control plane, nodes, DNS, a load balancer.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::future::join_all;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Mutex;

use super::component::Components;
use super::control_plane::ControlPlane;
use super::load_balancer::LoadBalancer;
use super::network::{self, CONTROL_PLANE, NODES};
use super::node::Node;
use crate::kubectl::Kubectl;
use crate::process::Program;
use crate::wait::eventually;

const START: Duration = Duration::from_mins(3);
const DNS: &str = include_str!("../../cluster/dns.yaml");

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Materials {
    /// The folder with the programs.
    pub programs: PathBuf,
    /// The folder with the archives of the images.
    pub images: PathBuf,
    /// The folder for everything that it writes.
    pub state: PathBuf,
    /// The name of the cgroup that was made for it.
    pub cgroup: String,
}

/// A Kubernetes that ends when this value is dropped. It has to be started in network, process and mount namespaces of
/// its own.
pub struct Kubernetes {
    /// `kubectl` as the administrator.
    pub kubectl: Kubectl,
    components: Arc<Mutex<Components>>,
    /// They keep the nodes' namespaces; the balancer ends with this value.
    _holders: Vec<Program>,
    _balancer: LoadBalancer,
}

impl Kubernetes {
    /// Starts everything and waits until both nodes are ready and names are resolved.
    pub async fn start(materials: &Materials) -> Result<Self> {
        let state = &materials.state;
        let plane = ControlPlane {
            programs: materials.programs.clone(),
            folder: state.clone(),
            logs: state.join("logs"),
            address: IpAddr::V4(CONTROL_PLANE),
        };
        let authority = plane.prepare()?;
        let images = archives(&materials.images)?;
        network::build()?;
        let kubectl = Kubectl::new(
            &plane.programs.join("kubectl"),
            &state.join("admin.kubeconfig"),
            state,
        );
        let mut components = Components::default();
        components.add(plane.etcd())?;
        components.add(plane.api_server(&plane.node_arguments()))?;

        let mut nodes = Vec::new();
        for place in NODES {
            let node = Node::prepare(&plane, &authority, &materials.cgroup, place).await?;
            node.start_containerd(&mut components)?;
            nodes.push(node);
        }
        let imported = join_all(nodes.iter().map(|node| node.import(&images))).await;
        // A program that has ended is a better reason than its silence.
        components.check_running()?;
        imported.into_iter().collect::<Result<()>>()?;
        let ready = eventually("the API server is ready", START, async || {
            components.check_running()?;
            kubectl.run(&["get", "--raw", "/readyz"]).await
        })
        .await;
        ready.with_context(|| components.tail("kube-apiserver"))?;
        components.add(plane.controller_manager())?;
        components.add(plane.scheduler())?;
        for node in &nodes {
            node.join(&mut components)?;
        }
        let balancer = LoadBalancer::start(kubectl.clone())?;
        kubectl.apply("kube-system", DNS).await?;
        eventually("the nodes are ready", START, async || {
            components.check_running()?;
            nodes_ready(&kubectl).await
        })
        .await?;
        let rollout = ["rollout", "status", "deployment/coredns"];
        eventually("names are resolved", START, async || {
            components.check_running()?;
            let arguments = [&rollout[..], &["--namespace=kube-system", "--timeout=10s"]].concat();
            kubectl.run(&arguments).await.map(drop)
        })
        .await?;
        let components = Arc::new(Mutex::new(components));
        let socket = UnixListener::bind(state.join("control.sock"))?;
        tokio::spawn(obey(socket, Arc::clone(&components)));
        Ok(Self {
            kubectl,
            components,
            _holders: nodes.into_iter().map(Node::into_holder).collect(),
            _balancer: balancer,
        })
    }

    /// Fails when one of its programs has ended that no test has stopped.
    pub async fn check_running(&self) -> Result<()> {
        self.components.lock().await.check_running()
    }
}

/// A path in which the programs of Kubernetes come first.
pub fn path(programs: &Path) -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = [programs.to_owned()].into_iter();
    Ok(env::join_paths(folders.chain(env::split_paths(&path)))?)
}

async fn nodes_ready(kubectl: &Kubectl) -> Result<()> {
    let list = kubectl.json(&["get", "nodes"]).await?;
    let nodes = list.pointer("/items").and_then(Value::as_array);
    let nodes: Vec<&Value> = nodes.into_iter().flatten().collect();
    ensure!(nodes.len() == NODES.len(), "{} nodes", nodes.len());
    for node in nodes {
        let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
        let ready = conditions
            .into_iter()
            .flatten()
            .find(|condition| condition.get("type").and_then(Value::as_str) == Some("Ready"));
        let status = ready.and_then(|condition| condition.get("status"));
        ensure!(
            status.and_then(Value::as_str) == Some("True"),
            "{}",
            ready.map_or_else(|| "no condition".to_owned(), ToString::to_string)
        );
    }
    Ok(())
}

fn archives(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut archives = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "tar") {
            archives.push(path);
        }
    }
    archives.sort();
    Ok(archives)
}

/// Takes orders, one after another, for as long as the runtime lives.
async fn obey(socket: UnixListener, components: Arc<Mutex<Components>>) {
    while let Ok((stream, _)) = socket.accept().await {
        let components = Arc::clone(&components);
        // Who goes away before the answer needs none.
        tokio::spawn(async move { drop(answer(stream, &components).await) });
    }
}

async fn answer(stream: UnixStream, components: &Mutex<Components>) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let mut order = String::new();
    while stream.read_line(&mut order).await? > 0 {
        let answer = match components.lock().await.obey(&order).await {
            Ok(()) => "ok\n".to_owned(),
            Err(error) => format!("error: {}\n", format!("{error:#}").replace('\n', " ")),
        };
        stream.write_all(answer.as_bytes()).await?;
        order.clear();
    }
    Ok(())
}
