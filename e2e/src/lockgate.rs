//! The binary under test, run as the shipped Deployment runs it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::client::{Client, Reply};
use crate::cluster::Access;
use crate::process::Program;
use crate::wait::{SOON, eventually};

static NEXT: AtomicU8 = AtomicU8::new(10);

/// What `kubectl apply -k config/default` has put into a cluster.
#[derive(Clone, Debug)]
pub struct Installation {
    access: Access,
    /// The namespace of the Deployment.
    pub namespace: String,
    /// The name of its `ServiceAccount`.
    pub service_account: String,
    template: Value,
}

impl Installation {
    /// Installs what the repository ships, as a user does.
    pub async fn apply(access: &Access) -> Result<Self> {
        Self::apply_folder(access, "default").await
    }

    /// Installs an overlay of what the repository ships, in the place of what was there. [`Installation::apply`] brings that
    /// back, and leaves what the overlay has beyond it.
    pub async fn apply_overlay(access: &Access, name: &str) -> Result<Self> {
        Self::apply_folder(access, &format!("overlays/{name}")).await
    }

    async fn apply_folder(access: &Access, name: &str) -> Result<Self> {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("config");
        let folder = config.join(name).display().to_string();
        access
            .kubectl
            .run(&["apply", "--kustomize", &folder])
            .await?;
        Self::read(access).await
    }

    /// Finds what is installed.
    pub async fn read(access: &Access) -> Result<Self> {
        let list = access
            .kubectl
            .json(&["get", "deployments", "--all-namespaces"])
            .await?;
        let deployment = list
            .pointer("/items/0")
            .context("no Deployment is installed")?;
        let text = |pointer: &str| {
            deployment
                .pointer(pointer)
                .and_then(Value::as_str)
                .map(str::to_owned)
                .with_context(|| format!("the Deployment has no {pointer}"))
        };
        Ok(Self {
            access: access.clone(),
            namespace: text("/metadata/namespace")?,
            service_account: text("/spec/template/spec/serviceAccountName")?,
            template: deployment
                .pointer("/spec/template")
                .cloned()
                .context("the Deployment has no template")?,
        })
    }

    /// `kubectl` in its namespace.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let namespace = ["--namespace", self.namespace.as_str()];
        let kubectl = &self.access.kubectl;
        kubectl.run(&[&namespace, arguments].concat()).await
    }

    /// Merges this JSON into the data of one of its ConfigMaps; `null` takes all of them away.
    pub async fn configure(&self, configmap: &str, data: &str) -> Result<()> {
        let data = format!(r#"{{"data":{data}}}"#);
        let patch = ["patch", "configmap", configmap, "--type=merge", "--patch"];
        self.kubectl(&[&patch[..], &[&data]].concat())
            .await
            .map(drop)
    }

    /// The user as which the pods ask the API server.
    pub fn user(&self) -> String {
        format!(
            "system:serviceaccount:{}:{}",
            self.namespace, self.service_account
        )
    }

    /// A kubeconfig with a fresh token of the `ServiceAccount`.
    pub async fn kubeconfig(&self, name: &str) -> Result<String> {
        let token = self
            .kubectl(&["create", "token", &self.service_account])
            .await?;
        let user = format!("{{token: {}}}", token.trim());
        Ok(self
            .access
            .write_kubeconfig(name, &user)?
            .display()
            .to_string())
    }

    /// The command line of the Deployment's container, with some flags set anew.
    fn arguments(&self, overrides: &BTreeMap<String, String>) -> Result<Vec<String>> {
        let given = self
            .template
            .pointer("/spec/containers/0/args")
            .and_then(Value::as_array);
        let mut given = given
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .peekable();
        let command = given.next().context("the Deployment passes no arguments")?;
        let mut arguments = vec![command.to_owned()];
        while let Some(flag) = given.next() {
            let name = flag.split_once('=').map_or(flag, |(name, _)| name);
            let value = given.next_if(|next| !flag.contains('=') && !next.starts_with("--"));
            // Both say where the gateway is reached: who sets one does not want the other.
            let replaced = overrides.contains_key(name)
                || (name == "--publish-service"
                    && overrides.contains_key("--publish-status-address"));
            if !replaced {
                arguments.push(flag.to_owned());
                arguments.extend(value.map(str::to_owned));
            }
        }
        arguments.extend(overrides.iter().map(|(flag, value)| {
            if value.is_empty() {
                flag.clone()
            } else {
                format!("{flag}={value}")
            }
        }));
        Ok(arguments)
    }

    /// The environment of the Deployment's container, for a pod of that name.
    fn environment(&self, pod: &str) -> Vec<(String, String)> {
        let given = self
            .template
            .pointer("/spec/containers/0/env")
            .and_then(Value::as_array);
        given
            .into_iter()
            .flatten()
            .filter_map(|variable| {
                let name = variable.get("name")?.as_str()?.to_owned();
                let field = variable.pointer("/valueFrom/fieldRef/fieldPath");
                let value = match field.and_then(Value::as_str) {
                    Some("metadata.name") => pod,
                    Some("metadata.namespace") => &self.namespace,
                    Some(_) => return None,
                    None => variable.get("value")?.as_str()?,
                };
                Some((name, value.to_owned()))
            })
            .collect()
    }

    /// Starts the binary as a pod of that name, on an address of its own. `flags` replace those of the Deployment.
    pub async fn launch(&self, pod: &str, flags: &[(&str, &str)]) -> Result<Lockgate> {
        let kubeconfig = self.kubeconfig(pod).await?;
        self.launch_with(pod, flags, kubeconfig)
    }

    /// The same, with a kubeconfig that was made before.
    pub fn launch_with(
        &self,
        pod: &str,
        flags: &[(&str, &str)],
        kubeconfig: String,
    ) -> Result<Lockgate> {
        let address = Ipv4Addr::new(203, 0, 113, NEXT.fetch_add(1, Ordering::Relaxed));
        let address = IpAddr::V4(address);
        let mut overrides: BTreeMap<String, String> = [
            ("--kubeconfig", kubeconfig),
            ("--http-listen", format!("{address}:80")),
            ("--https-listen", format!("{address}:443")),
            ("--admin-listen", format!("{address}:10254")),
            // No load balancer has to notice first.
            ("--shutdown-delay", "0s".to_owned()),
            ("--drain-timeout", "20s".to_owned()),
        ]
        .map(|(flag, value)| (flag.to_owned(), value))
        .into();
        overrides.extend(
            flags
                .iter()
                .map(|&(flag, value)| (flag.to_owned(), value.to_owned())),
        );
        let environment = self.environment(pod);
        let environment: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let log = self.access.folder.join(format!("{pod}.log"));
        let program = Program::start(
            pod,
            &self.access.programs.lockgate,
            self.arguments(&overrides)?,
            &environment,
            log,
        )?;
        Ok(Lockgate {
            pod: pod.to_owned(),
            address,
            program,
            admin: Client::new(address)?,
            ended: false,
        })
    }
}

/// A running `lockgate`. Dropped before it has ended, which is what a failing test does, it shows the end of its log.
pub struct Lockgate {
    /// The name of the pod that it is.
    pub pod: String,
    /// Where it listens.
    pub address: IpAddr,
    program: Program,
    admin: Client,
    ended: bool,
}

impl Drop for Lockgate {
    fn drop(&mut self) {
        if !self.ended {
            eprintln!("{}", self.log_tail());
        }
    }
}

impl Lockgate {
    /// Asks the admin port.
    pub async fn admin(&self, path: &str) -> Result<Reply> {
        self.admin
            .get(&format!("http://admin.invalid:10254{path}"))
            .await
    }

    /// The sum of all series of a metric.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let reply = self.admin("/metrics").await?;
        let values = reply.body.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let labels_end = if rest.starts_with('{') {
                rest.rfind('}')? + 1
            } else {
                0
            };
            rest.get(labels_end..)?
                .strip_prefix(' ')?
                .parse::<f64>()
                .ok()
        });
        values
            .reduce(|sum, value| sum + value)
            .with_context(|| format!("no metric {name}"))
    }

    /// Waits until it says that it is ready.
    pub async fn ready(mut self) -> Result<Self> {
        let mut ended = None;
        let Self { program, admin, .. } = &mut self;
        let waited = eventually("lockgate is ready", SOON, async || {
            if let Err(error) = program.check_running() {
                ended = Some(error);
                return Ok(());
            }
            let reply = admin.get("http://admin.invalid:10254/readyz").await?;
            ensure!(
                reply.status == 200,
                "/readyz: {} {}",
                reply.status,
                reply.body.trim()
            );
            Ok(())
        })
        .await;
        match ended {
            Some(error) => Err(error),
            None => waited.map(|()| self),
        }
    }

    /// Asks it to end, as the kubelet does.
    pub fn terminate(&self) -> Result<()> {
        self.program.signal(Signal::TERM)
    }

    /// Waits until it has ended, which has to be with exit code 0.
    pub async fn ended(&mut self) -> Result<()> {
        let status = self.program.ended(Duration::from_secs(30)).await?;
        ensure!(status.success(), "{} has ended with {status}", self.pod);
        self.ended = true;
        Ok(())
    }

    /// Asks it to end and waits for it.
    pub async fn stop(mut self) -> Result<()> {
        self.terminate()?;
        self.ended().await
    }

    /// Fails when it has ended.
    pub fn check_running(&mut self) -> Result<()> {
        self.program.check_running()
    }

    /// The end of what it has logged.
    pub fn log_tail(&self) -> String {
        format!("the last lines of {}:\n{}", self.pod, self.program.tail(15))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.program.id()
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        self.program.log()
    }
}
