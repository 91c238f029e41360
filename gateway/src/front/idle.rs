//! How long connections may be idle: as long as their own time allows, less while places or memory are short, and not
//! at all at the end of a gateway.

use std::time::Duration;

use tokio::sync::watch;

/// As long as their own time allows.
pub(crate) const ANY: Duration = Duration::MAX;

/// Why an idle connection has to go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Gone {
    /// The gateway ends.
    Drain,
    /// Others need its place.
    Shed,
}

/// Ready when a connection has to go that has been idle for as long as `idle` says; [`None`] is busy.
pub(crate) async fn over(
    mut longest: watch::Receiver<Duration>,
    idle: impl Fn() -> Option<Duration>,
) -> Gone {
    loop {
        let most = *longest.borrow_and_update();
        if most.is_zero() {
            return Gone::Drain;
        }
        if most < ANY && idle().is_some_and(|idle| idle >= most) {
            return Gone::Shed;
        }
        // Fails when the front is gone, which is an end as well.
        if longest.changed().await.is_err() {
            return Gone::Drain;
        }
    }
}
