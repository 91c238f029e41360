//! One watch's connection to the API server.
//!
//! kube's watcher starts a closed watch again at once and waits for response headers for ever. This wraps the client
//! of one watch so that neither can do harm: a request whose headers do not arrive is given up, and a watch that ends
//! long before the agreed time is not started again without a pause.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use tokio::time::{Instant, sleep, timeout};

use super::failure::{Cause, HeadersTooLate};
use crate::backoff::Backoff;
use crate::telemetry;

/// How a watch paces itself.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    /// How long to wait for the header of a response.
    pub(crate) headers: Duration,
    /// How long to wait for the next part of a list.
    pub(crate) list: Duration,
    /// Delays between attempts.
    pub(crate) backoff: Backoff,
    /// How long to wait before a kind that may be forbidden is tried again.
    pub(crate) forbidden: Duration,
    /// A watch that lived this long ended as agreed. The watcher asks for 290 seconds.
    pub(crate) lifetime: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            headers: Duration::from_secs(30),
            list: Duration::from_mins(1),
            // A gateway that lags behind the cluster is worse than a few requests more on a server that comes back.
            backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(10)),
            forbidden: Duration::from_secs(30),
            lifetime: Duration::from_secs(280),
        }
    }
}

/// What a watch and its connection know of each other.
#[derive(Clone)]
pub(crate) struct Line(Arc<Mutex<Restarts>>);

impl Line {
    /// The failure of the running watch has been counted, and a pause follows: there is no need for another one.
    pub(crate) fn failed(&self) {
        self.restarts().started = None;
    }

    fn restarts(&self) -> MutexGuard<'_, Restarts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client for one watch of objects of this kind, on top of `client`.
pub(crate) fn client(client: &Client, kind: &'static str, pace: &Pace) -> (Client, Line) {
    let namespace = client.default_namespace().to_owned();
    let client = client.clone();
    let headers = pace.headers;
    let line = Line(Arc::new(Mutex::new(Restarts {
        kind,
        started: None,
        lifetime: pace.lifetime,
        backoff: pace.backoff.clone(),
    })));
    let ours = line.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let client = client.clone();
        let line = ours.clone();
        async move {
            let watching = is_watch(&request);
            let delay = line.restarts().before(watching, Instant::now());
            if let Some(delay) = delay {
                sleep(delay).await;
            }
            let response: Response<Body> = timeout(headers, client.send(request))
                .await
                .map_err(|_elapsed| HeadersTooLate(headers))??;
            if watching && response.status().is_success() {
                line.restarts().started = Some(Instant::now());
            }
            Ok::<_, tower::BoxError>(response)
        }
    });
    (Client::new(service, namespace), line)
}

fn is_watch(request: &Request<Body>) -> bool {
    request
        .uri()
        .query()
        .is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"))
}

struct Restarts {
    kind: &'static str,
    /// When the watch that is running, or that ended last, began.
    started: Option<Instant>,
    lifetime: Duration,
    backoff: Backoff,
}

impl Restarts {
    /// The pause before the next request.
    fn before(&mut self, watch: bool, now: Instant) -> Option<Duration> {
        let lived = now.duration_since(self.started.take()?);
        if lived >= self.lifetime {
            self.backoff.reset();
            return None;
        }
        if !watch {
            // Everything is listed again: why, and the pause before it, is the matter of whoever decided that.
            return None;
        }
        metrics::counter!(telemetry::WATCH_RESTARTS, "kind" => self.kind, "reason" => Cause::Closed.label())
            .increment(1);
        Some(self.backoff.delay())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_ends_early_is_paced_and_one_that_ends_in_time_is_not() {
        let mut restarts = Restarts {
            kind: "Ingress",
            started: None,
            lifetime: Duration::from_secs(280),
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(8)),
        };
        let start = Instant::now();
        assert_eq!(restarts.before(false, start), None, "the first list");
        assert_eq!(restarts.before(true, start), None, "the first watch");
        for full in [1, 2, 4, 8, 8] {
            restarts.started = Some(start);
            let delay = restarts
                .before(true, start + Duration::from_secs(1))
                .unwrap();
            assert!(delay <= Duration::from_secs(full) && delay > Duration::from_secs(full) / 2);
        }
        restarts.started = Some(start);
        assert_eq!(
            restarts.before(true, start + Duration::from_secs(290)),
            None
        );
        restarts.started = Some(start);
        assert!(
            restarts.before(true, start).unwrap() <= Duration::from_secs(1),
            "begins anew"
        );
    }
}
