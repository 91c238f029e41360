//! Engines move the bytes of a session; what happens to a request is decided by the [phases](crate::phases).
//!
//! An engine is made once per worker thread and serves the connections of that thread. It holds what the thread keeps
//! for itself in a [`Worker`], runs the phases in their order, and hands each of them plain `http` types and the
//! request's context.

mod direct;
mod pingora;
mod refusal;

#[cfg(feature = "fuzzing")]
pub(crate) use self::direct::framing;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use table::Table;
use tokio::sync::watch;

use self::direct::DirectEngine;
use self::pingora::PingoraEngine;
use crate::Shared;
use crate::access_log::LineWriter;
use crate::connection::Connection;
use crate::external;
use crate::front::conn::Transport;
use crate::housekeeping::{Chore, Housekeeping};
use crate::limits::KnownZones;
use crate::mirror;
use crate::settings;
use crate::telemetry::{Meter, NginxMeter};
use crate::upstream::Picker;

/// The engines of one worker.
#[derive(Debug)]
pub(crate) struct Engine {
    pingora: Arc<PingoraEngine>,
    /// Where it is wanted.
    direct: Option<DirectEngine>,
}

impl Engine {
    /// What the settings ask for.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let direct = match shared.settings.engine {
            settings::Engine::Auto => true,
            settings::Engine::Pingora => false,
        };
        let worker = Arc::new(Worker::new(shared));
        let pingora = Arc::new(PingoraEngine::new(Arc::clone(&worker)));
        Self {
            direct: direct.then(|| DirectEngine::new(worker, Arc::clone(&pingora))),
            pingora,
        }
    }

    /// Serves a connection until it ends.
    pub(crate) async fn serve(
        &self,
        transport: Transport,
        connection: Arc<Connection>,
        shutdown: &watch::Receiver<bool>,
    ) {
        let Some(direct) = &self.direct else {
            let first = Bytes::new();
            let served = self.pingora.serve(transport, first, connection, shutdown);
            // Its future is large, and most connections may not need it.
            return Box::pin(served).await;
        };
        direct.serve(transport, connection, shutdown).await;
    }

    /// Wakes connections that wait for a request.
    pub(crate) async fn cleanup(&self) {
        self.pingora.cleanup().await;
    }
}

/// What one worker thread has for itself. Locks in it are never waited for, since nobody else takes them.
#[derive(Debug)]
pub(crate) struct Worker {
    /// What all workers share.
    pub(crate) shared: Arc<Shared>,
    /// Endpoints.
    pub(crate) picker: Picker,
    /// Counters.
    pub(crate) meter: Meter,
    /// The same under the names of ingress-nginx, where somebody asks for them.
    pub(crate) nginx_meter: Option<NginxMeter>,
    /// The access log, if there is one.
    pub(crate) log: Option<LineWriter>,
    /// Which clients are limited.
    pub(crate) zones: KnownZones,
    /// Asks other servers about requests.
    pub(crate) external: Arc<external::Client>,
    /// Places for copies of requests.
    pub(crate) mirrors: mirror::Places,
    /// Numbers that nobody needs to trust.
    pub(crate) random: Random,
    housekeeping: Housekeeping,
}

impl Worker {
    /// A worker.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            picker: Picker::new(),
            meter: Meter::new(),
            nginx_meter: shared.settings.nginx_metrics.as_ref().map(NginxMeter::new),
            log: shared.access_log.writer(),
            zones: KnownZones::default(),
            external: Arc::new(external::Client::new(Arc::clone(&shared))),
            mirrors: mirror::Places::default(),
            random: Random::new(),
            housekeeping: Housekeeping::new(),
            shared,
        }
    }

    /// Forgets, once in a while, what belongs to tables that are gone.
    pub(crate) fn tidy(&self, table: &Table) {
        let chore = self.housekeeping.count(table);
        if chore == Chore::None {
            return;
        }
        self.zones.clear();
        if chore == Chore::Thorough {
            let nginx_meter = self.nginx_meter.as_ref();
            let left = self.picker.forget_gone(table)
                + self.meter.forget_gone()
                + nginx_meter.map_or(0, NginxMeter::forget_gone);
            self.housekeeping.done(left);
        }
    }
}

/// A stream of numbers (`SplitMix64`), seeded by the system. Good for balancing and identities, not for secrets.
#[derive(Debug)]
pub(crate) struct Random(AtomicU64);

impl Random {
    /// A stream of its own.
    pub(crate) fn new() -> Self {
        use std::hash::BuildHasher;
        Self(AtomicU64::new(
            std::hash::RandomState::new().hash_one(0x10_c6_a7_e5_u64),
        ))
    }

    /// The next number.
    pub(crate) fn next_u64(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number, shorter.
    pub(crate) fn next_u32(&self) -> u32 {
        u32::try_from(self.next_u64() >> 32).unwrap_or(0)
    }

    /// The next two numbers as one.
    pub(crate) fn wide(&self) -> u128 {
        u128::from(self.next_u64()) << 64 | u128::from(self.next_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_streams_differ_and_numbers_do_not_repeat() {
        let (a, b) = (Random::new(), Random::new());
        let mut seen: Vec<u64> = (0..1000)
            .flat_map(|_| [a.next_u64(), b.next_u64()])
            .collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 2000);
    }
}
