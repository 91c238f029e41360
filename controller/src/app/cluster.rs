//! The Kubernetes API as source, and what is written to it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use model::CertificateId;
use tokio::sync::watch;
use tracing::info;
use translate::NamespacedName;

use super::{ClusterSettings, Parts};
use crate::leader;
use crate::lifecycle::{Lifecycle, Phase};
use crate::reconcile::Shared;
use crate::status::apply;
use crate::status::board::Board;
use crate::status::event::Reporter;
use crate::status::plan::{Publish, Validity};
use crate::status::policies::{self, Policies};
use crate::watch::EventSender;
use crate::watch::cluster::{self, Scope};

/// How long to wait for a connection to the API server.
const CONNECT: Duration = Duration::from_secs(10);

/// Connects to the API, starts to watch it, and leaves in `parts` who reports back.
pub(super) async fn start(
    settings: ClusterSettings,
    translation: &translate::Settings,
    shared: &Shared,
    lifecycle: &Lifecycle,
    events: EventSender,
    parts: &mut Parts,
) -> anyhow::Result<()> {
    let publish = publish(&settings)?;
    let config = connection(settings.kubeconfig.as_deref()).await?;
    info!(server = %config.cluster_url, "Watching the Kubernetes API");
    let client = Client::try_from(config).context("cannot use the Kubernetes API")?;

    let election = leader::Settings::new(&settings.election_id, |name| std::env::var(name).ok());
    let reporter = Reporter {
        controller: translation.controller_name.clone(),
        instance: election.identity.clone(),
    };
    let expiry = Arc::clone(&shared.expiry);
    let board = Board::new(
        publish,
        Arc::new(move |secret: &NamespacedName| {
            let id = CertificateId::secret(&secret.namespace, &secret.name);
            let (not_before, not_after) = expiry.validity(&id)?;
            Some(Validity {
                not_before,
                not_after,
            })
        }),
    );
    let policies = Policies::default();
    parts.observer = Some(Box::new((board.clone(), policies.clone())));
    parts.tasks.spawn(cluster::run(
        client.clone(),
        scope(translation, settings.publish_service),
        shared.wanted.subscribe(),
        events,
    ));
    let leading = watch::Sender::new(false);
    parts.tasks.spawn(apply::run(
        client.clone(),
        board,
        leading.subscribe(),
        reporter,
        apply::Pace::default(),
    ));
    parts
        .tasks
        .spawn(policies::run(client.clone(), policies, leading.subscribe()));
    let mut phase = lifecycle.subscribe();
    parts.reporters.spawn(async move {
        // A replica that takes leave lets another one write.
        let farewell = async {
            let _ = phase.wait_for(|phase| *phase >= Phase::Leaving).await;
        };
        leader::run(client, election, leading, farewell).await;
    });
    Ok(())
}

async fn connection(kubeconfig: Option<&Path>) -> anyhow::Result<Config> {
    let mut config = match kubeconfig {
        Some(path) => {
            let shown = path.display();
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("cannot read {shown} (--kubeconfig)"))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("cannot use {shown} (--kubeconfig)"))?
        }
        None => Config::incluster().context(
            "this is no pod of a cluster: give --kubeconfig FILE, or --manifests DIR to do without a cluster",
        )?,
    };
    config.connect_timeout = Some(CONNECT);
    // Whoever sends a request decides when to send it again.
    config.default_retry = false;
    Ok(config)
}

fn publish(settings: &ClusterSettings) -> anyhow::Result<Publish> {
    if let Some(service) = &settings.publish_service {
        return Ok(Publish::Service(service.clone()));
    }
    if settings.publish_status_address.is_empty() {
        return Ok(Publish::Nothing);
    }
    let addresses: Result<BTreeSet<_>, _> = settings
        .publish_status_address
        .iter()
        .map(|text| text.trim().parse())
        .collect();
    addresses
        .map(Publish::Addresses)
        .context("cannot use --publish-status-address")
}

/// What to watch. Objects that a setting names count also if their namespace is not watched.
fn scope(translation: &translate::Settings, publish_service: Option<NamespacedName>) -> Scope {
    Scope {
        namespaces: translation.watch_namespaces.clone(),
        configmap: translation.configmap.clone(),
        further_configmaps: translation
            .configmaps()
            .into_iter()
            .chain(translation.header_configmaps.iter().flatten())
            .cloned()
            .collect(),
        services: translation
            .default_backend_service
            .iter()
            .cloned()
            .chain(publish_service)
            .collect(),
        secrets: translation.own_secrets().into_iter().cloned().collect(),
    }
}
