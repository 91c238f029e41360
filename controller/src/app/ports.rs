//! Ports that the table asks for: they are opened and closed after each table, and tried again while that fails.

use std::time::Duration;

use table::Reject;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::lifecycle::Phase;
use crate::reconcile::Progress;
use crate::watch::{SourceEvent, WeakEventSender};

/// How long to wait before a port is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Lets `update` look at every new table until the process leaves, and reports what it could not do.
pub(super) async fn keep<F>(
    update: impl Fn() -> F,
    mut progress: watch::Receiver<Progress>,
    mut phase: watch::Receiver<Phase>,
    events: WeakEventSender,
) where
    F: Future<Output = Vec<Reject>>,
{
    if phase
        .wait_for(|phase| *phase >= Phase::Serving)
        .await
        .is_err()
    {
        return;
    }
    let mut reported = Vec::new();
    loop {
        let generation = progress.borrow_and_update().generation;
        if *phase.borrow() >= Phase::Draining {
            return;
        }
        let hindered = update().await;
        let again = !hindered.is_empty();
        if hindered != reported {
            reported.clone_from(&hindered);
            if events.send(SourceEvent::Hindered(hindered)).await.is_err() {
                return;
            }
        }
        let waited = async {
            if again {
                sleep(AGAIN).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        let ended = tokio::select! {
            changed = progress.wait_for(|progress| progress.generation != generation) => changed.is_err(),
            _ = phase.wait_for(|phase| *phase >= Phase::Draining) => true,
            () = waited => false,
        };
        if ended {
            return;
        }
    }
}
