//! Which replica writes to the cluster.
//!
//! A Lease of `coordination.k8s.io` names the leader. Every write to it is guarded by the resource version that was
//! read, so two replicas cannot both believe that they took it. A replica that cannot renew gives up by its own clock
//! before another one may take over. Serving never waits for any of this: only statuses and Events do.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, info, warn};

use crate::backoff::random_bits;
use crate::permissions::{Permission, Reach};
use crate::telemetry;
use crate::watch::failure::describe;

/// What this module asks the API server for.
pub(crate) const PERMISSIONS: &[Permission] = &[Permission {
    group: "coordination.k8s.io",
    resource: "leases",
    verbs: &["get", "create", "update"],
    reach: Reach::OwnNamespace,
}];

/// Where the namespace of a pod is found when no variable names it.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// How the election is held.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Namespace of the Lease.
    pub(crate) namespace: String,
    /// Name of the Lease.
    pub(crate) name: String,
    /// Who this process is; no two processes may have the same.
    pub(crate) identity: String,
    /// How long others wait after the last sign of a leader.
    pub(crate) duration: Duration,
    /// How long a leader that cannot renew goes on; shorter than `duration`, so that there are never two.
    pub(crate) deadline: Duration,
    /// Time between two attempts.
    pub(crate) retry: Duration,
}

impl Settings {
    /// The election `name`, held in the namespace of this pod under the name of this pod.
    ///
    /// `variable` reads the environment.
    pub(crate) fn new(name: &str, variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let namespace = set("POD_NAMESPACE")
            .or_else(|| std::fs::read_to_string(NAMESPACE_FILE).ok())
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty())
            .unwrap_or_else(|| "default".to_owned());
        let host = set("POD_NAME")
            .or_else(|| set("HOSTNAME"))
            .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok())
            .unwrap_or_else(|| "lockgate".to_owned());
        Self {
            namespace,
            name: name.to_owned(),
            // A container that restarts keeps its pod's name, but must not take its predecessor's Lease for its own.
            identity: format!("{}_{:016x}", host.trim(), random_bits()),
            duration: Duration::from_secs(15),
            deadline: Duration::from_secs(10),
            retry: Duration::from_secs(5),
        }
    }
}

/// Takes part in the election until `shutdown` resolves, then gives the Lease back.
///
/// `leading` says at any time whether this process may write.
pub(crate) async fn run(
    client: Client,
    settings: Settings,
    leading: watch::Sender<bool>,
    shutdown: impl Future<Output = ()>,
) {
    let mut candidate = Candidate {
        leases: Api::namespaced(client, &settings.namespace),
        settings,
        rival: None,
        held_until: None,
        failing: false,
    };
    announce(&leading, false);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let started = Instant::now();
        tokio::select! {
            () = &mut shutdown => break,
            () = candidate.attempt(started, &leading) => {}
        }
        // Whatever comes first: the next attempt, or the moment from which another replica may lead.
        let wake = candidate
            .held_until
            .map_or(started + candidate.settings.retry, |until| {
                until.min(started + candidate.settings.retry)
            });
        tokio::select! {
            () = &mut shutdown => break,
            () = sleep_until(wake) => {}
        }
        candidate.check_clock(&leading);
    }
    let led = candidate.held_until.take().is_some();
    announce(&leading, false);
    if led {
        candidate.release().await;
    }
}

struct Candidate {
    leases: Api<Lease>,
    settings: Settings,
    /// The last state of another's Lease and when it was first seen, by our own clock: the clocks of two machines
    /// are never compared.
    rival: Option<(Option<String>, Instant)>,
    /// Until when this process leads, by its own clock.
    held_until: Option<Instant>,
    failing: bool,
}

/// How an attempt ended.
enum Standing {
    Leads,
    Follows,
}

impl Candidate {
    async fn attempt(&mut self, started: Instant, leading: &watch::Sender<bool>) {
        let limit = started + self.settings.retry;
        let limit = self.held_until.map_or(limit, |until| until.min(limit));
        let outcome = timeout_at(limit, self.acquire_or_renew(started)).await;
        match outcome {
            Ok(Ok(Standing::Leads)) => {
                // Counted from before the request: the server may have stored it at any moment since.
                self.held_until = Some(started + self.settings.deadline);
                self.failing = false;
                announce(leading, true);
            }
            Ok(Ok(Standing::Follows)) => {
                self.held_until = None;
                self.failing = false;
                announce(leading, false);
            }
            Ok(Err(error)) => self.failed(&describe(&error).to_string()),
            Err(_elapsed) => self.failed("the API server did not answer in time"),
        }
        self.check_clock(leading);
    }

    fn failed(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.failing, true) {
            let Settings {
                namespace, name, ..
            } = &self.settings;
            warn!(
                lease = format_args!("{namespace}/{name}"),
                reason,
                "Cannot take part in the election; serving goes on, statuses are not written by this replica"
            );
        }
    }

    fn check_clock(&mut self, leading: &watch::Sender<bool>) {
        if self.held_until.is_some_and(|until| until <= Instant::now()) {
            self.held_until = None;
            announce(leading, false);
        }
    }

    async fn acquire_or_renew(&mut self, now: Instant) -> kube::Result<Standing> {
        let Some(lease) = self.leases.get_opt(&self.settings.name).await? else {
            return self.write(None).await;
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if !holder.is_empty() && holder != self.settings.identity {
            let version = lease.metadata.resource_version.clone();
            let since = match &self.rival {
                Some((seen, since)) if *seen == version => *since,
                _ => {
                    debug!(holder, "Another replica leads");
                    self.rival = Some((version, now));
                    now
                }
            };
            let patience = spec
                .lease_duration_seconds
                .and_then(|seconds| u64::try_from(seconds).ok())
                .map_or(self.settings.duration, Duration::from_secs);
            if now.duration_since(since) < patience {
                return Ok(Standing::Follows);
            }
            info!(holder, "The leader has not renewed its Lease; taking over");
        }
        self.write(Some(lease)).await
    }

    /// Writes this process into the Lease, unless somebody else wrote since it was read.
    async fn write(&mut self, before: Option<Lease>) -> kube::Result<Standing> {
        let now = MicroTime(Timestamp::now());
        let parameters = PostParams::default();
        let written = if let Some(before) = before {
            let lease = self.renewed(before, now);
            self.leases
                .replace(&self.settings.name, &parameters, &lease)
                .await
        } else {
            let lease = self.renewed(Lease::default(), now);
            self.leases.create(&parameters, &lease).await
        };
        match written {
            Ok(_) => {
                self.rival = None;
                Ok(Standing::Leads)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Standing::Follows),
            Err(error) => Err(error),
        }
    }

    fn renewed(&self, before: Lease, now: MicroTime) -> Lease {
        let spec = before.spec.unwrap_or_default();
        let ours = spec.holder_identity.as_deref() == Some(&self.settings.identity);
        let transitions = spec.lease_transitions.unwrap_or_default();
        let fresh = before.metadata.resource_version.is_none();
        Lease {
            metadata: ObjectMeta {
                name: Some(self.settings.name.clone()),
                namespace: Some(self.settings.namespace.clone()),
                ..before.metadata
            },
            spec: Some(LeaseSpec {
                acquire_time: if ours {
                    spec.acquire_time
                } else {
                    Some(now.clone())
                },
                holder_identity: Some(self.settings.identity.clone()),
                lease_duration_seconds: i32::try_from(self.settings.duration.as_secs()).ok(),
                lease_transitions: Some(if ours || fresh {
                    transitions
                } else {
                    transitions.saturating_add(1)
                }),
                renew_time: Some(now),
                ..spec
            }),
        }
    }

    /// Lets the next leader start at once instead of after [`Settings::duration`].
    async fn release(&mut self) {
        let limit = Instant::now() + self.settings.retry;
        let released = timeout_at(limit, async {
            let mut lease = self.leases.get(&self.settings.name).await?;
            if let Some(spec) = &mut lease.spec
                && spec.holder_identity.as_deref() == Some(&self.settings.identity)
            {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
                spec.renew_time = Some(MicroTime(Timestamp::now()));
                self.leases
                    .replace(&self.settings.name, &PostParams::default(), &lease)
                    .await?;
            }
            Ok::<_, kube::Error>(())
        })
        .await;
        match released {
            Ok(Ok(())) => info!("Gave the leadership back"),
            Ok(Err(error)) => {
                debug!(reason = %describe(&error), "Could not give the Lease back; it expires");
            }
            Err(_elapsed) => debug!("Could not give the Lease back in time; it expires"),
        }
    }
}

fn announce(leading: &watch::Sender<bool>, now: bool) {
    let changed = leading.send_if_modified(|before| std::mem::replace(before, now) != now);
    metrics::gauge!(telemetry::LEADER).set(if now { 1.0 } else { 0.0 });
    match (changed, now) {
        (true, true) => info!("This replica leads: it writes statuses and Events"),
        (true, false) => info!("This replica no longer leads"),
        (false, _) => {}
    }
}

#[cfg(test)]
mod tests;
