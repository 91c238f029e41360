//! The Kubernetes API as a source: one watch per kind and namespace.
//!
//! Whatever the API server does, a watch goes on trying and the last state stays: nothing in here ends the process.
//! What vanished while a watch was down is found by comparing the new list with what was reported before.

mod follow;

use std::collections::BTreeSet;
use std::time::Duration;

use crds::{GatewayPolicy, ReferenceGrant, RoutePolicy};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use translate::NamespacedName;

use self::follow::{Reporter, SecretSink, Watch};
use super::failure::Journal;
use super::kinds::{Kind, WATCHED_SECRETS};
use super::line::{self, Pace};
use super::secrets;
use super::{EventSender, SourceEvent, Wanted};

/// How long the wanted Secrets are waited for before Secrets are listed all the same.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is watched.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    /// These namespaces; empty for all.
    pub(crate) namespaces: BTreeSet<String>,
    /// The ConfigMap with the settings.
    pub(crate) configmap: Option<NamespacedName>,
    /// Other ConfigMaps that settings name.
    pub(crate) further_configmaps: BTreeSet<NamespacedName>,
    /// Services that settings name. Watched one by one where their namespace is not watched.
    pub(crate) services: BTreeSet<NamespacedName>,
    /// Secrets that settings name. Watched one by one where their namespace is not watched.
    pub(crate) secrets: BTreeSet<NamespacedName>,
}

impl Scope {
    fn covers(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.contains(namespace)
    }
}

/// Watches until nobody listens any more.
///
/// `wanted` names the Secrets to keep. It is asked for after [`SourceEvent::Listed`]; Secrets that it does not name are
/// dropped as they arrive.
pub(crate) async fn run(
    client: Client,
    scope: Scope,
    wanted: watch::Receiver<Wanted>,
    events: EventSender,
) {
    run_paced(client, scope, wanted, events, Pace::default()).await;
}

/// [`run`] with delays of the caller's choice.
pub(crate) async fn run_paced(
    client: Client,
    scope: Scope,
    mut wanted: watch::Receiver<Wanted>,
    events: EventSender,
    pace: Pace,
) {
    let (listed, mut first_lists) = mpsc::unbounded_channel();
    let mut source = Source {
        client,
        pace,
        events: events.clone(),
        listed,
        tasks: JoinSet::new(),
        count: 0,
    };
    source.watch_all_but_secrets(&scope);
    let expected = source.count;
    wanted.mark_unchanged();
    let sync = async {
        for _ in 0..expected {
            first_lists.recv().await;
        }
        events.send(SourceEvent::Listed).await?;
        // The reconcile loop answers at once; should it not, every Secret it wants is read by name afterwards.
        let _ = timeout(PATIENCE, wanted.changed()).await;
        let watches = source.watch_secrets(&scope, wanted.clone());
        for _ in 0..watches {
            first_lists.recv().await;
        }
        events.send(SourceEvent::Synced).await
    };
    if sync.await.is_err() {
        return;
    }
    // A watch ends only when nobody listens any more. Dropping the set ends the others.
    source.tasks.join_next().await;
}

struct Source {
    client: Client,
    pace: Pace,
    events: EventSender,
    listed: mpsc::UnboundedSender<()>,
    tasks: JoinSet<()>,
    count: usize,
}

impl Source {
    fn watch_all_but_secrets(&mut self, scope: &Scope) {
        self.watch_namespaced::<Ingress>(scope, &watcher::Config::default());
        self.watch_namespaced::<Service>(scope, &watcher::Config::default());
        self.watch_namespaced::<EndpointSlice>(scope, &watcher::Config::default());
        self.watch_namespaced::<RoutePolicy>(scope, &watcher::Config::default());
        self.watch_namespaced::<ReferenceGrant>(scope, &watcher::Config::default());
        self.watch_of_cluster::<IngressClass>(scope);
        self.watch_of_cluster::<GatewayPolicy>(scope);
        for service in &scope.services {
            if !scope.covers(&service.namespace) {
                let by_name = format!("metadata.name={}", service.name);
                self.watch_one::<Service>(
                    &service.namespace,
                    watcher::Config::default().fields(&by_name),
                );
                let by_label = format!("kubernetes.io/service-name={}", service.name);
                self.watch_one::<EndpointSlice>(
                    &service.namespace,
                    watcher::Config::default().labels(&by_label),
                );
            }
        }
        let configmaps: BTreeSet<_> = scope
            .configmap
            .iter()
            .chain(&scope.further_configmaps)
            .collect();
        for configmap in configmaps {
            let by_name = format!("metadata.name={}", configmap.name);
            self.watch_one::<ConfigMap>(
                &configmap.namespace,
                watcher::Config::default().fields(&by_name),
            );
        }
    }

    fn watch_namespaced<K>(&mut self, scope: &Scope, config: &watcher::Config)
    where
        K: Kind + kube::Resource<Scope = NamespaceResourceScope>,
    {
        if scope.namespaces.is_empty() {
            self.spawn::<K>("", config.clone(), Api::all, false);
        }
        for namespace in &scope.namespaces {
            self.watch_one::<K>(namespace, config.clone());
        }
    }

    fn watch_one<K>(&mut self, namespace: &str, config: watcher::Config)
    where
        K: Kind + kube::Resource<Scope = NamespaceResourceScope>,
    {
        let api = |client| Api::namespaced(client, namespace);
        self.spawn::<K>(namespace, config, api, false);
    }

    /// Classes and policies belong to the whole cluster: an installation for a few namespaces may not be allowed to see
    /// them.
    fn watch_of_cluster<K>(&mut self, scope: &Scope)
    where
        K: Kind + kube::Resource<Scope = ClusterResourceScope>,
    {
        let optional = !scope.namespaces.is_empty();
        self.spawn::<K>("", watcher::Config::default(), Api::all, optional);
    }

    fn spawn<K: Kind>(
        &mut self,
        namespace: &str,
        config: watcher::Config,
        api: impl FnOnce(Client) -> Api<K>,
        optional: bool,
    ) {
        let (client, line) = line::client(&self.client, K::NAME, &self.pace);
        let watch = Watch {
            api: api(client),
            config,
            line,
            journal: Journal::new("Watch", K::NAME, namespace),
            pace: self.pace.clone(),
            optional,
        };
        let sink = Reporter {
            known: BTreeSet::new(),
            relisted: None,
            events: self.events.clone(),
            listed: Some(self.listed.clone()),
        };
        self.tasks.spawn(watch.run(sink));
        self.count += 1;
    }

    /// Starts the watches of Secrets and what chooses among them; returns how many first lists follow.
    fn watch_secrets(&mut self, scope: &Scope, wanted: watch::Receiver<Wanted>) -> usize {
        let (batches, received) = mpsc::channel(4);
        let of_type = watcher::Config::default().fields(WATCHED_SECRETS);
        let mut places: Vec<(String, watcher::Config)> = if scope.namespaces.is_empty() {
            vec![(String::new(), of_type)]
        } else {
            let place = |namespace: &String| (namespace.clone(), of_type.clone());
            scope.namespaces.iter().map(place).collect()
        };
        for secret in scope.secrets.iter().filter(|s| !scope.covers(&s.namespace)) {
            let fields = format!("{WATCHED_SECRETS},metadata.name={}", secret.name);
            places.push((
                secret.namespace.to_string(),
                watcher::Config::default().fields(&fields),
            ));
        }
        let watches = places.len();
        for (index, (namespace, config)) in places.into_iter().enumerate() {
            let (client, line) = line::client(&self.client, Secret::NAME, &self.pace);
            let watch = Watch {
                api: if namespace.is_empty() {
                    Api::all(client)
                } else {
                    Api::namespaced(client, &namespace)
                },
                config,
                line,
                journal: Journal::new("Watch", Secret::NAME, &namespace),
                pace: self.pace.clone(),
                optional: false,
            };
            let sink = SecretSink {
                watch: index,
                batches: batches.clone(),
            };
            self.tasks.spawn(watch.run(sink));
        }
        self.tasks.spawn(secrets::keep(
            self.client.clone(),
            wanted,
            received,
            self.events.clone(),
            self.listed.clone(),
            self.pace.clone(),
        ));
        watches
    }
}

#[cfg(test)]
mod tests;
