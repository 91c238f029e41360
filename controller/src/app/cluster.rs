//! The Kubernetes API as source, and what is written to it.

use super::{ClusterSettings, Parts};
use crate::lifecycle::Lifecycle;
use crate::reconcile::Shared;
use crate::watch::EventSender;

/// Connects to the API, starts to watch it, and leaves in `parts` who reports back.
pub(super) async fn start(
    settings: ClusterSettings,
    translation: &translate::Settings,
    shared: &Shared,
    lifecycle: &Lifecycle,
    events: EventSender,
    parts: &mut Parts,
) -> anyhow::Result<()> {
    let _ = (settings, translation, shared, lifecycle, events, parts);
    anyhow::bail!("the Kubernetes API is not a source in this build; use --manifests")
}
