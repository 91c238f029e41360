//! When requests fall due, for a generator that does not wait for answers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::Budget;

/// The shortest sleep: below it, the clock's own work would be what is measured.
const NAP: Duration = Duration::from_micros(100);

/// Requests that are due and not yet taken.
#[derive(Debug)]
pub(super) struct Arrivals {
    due: Mutex<VecDeque<Instant>>,
    waiting: Semaphore,
}

impl Arrivals {
    /// Lets requests fall due at this rate until the budget is spent. The times between them are exponentially
    /// distributed, as those of independent clients are, and the same in every run.
    pub(super) fn start(rate: f64, budget: &Arc<Budget>) -> Arc<Self> {
        let arrivals = Arc::new(Self {
            due: Mutex::default(),
            waiting: Semaphore::new(0),
        });
        // A thread of its own, because timers of the runtime are a millisecond wide.
        let (ours, budget) = (Arc::downgrade(&arrivals), Arc::clone(budget));
        std::thread::spawn(move || clock(&ours, rate.max(0.001), &budget));
        arrivals
    }

    /// Waits for the next request and says when it was due; `None` when there are no more.
    pub(super) async fn next(&self) -> Option<Instant> {
        self.waiting.acquire().await.ok()?.forget();
        self.lock().pop_front()
    }

    /// This one has not been sent.
    pub(super) fn give_back(&self, due: Instant) {
        self.lock().push_front(due);
        self.waiting.add_permits(1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Instant>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn clock(arrivals: &Weak<Arrivals>, rate: f64, budget: &Budget) {
    let begun = Instant::now();
    let mut gaps = Gaps::new(rate);
    let mut due = begun + gaps.next_gap();
    loop {
        let Some(arrivals) = arrivals.upgrade() else {
            return;
        };
        if budget.is_spent() {
            // Those that wait learn that nothing comes any more.
            arrivals.waiting.close();
            return;
        }
        let now = Instant::now();
        let mut count = 0;
        let mut queue = arrivals.lock();
        while due <= now {
            queue.push_back(due);
            count += 1;
            due += gaps.next_gap();
        }
        drop(queue);
        arrivals.waiting.add_permits(count);
        drop(arrivals);
        let nap = due.saturating_duration_since(Instant::now()).max(NAP);
        #[expect(clippy::disallowed_methods, reason = "this thread serves nobody")]
        std::thread::sleep(nap.min(Duration::from_millis(10)));
    }
}

/// Exponentially distributed times.
struct Gaps {
    mean: f64,
    state: u64,
}

impl Gaps {
    fn new(rate: f64) -> Self {
        Self {
            mean: 1.0 / rate,
            state: 0x9e37_79b9_7f4a_7c15,
        }
    }

    fn next_gap(&mut self) -> Duration {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        #[expect(
            clippy::cast_precision_loss,
            reason = "53 bits of a random number are enough"
        )]
        let uniform = ((self.state >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
        Duration::from_secs_f64(-uniform.ln() * self.mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_between_requests_have_the_mean_and_the_spread_of_independent_clients() {
        let mut gaps = Gaps::new(1000.0);
        let times: Vec<f64> = (0..100_000)
            .map(|_| gaps.next_gap().as_secs_f64() * 1000.0)
            .collect();
        let mean = times.iter().sum::<f64>() / 100_000.0;
        let variance = times.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / 100_000.0;
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
        assert!((variance - 1.0).abs() < 0.05, "{variance}");
    }
}
