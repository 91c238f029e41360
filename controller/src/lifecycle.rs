//! Where the process stands between its start and its end.

use tokio::sync::watch;

/// The stages of a process, in the order in which it goes through them.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Phase {
    /// The first full sync is not there yet; nothing is served.
    #[default]
    Starting,
    /// Connections are accepted; `/readyz` and `/servingz` say so.
    Serving,
    /// Told to end: `/readyz` says no, connections are still accepted until load balancers have noticed, and
    /// `/servingz` says that they are.
    Leaving,
    /// No new connections; requests in flight finish.
    Draining,
    /// Nothing is served any more.
    Stopped,
}

impl Phase {
    /// Should the process be sent new connections?
    pub fn is_ready(self) -> bool {
        self == Self::Serving
    }

    /// Does the process accept connections?
    pub fn is_accepting(self) -> bool {
        matches!(self, Self::Serving | Self::Leaving)
    }
}

/// Moves the process from phase to phase. Phases only go forward.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    phase: watch::Sender<Phase>,
}

impl Lifecycle {
    pub(crate) fn new() -> Self {
        Self {
            phase: watch::Sender::new(Phase::default()),
        }
    }

    /// Enters `next`, unless the process is already there or further.
    pub(crate) fn advance(&self, next: Phase) {
        self.phase.send_if_modified(|phase| {
            let forward = next > *phase;
            if forward {
                *phase = next;
            }
            forward
        });
    }

    /// A view that can be waited on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_only_go_forward() {
        let lifecycle = Lifecycle::new();
        let phase = lifecycle.subscribe();
        lifecycle.advance(Phase::Leaving);
        lifecycle.advance(Phase::Serving);
        assert_eq!(
            *phase.borrow(),
            Phase::Leaving,
            "a late sync does not bring it back"
        );
        assert!(!phase.borrow().is_ready());
        assert!(phase.borrow().is_accepting());
        lifecycle.advance(Phase::Draining);
        assert!(!phase.borrow().is_accepting());
    }
}
