//! What is done while places or memory are short, so that neither runs out.
//!
//! Connections on which nothing happens go first, those that have been idle for longest before others. Nobody keeps a
//! list of them: the time that they may be idle becomes shorter step by step, and each of them looks at its own clock.

use std::time::Duration;

use metrics::{counter, gauge};
use tokio::time::{MissedTickBehavior, interval};

use crate::drain::Tracker;
use crate::front::Lifecycle;
use crate::front::idle::ANY;
use crate::telemetry;

/// How short memory is.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Pressure {
    /// There is enough.
    #[default]
    None,
    /// Idle connections are closed, and others after their response.
    Shed,
    /// A few connections per second are accepted; the others wait in the queue of the kernel.
    Hold,
}

impl Pressure {
    /// As the metric has it.
    fn level(self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Shed => 1.0,
            Self::Hold => 2.0,
        }
    }
}

/// The time between two steps.
const STEP: Duration = Duration::from_millis(500);
/// Whoever has been idle for less is taken for busy.
const LEAST: Duration = Duration::from_secs(1);

/// Sees to one worker's connections for as long as it is polled. `idle` is how long they may be idle otherwise.
pub(crate) async fn relieve(tracker: &Tracker, lifecycle: &Lifecycle, idle: Duration) {
    let mut longest = ANY;
    let mut steps = interval(STEP);
    steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        steps.tick().await;
        let before = longest;
        longest = next(before, tracker.is_short(), idle);
        if longest != ANY || before != ANY {
            lifecycle.bound_idle(longest);
        }
    }
}

/// How long connections may be idle after this step.
fn next(before: Duration, short: bool, idle: Duration) -> Duration {
    if !short {
        return ANY;
    }
    (before.min(idle) / 4).max(LEAST)
}

/// Says how short something is.
pub(crate) fn report(resource: &'static str, before: Pressure, now: Pressure) {
    gauge!(telemetry::OVERLOAD, "resource" => resource).set(now.level());
    if before == Pressure::None && now != Pressure::None {
        counter!(telemetry::OVERLOADS, "resource" => resource).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_idle_go_first() {
        let idle = Duration::from_secs(75);
        let mut longest = ANY;
        let mut steps = Vec::new();
        for _ in 0..5 {
            longest = next(longest, true, idle);
            steps.push(longest.as_millis());
        }
        assert_eq!(steps, [18_750, 4687, 1171, 1000, 1000]);
        assert_eq!(next(longest, false, idle), ANY);
    }
}
