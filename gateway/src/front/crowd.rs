//! How many connections each client has.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::AHashMap;
use tokio::sync::oneshot;

use crate::limits::key;

const SHARDS: usize = 16;

/// The connections of every client that has one. It is looked at when a connection begins and when it ends, and never
/// holds more clients than there are connections.
#[derive(Debug)]
pub(crate) struct Crowd {
    shards: [Mutex<AHashMap<u64, u32>>; SHARDS],
    hasher: ahash::RandomState,
}

/// A connection in the count of its client; dropping it takes it out.
#[derive(Debug)]
pub(crate) struct Place {
    crowd: Arc<Crowd>,
    client: u64,
}

impl Crowd {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            shards: Default::default(),
            hasher: ahash::RandomState::new(),
        })
    }

    /// Counts one more connection of this client, if it has less than `most`.
    pub(crate) fn enter(self: &Arc<Self>, client: IpAddr, most: u32) -> Option<Place> {
        let client = key(client);
        let mut shard = self.shard(client);
        let count = shard.entry(client).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        drop(shard);
        Some(Place {
            crowd: Arc::clone(self),
            client,
        })
    }

    fn shard(&self, client: u64) -> MutexGuard<'_, AHashMap<u64, u32>> {
        let place = usize::try_from(self.hasher.hash_one(client) % SHARDS as u64).unwrap_or(0);
        let [first, ..] = &self.shards;
        let shard = self.shards.get(place).unwrap_or(first);
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut shard = self.crowd.shard(self.client);
        if let Some(count) = shard.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&self.client);
            }
        }
    }
}

/// So many of something at once. Where all are taken, whoever has had one for longest gives it up: those that do not go on
/// must not keep away those that would.
#[derive(Debug)]
pub(crate) struct Seats {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// In the order in which they were taken.
    seats: BTreeMap<u64, oneshot::Sender<()>>,
}

/// One of [`Seats`]; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    number: u64,
    wanted: oneshot::Receiver<()>,
}

impl Seats {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most: most.max(1),
            taken: Mutex::default(),
        })
    }

    /// One of them.
    pub(crate) fn take(self: &Arc<Self>) -> Seat {
        let (give_up, wanted) = oneshot::channel();
        let mut taken = self.taken();
        let longest = (taken.seats.len() >= self.most).then(|| taken.seats.pop_first());
        let number = taken.next;
        taken.next += 1;
        taken.seats.insert(number, give_up);
        drop(taken);
        if let Some((_, longest)) = longest.flatten() {
            // Fails where it is given back at this moment.
            let _ = longest.send(());
        }
        Seat {
            seats: Arc::clone(self),
            number,
            wanted,
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Ready when somebody else has it.
    pub(crate) async fn lost(&mut self) {
        // An error says the same: nobody but who takes it away drops the other end.
        let _ = (&mut self.wanted).await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken().seats.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_client_has_so_many_connections_and_no_more() {
        let crowd = Crowd::new();
        let one = address("192.0.2.1");
        let places: Vec<_> = (0..3).map(|_| crowd.enter(one, 3).unwrap()).collect();
        assert!(crowd.enter(one, 3).is_none());
        assert!(
            crowd.enter(address("::ffff:192.0.2.1"), 3).is_none(),
            "the same client on a socket for both families"
        );
        assert!(
            crowd.enter(address("192.0.2.2"), 3).is_some(),
            "another one"
        );
        drop(places);
        assert!(crowd.enter(one, 3).is_some());
        assert!(
            crowd
                .shards
                .iter()
                .all(|shard| shard.lock().unwrap().is_empty()),
            "nobody who has gone is remembered"
        );
    }

    #[test]
    fn addresses_of_one_network_of_ipv6_are_one_client() {
        let crowd = Crowd::new();
        let place = crowd.enter(address("2001:db8:0:1::1"), 1);
        assert!(crowd.enter(address("2001:db8:0:1:ffff::2"), 1).is_none());
        assert!(crowd.enter(address("2001:db8:0:2::1"), 1).is_some());
        drop(place);
    }

    #[test]
    fn whoever_has_sat_for_longest_makes_room() {
        let is_lost = |seat: &mut Seat| seat.lost().now_or_never().is_some();
        let seats = Seats::new(2);
        let (mut first, mut second) = (seats.take(), seats.take());
        assert!(!is_lost(&mut first) && !is_lost(&mut second));
        let mut third = seats.take();
        assert!(is_lost(&mut first) && !is_lost(&mut second));
        assert!(!is_lost(&mut third));
        // What was lost is nobody's place any more.
        drop(first);
        drop(third);
        let mut fourth = seats.take();
        assert!(!is_lost(&mut second) && !is_lost(&mut fourth));
        drop((second, fourth));
        assert!(seats.taken().seats.is_empty());
    }
}
