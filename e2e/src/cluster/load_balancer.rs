//! A load balancer such as a cloud has: it gives Services of type `LoadBalancer` an address, checks the health of nodes,
//! and distributes new connections over the healthy ones. A connection stays where it is; the address of the client is
//! kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::network::NODES;
use super::tool;
use crate::kubectl::Kubectl;

const INTERVAL: Duration = Duration::from_secs(1);
/// So many checks in a row have to fail until a node gets no more connections; one success brings it back.
const FAILURES: u32 = 2;
/// Where kube-proxy tells the health of a node, for Services that any node serves.
const NODE_HEALTH: u16 = 10256;
/// After the API server was lost.
const PAUSE: Duration = Duration::from_millis(500);

/// Ends when it is dropped.
pub(super) struct LoadBalancer {
    task: JoinHandle<()>,
}

impl LoadBalancer {
    /// Starts without rules.
    pub(super) fn start(kubectl: Kubectl) -> Result<Self> {
        let mut balancer = Balancer {
            kubectl,
            services: BTreeMap::new(),
            failures: BTreeMap::new(),
            rules: String::new(),
        };
        balancer.write_rules()?;
        let task = tokio::spawn(async move {
            loop {
                if let Err(error) = balancer.follow().await {
                    log(&format!("load balancer: {error:#}"));
                }
            }
        });
        Ok(Self { task })
    }
}

impl Drop for LoadBalancer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Namespace and name.
type Key = (String, String);
/// A health check: its port on every node, and the node's place in the list.
type Check = (u16, usize);

#[derive(Debug)]
struct Service {
    address: Ipv4Addr,
    ports: Vec<Forward>,
    health: u16,
}

#[derive(Debug)]
struct Forward {
    protocol: String,
    from: u16,
    to: u16,
}

struct Balancer {
    kubectl: Kubectl,
    services: BTreeMap<Key, Service>,
    failures: BTreeMap<Check, u32>,
    /// What is in force.
    rules: String,
}

impl Balancer {
    /// Follows the Services until the API server is lost. What is known goes on being checked and served meanwhile.
    async fn follow(&mut self) -> Result<()> {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = String::new();
        let mut watch = loop {
            match self.list().await {
                Ok(watch) => break watch,
                Err(error) => {
                    self.check_nodes().await?;
                    // Once, and not twice a second for as long as the API server is away.
                    let error = format!("load balancer: {error:#}");
                    if error != told {
                        log(&error);
                        told = error;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        loop {
            tokio::select! {
                event = watch.next() => match event? {
                    Some(event) => self.changed(&event).await?,
                    None => return Ok(()),
                },
                _ = ticks.tick() => self.check_nodes().await?,
            }
        }
    }

    /// Forgets Services that have gone unseen, and begins to watch.
    async fn list(&mut self) -> Result<Watch> {
        let list = self
            .kubectl
            .json(&[
                "get",
                "services",
                "--all-namespaces",
                "--request-timeout=5s",
            ])
            .await?;
        let items = list.pointer("/items").and_then(Value::as_array);
        let present: BTreeSet<Key> = items.into_iter().flatten().filter_map(key).collect();
        self.services.retain(|key, _| present.contains(key));
        self.write_rules()?;
        Watch::new(self.kubectl.spawn(&[
            "get",
            "services",
            "--all-namespaces",
            "--watch",
            "--output-watch-events",
            "--output=json",
        ])?)
    }

    async fn changed(&mut self, event: &Value) -> Result<()> {
        let object = event.get("object").context("an event without an object")?;
        let key = key(object).context("a Service without a name")?;
        let ours = object.pointer("/spec/type").and_then(Value::as_str) == Some("LoadBalancer")
            && object.pointer("/spec/loadBalancerClass").is_none();
        let deleted = event.get("type").and_then(Value::as_str) == Some("DELETED");
        let known = self.services.remove(&key);
        if ours && !deleted {
            let address =
                match known.map_or_else(|| self.address(object), |known| Ok(known.address)) {
                    Ok(address) => address,
                    Err(error) => {
                        log(&format!("load balancer: {}/{}: {error:#}", key.0, key.1));
                        return self.write_rules();
                    }
                };
            let service = Service {
                address,
                ports: ports(object),
                health: number(object, "/spec/healthCheckNodePort")
                    .filter(|port| *port != 0)
                    .unwrap_or(NODE_HEALTH),
            };
            self.services.insert(key.clone(), service);
            self.check_nodes().await?;
            self.tell(&key, object, Some(address)).await;
        } else if !deleted {
            self.tell(&key, object, None).await;
        }
        self.write_rules()
    }

    /// The address that a Service has, or asks for, or else the first that is free.
    fn address(&self, service: &Value) -> Result<Ipv4Addr> {
        let taken: BTreeSet<Ipv4Addr> = self.services.values().map(|one| one.address).collect();
        let wanted = ["/status/loadBalancer/ingress/0/ip", "/spec/loadBalancerIP"]
            .iter()
            .filter_map(|pointer| service.pointer(pointer)?.as_str()?.parse().ok());
        wanted
            .chain((10..=254).map(|host| Ipv4Addr::new(203, 0, 113, host)))
            .find(|address| {
                address.octets().starts_with(&[203, 0, 113]) && !taken.contains(address)
            })
            .context("no address is free")
    }

    /// Writes the address into the status, or takes it out, unless it is right already.
    async fn tell(&self, (namespace, name): &Key, service: &Value, address: Option<Ipv4Addr>) {
        let is = service.pointer("/status/loadBalancer/ingress/0/ip");
        if is.and_then(Value::as_str) == address.map(|address| address.to_string()).as_deref() {
            return;
        }
        let ingress = match address {
            Some(address) => serde_json::json!([{"ip": address.to_string(), "ipMode": "VIP"}]),
            None => Value::Null,
        };
        let patch =
            serde_json::json!({"status": {"loadBalancer": {"ingress": ingress}}}).to_string();
        let arguments = [
            "patch",
            "service",
            name,
            "--namespace",
            namespace,
            "--subresource=status",
            "--type=merge",
            "--patch",
            &patch,
        ];
        // A Service that is being deleted meanwhile needs none; every other change of it tries again.
        if let Err(error) = self.kubectl.run(&arguments).await {
            log(&format!("load balancer: {error:#}"));
        }
    }

    async fn check_nodes(&mut self) -> Result<()> {
        let ports: BTreeSet<u16> = self.services.values().map(|one| one.health).collect();
        self.failures.retain(|(port, _), _| ports.contains(port));
        let mut checks = JoinSet::new();
        for port in ports {
            for (place, node) in NODES.iter().enumerate() {
                let address = node.address;
                checks.spawn(async move {
                    let answer = timeout(INTERVAL, healthy(address, port)).await;
                    ((port, place), matches!(answer, Ok(Ok(()))))
                });
            }
        }
        while let Some(checked) = checks.join_next().await {
            let (check, passed) = checked?;
            // A node that was never healthy has failed often enough.
            let failures = self.failures.entry(check).or_insert(FAILURES);
            *failures = if passed {
                0
            } else {
                failures.saturating_add(1)
            };
        }
        self.write_rules()
    }

    fn write_rules(&mut self) -> Result<()> {
        let mut rules = String::from(
            "table ip load-balancer\ndelete table ip load-balancer\n\
             table ip load-balancer {\nchain prerouting {\n type nat hook prerouting priority dstnat;\n",
        );
        for service in self.services.values() {
            let nodes: Vec<Ipv4Addr> = NODES
                .iter()
                .enumerate()
                .filter(|(place, _)| {
                    let failures = self.failures.get(&(service.health, *place));
                    failures.is_some_and(|failures| *failures < FAILURES)
                })
                .map(|(_, node)| node.address)
                .collect();
            if nodes.is_empty() {
                continue;
            }
            for Forward { protocol, from, to } in &service.ports {
                let targets: Vec<String> = nodes
                    .iter()
                    .enumerate()
                    .map(|(number, node)| format!("{number} : {node} . {to}"))
                    .collect();
                writeln!(
                    rules,
                    " ip daddr {} {protocol} dport {from} dnat ip to numgen inc mod {} map {{ {} }}",
                    service.address,
                    nodes.len(),
                    targets.join(", "),
                )?;
            }
        }
        rules.push_str("}\n}\n");
        if rules != self.rules {
            tool::run("nft", &["-f", "-"], &rules).with_context(|| rules.clone())?;
            self.rules = rules;
        }
        Ok(())
    }
}

/// The output of `kubectl get --watch`: an event per line.
struct Watch {
    // Ends with this value.
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watch {
    fn new(mut child: Child) -> Result<Self> {
        let stdout = child.stdout.take().context("no standard output")?;
        Ok(Self {
            _child: child,
            lines: BufReader::new(stdout).lines(),
        })
    }

    /// Waiting for it can be given up without losing anything.
    async fn next(&mut self) -> Result<Option<Value>> {
        let line = self.lines.next_line().await?;
        Ok(line.map(|line| serde_json::from_str(&line)).transpose()?)
    }
}

async fn healthy(address: Ipv4Addr, port: u16) -> Result<()> {
    let mut stream = TcpStream::connect((address, port)).await?;
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: health\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await?;
    ensure!(
        answer.ends_with(b" 200"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    Ok(())
}

fn key(service: &Value) -> Option<Key> {
    let text = |pointer| Some(service.pointer(pointer)?.as_str()?.to_owned());
    Some((text("/metadata/namespace")?, text("/metadata/name")?))
}

fn ports(service: &Value) -> Vec<Forward> {
    let ports = service.pointer("/spec/ports").and_then(Value::as_array);
    ports
        .into_iter()
        .flatten()
        .filter_map(|port| {
            Some(Forward {
                protocol: port.get("protocol")?.as_str()?.to_lowercase(),
                from: number(port, "/port")?,
                to: number(port, "/nodePort")?,
            })
        })
        .collect()
}

fn number(value: &Value, pointer: &str) -> Option<u16> {
    value
        .pointer(pointer)?
        .as_u64()
        .and_then(|number| u16::try_from(number).ok())
}

/// Standard error is where the cluster's owner looks.
fn log(line: &str) {
    let _written = writeln!(io::stderr(), "{line}");
}
