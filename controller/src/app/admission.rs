//! The admission webhook, where it is asked for.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use rustls::crypto::aws_lc_rs;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::info;
use translate::NamespacedName;

use crate::admission::{self, Certificates, Follower, Question, Webhook};
use crate::reconcile::Reconciler;

/// The parts of the webhook, for those who drive them.
pub(super) struct Parts {
    pub(super) address: SocketAddr,
    pub(super) listener: TcpListener,
    pub(super) webhook: Arc<Webhook>,
    /// Looks at each pass.
    pub(super) follower: Follower,
    /// For the reconcile loop.
    pub(super) questions: mpsc::Receiver<Question>,
}

/// Binds its socket. It answers once there is a certificate and the first full sync.
pub(super) async fn bind(
    listen: SocketAddr,
    secret: Option<&NamespacedName>,
) -> anyhow::Result<Parts> {
    let secret = secret.context(
        "the admission webhook needs a certificate: name its Secret by --admission-secret",
    )?;
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen} (--admission-listen)"))?;
    let address = listener.local_addr()?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let certificates = Arc::new(Certificates::default());
    let (ask, questions) = admission::questions();
    let webhook = Webhook::new(Arc::clone(&certificates), Arc::clone(&provider), ask)
        .context("cannot set up TLS for the admission webhook")?;
    info!(admission = %address, %secret, "The admission webhook has its socket");
    Ok(Parts {
        address,
        listener,
        webhook: Arc::new(webhook),
        follower: Follower::new(secret.clone(), provider, certificates),
        questions,
    })
}

/// Lets the reconcile loop answer the webhook, where there is one.
pub(super) fn connect(
    parts: Option<Parts>,
    reconciler: Reconciler,
    tasks: &mut JoinSet<()>,
) -> Reconciler {
    let Some(parts) = parts else {
        return reconciler;
    };
    tasks.spawn(admission::serve(parts.listener, parts.webhook));
    reconciler.reviewing(parts.follower, parts.questions)
}
