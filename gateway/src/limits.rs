//! How often each client came: what `limit-rps`, `limit-rpm` and `limit-connections` count.
//!
//! A leaky bucket per client and zone, as in nginx: it holds what came beyond the rate, and a request for which there
//! is no room is refused and not counted. Counts outlive tables. Each zone has a bounded number of clients in shards
//! of their own, so that no zone can push out what another one knows, and no lock is shared by all requests.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ahash::AHashMap;
use table::{CompiledLimits, Rate};

const SHARDS: usize = 16;
/// Clients that a shard remembers. A million clients of one zone would be 40 MB; so many are more than a burst holds.
const CLIENTS: usize = 4096;
/// How many are looked at when a shard is full and one has to go.
const LOOKED_AT: usize = 16;
/// Zones that are kept before the idle ones are swept out.
const ZONES: usize = 1024;

/// All zones of a gateway. Workers remember those that they use and do not ask again.
#[derive(Debug)]
pub(crate) struct Limiters {
    zones: Mutex<AHashMap<Arc<str>, Arc<Zone>>>,
    start: Instant,
}

/// What of a worker is remembered about [`Limiters`]. Its lock belongs to one thread and is never waited for.
#[derive(Debug, Default)]
pub(crate) struct KnownZones(Mutex<AHashMap<Arc<str>, Arc<Zone>>>);

/// The clients of one zone.
#[derive(Debug)]
pub(crate) struct Zone {
    shards: [Mutex<Shard>; SHARDS],
    hasher: ahash::RandomState,
}

#[derive(Debug, Default)]
struct Shard {
    clients: AHashMap<u64, Client>,
    /// When idle clients were last swept out, in milliseconds.
    swept: u64,
}

/// One client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Client {
    /// When it last came, in milliseconds.
    at: u64,
    /// Thousandths of requests beyond the rate per second.
    second: u64,
    /// The same per minute.
    minute: u64,
    /// Requests that are being served.
    active: u32,
}

/// Which limit refused a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Exceeded {
    /// So many at the same time.
    Concurrent,
    /// So many in a while.
    Rate,
}

/// Counts a request as being served until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    zone: Arc<Zone>,
    client: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut shard = self.zone.shard(self.client);
        if let Some(client) = shard.clients.get_mut(&self.client) {
            client.active = client.active.saturating_sub(1);
        }
    }
}

impl Limiters {
    pub(crate) fn new() -> Self {
        Self {
            zones: Mutex::default(),
            start: Instant::now(),
        }
    }

    /// Takes in a request of this client, or says which limit is in its way. [`None`] needs no count.
    pub(crate) fn admit(
        &self,
        known: &KnownZones,
        limits: &CompiledLimits,
        client: IpAddr,
    ) -> Result<Option<Permit>, Exceeded> {
        if limits.except.contains(client) {
            return Ok(None);
        }
        let zone = known.zone(&limits.zone, self);
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Zone::admit(&zone, limits, key(client), now)
    }

    fn zone(&self, name: &Arc<str>) -> Arc<Zone> {
        let mut zones = lock(&self.zones);
        if let Some(zone) = zones.get(name) {
            return Arc::clone(zone);
        }
        if zones.len() >= ZONES && zones.len().is_power_of_two() {
            let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
            zones.retain(|_, zone| Arc::strong_count(zone) > 1 || !zone.is_idle(now));
        }
        let zone = Arc::new(Zone::new());
        zones.insert(Arc::clone(name), Arc::clone(&zone));
        zone
    }
}

impl KnownZones {
    fn zone(&self, name: &Arc<str>, all: &Limiters) -> Arc<Zone> {
        let mut known = lock(&self.0);
        if let Some(zone) = known.get(name) {
            return Arc::clone(zone);
        }
        let zone = all.zone(name);
        known.insert(Arc::clone(name), Arc::clone(&zone));
        zone
    }

    /// Forgets all; what is in use is asked for again.
    pub(crate) fn clear(&self) {
        lock(&self.0).clear();
    }
}

impl Zone {
    fn new() -> Self {
        Self {
            shards: Default::default(),
            hasher: ahash::RandomState::new(),
        }
    }

    fn shard(&self, client: u64) -> MutexGuard<'_, Shard> {
        let place = usize::try_from(self.hasher.hash_one(client) % SHARDS as u64).unwrap_or(0);
        let [first, ..] = &self.shards;
        lock(self.shards.get(place).unwrap_or(first))
    }

    fn admit(
        zone: &Arc<Self>,
        limits: &CompiledLimits,
        key: u64,
        now: u64,
    ) -> Result<Option<Permit>, Exceeded> {
        let mut shard = zone.shard(key);
        let known = shard.clients.get(&key).copied();
        let before = known.unwrap_or_default();
        if limits
            .concurrent
            .is_some_and(|limit| before.active >= limit)
        {
            return Err(Exceeded::Concurrent);
        }
        let mut client = before;
        client.at = now.max(before.at);
        let elapsed = now.saturating_sub(before.at);
        let second = fill(known.is_some(), before.second, limits.per_second, elapsed);
        let minute = fill(known.is_some(), before.minute, limits.per_minute, elapsed);
        // Both before either is counted: a refused request leaves no trace.
        client.second = second.ok_or(Exceeded::Rate)?;
        client.minute = minute.ok_or(Exceeded::Rate)?;
        if limits.concurrent.is_some() {
            client.active += 1;
        }
        if known.is_none() && !shard.make_room(now) {
            // Everybody who is remembered is being served: one more could not be counted.
            return Err(Exceeded::Concurrent);
        }
        shard.clients.insert(key, client);
        Ok(limits.concurrent.map(|_| Permit {
            zone: Arc::clone(zone),
            client: key,
        }))
    }

    fn is_idle(&self, now: u64) -> bool {
        self.shards
            .iter()
            .all(|shard| lock(shard).clients.values().all(|c| c.is_idle(now)))
    }
}

/// What is beyond the rate with one more request; [`None`] if there is no room for it.
fn fill(known: bool, before: u64, rate: Option<Rate>, elapsed: u64) -> Option<u64> {
    let Some(rate) = rate else {
        return Some(0);
    };
    if !known {
        return Some(0);
    }
    let leaked = rate.per_second.saturating_mul(elapsed) / 1000;
    let beyond = (before + 1000).saturating_sub(leaked);
    (beyond <= rate.burst).then_some(beyond)
}

impl Shard {
    /// Makes sure that there is room for one more client; false if there is none.
    fn make_room(&mut self, now: u64) -> bool {
        if self.clients.len() < CLIENTS {
            return true;
        }
        // Not at each request: with a full shard of busy clients it would be in vain.
        if now >= self.swept + 1000 {
            self.swept = now;
            self.clients.retain(|_, client| !client.is_idle(now));
        }
        if self.clients.len() < CLIENTS {
            return true;
        }
        // The map has its own order for each shard, which strangers do not know.
        let victim = self
            .clients
            .iter()
            .filter(|(_, client)| client.active == 0)
            .take(LOOKED_AT)
            .min_by_key(|(_, client)| client.at)
            .map(|(key, _)| *key);
        victim.is_some_and(|key| self.clients.remove(&key).is_some())
    }
}

impl Client {
    /// Is it the least loss when somebody has to be forgotten?
    fn is_idle(&self, now: u64) -> bool {
        self.active == 0 && now.saturating_sub(self.at) > 60_000
    }
}

/// A client as a number. Of IPv6 the network counts: whoever has one address has 2^64 of them.
pub(crate) fn key(client: IpAddr) -> u64 {
    match client.to_canonical() {
        // Apart from all networks of IPv6: nobody comes from a multicast address.
        IpAddr::V4(v4) => 0xffff_ffff_0000_0000 | u64::from(v4.to_bits()),
        IpAddr::V6(v6) => u64::try_from(v6.to_bits() >> 64).unwrap_or(u64::MAX),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use table::Networks;

    use super::*;

    fn limits(second: Option<u32>, minute: Option<u32>, concurrent: Option<u32>) -> CompiledLimits {
        let rate = |requests: u32, seconds: u64| Rate {
            per_second: u64::from(requests) * 1000 / seconds,
            burst: u64::from(requests) * 5 * 1000,
        };
        CompiledLimits {
            zone: "shop/web".into(),
            per_second: second.map(|requests| rate(requests, 1)),
            per_minute: minute.map(|requests| rate(requests, 60)),
            concurrent,
            except: Networks::new(&["10.9.0.0/16".parse().unwrap()]),
            rate_status: StatusCode::SERVICE_UNAVAILABLE,
            concurrent_status: StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn passed(zone: &Arc<Zone>, limits: &CompiledLimits, client: u64, now: u64) -> usize {
        (0..1000)
            .take_while(|_| Zone::admit(zone, limits, client, now).is_ok())
            .count()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let zone = Arc::new(Zone::new());
        let per_second = limits(Some(2), None, None);
        assert_eq!(
            passed(&zone, &per_second, 1, 0),
            11,
            "one and five times two"
        );
        assert_eq!(passed(&zone, &per_second, 1, 499), 0);
        assert_eq!(
            passed(&zone, &per_second, 1, 500),
            1,
            "refused ones are not counted"
        );
        assert_eq!(passed(&zone, &per_second, 1, 1500), 2);
        assert_eq!(passed(&zone, &per_second, 2, 1500), 11, "another client");
        assert_eq!(passed(&zone, &per_second, 1, 100_000), 11);

        let zone = Arc::new(Zone::new());
        let per_minute = limits(None, Some(6), None);
        assert_eq!(passed(&zone, &per_minute, 1, 0), 31);
        assert_eq!(passed(&zone, &per_minute, 1, 10_000), 1);

        let zone = Arc::new(Zone::new());
        let both = limits(Some(100), Some(6), None);
        assert_eq!(passed(&zone, &both, 1, 0), 31, "the tighter one counts");
    }

    #[test]
    fn requests_at_the_same_time_are_counted_until_they_end() {
        let limiters = Limiters::new();
        let (one, other) = (KnownZones::default(), KnownZones::default());
        let limits = limits(None, None, Some(2));
        let admit = |known, client| limiters.admit(known, &limits, address(client));
        let first = admit(&one, "10.0.0.1").unwrap();
        let _second = admit(&other, "10.0.0.1").unwrap();
        assert_eq!(admit(&one, "10.0.0.1").unwrap_err(), Exceeded::Concurrent);
        assert!(admit(&one, "10.0.0.2").is_ok());
        drop(first);
        one.clear();
        let _third = admit(&one, "10.0.0.1").unwrap();
        assert!(admit(&other, "10.0.0.1").is_err());
        for _ in 0..10 {
            assert!(admit(&one, "10.9.0.1").unwrap().is_none(), "not limited");
        }
    }

    #[test]
    fn clients_are_told_apart_and_networks_of_ipv6_are_one() {
        for (one, other, same) in [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("10.0.0.1", "::ffff:10.0.0.1", true),
            ("2001:db8::1", "2001:db8::2", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("0.0.0.1", "0:0:0:1::", false),
        ] {
            assert_eq!(
                key(address(one)) == key(address(other)),
                same,
                "{one} {other}"
            );
        }
    }

    #[test]
    fn memory_is_bounded_and_those_who_are_served_stay() {
        let zone = Arc::new(Zone::new());
        let limits = limits(Some(1), None, Some(1));
        let permit = Zone::admit(&zone, &limits, 7, 0).unwrap();
        for client in 0..200_000 {
            drop(Zone::admit(&zone, &limits, client + 100, 1 + client / 100));
        }
        let known: usize = zone
            .shards
            .iter()
            .map(|shard| lock(shard).clients.len())
            .sum();
        assert!(known <= SHARDS * CLIENTS, "{known}");
        assert!(
            Zone::admit(&zone, &limits, 7, 3000).is_err(),
            "still served"
        );
        drop(permit);
        assert!(Zone::admit(&zone, &limits, 7, 3000).is_ok());
        assert!(!zone.is_idle(3000));
        assert!(zone.is_idle(1_000_000));
    }
}
