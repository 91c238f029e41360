//! How long it takes to choose one of 1,000 endpoints, by each rule. The target is 100 ns.
//!
//! Endpoints are as in the gateway: each on the heap, with what is known about it in atomic numbers. Reading the clock is part of the
//! rules that need it.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use balance::{Candidates, Latency, Ring, Turns, Weight, of_two, place, random, room};
use criterion::{Criterion, criterion_group, criterion_main};

const ENDPOINTS: u32 = 1_000;

struct Endpoint {
    address: SocketAddr,
    in_flight: AtomicU32,
    avoid_until: AtomicU64,
    latency: Latency,
    since: u64,
}

struct Endpoints {
    all: Arc<[Arc<Endpoint>]>,
    now: u64,
    /// 0 is no slow start.
    window: u64,
    room: u32,
}

impl Endpoints {
    fn new(window: u64) -> Self {
        let endpoint = |number: u32| Endpoint {
            address: SocketAddr::from(((0x0a00_0000 + number).to_be_bytes(), 8080)),
            in_flight: AtomicU32::new(number % 7),
            avoid_until: AtomicU64::new(0),
            latency: Latency::known(0.001 * f64::from(number % 13), 0),
            // One of ten is new.
            since: if number.is_multiple_of(10) { 10_000 } else { 0 },
        };
        Self {
            all: (0..ENDPOINTS).map(|n| Arc::new(endpoint(n))).collect(),
            now: 15_000,
            window,
            room: u32::MAX,
        }
    }

    fn ring(&self) -> Ring {
        Ring::new(self.all.iter().map(|endpoint| endpoint.address))
    }

    fn of(&self, index: usize) -> Option<&Arc<Endpoint>> {
        self.all.get(index)
    }

    fn in_flight(&self, index: usize) -> u32 {
        self.of(index)
            .map_or(u32::MAX, |e| e.in_flight.load(Ordering::Relaxed))
    }

    fn cost(&self, index: usize, now: u64) -> f64 {
        self.of(index).map_or(f64::MAX, |endpoint| {
            endpoint.latency.seconds(now).max(1e-6) * f64::from(self.in_flight(index) + 1)
        })
    }

    /// What the caller takes along.
    fn take(&self, index: Option<usize>) -> Option<Arc<Endpoint>> {
        self.of(index?).map(Arc::clone)
    }
}

impl Candidates for Endpoints {
    fn count(&self) -> usize {
        self.all.len()
    }

    fn may(&self, index: usize) -> bool {
        self.of(index).is_some_and(|endpoint| {
            endpoint.avoid_until.load(Ordering::Relaxed) == 0
                && (self.room == u32::MAX || self.in_flight(index) < self.room)
        })
    }

    fn is_weighted(&self) -> bool {
        self.window > 0
    }

    fn weight(&self, index: usize) -> Weight {
        self.of(index).map_or(Weight::FULL, |endpoint| {
            if endpoint.since == 0 {
                return Weight::FULL;
            }
            Weight::at_age(self.now.saturating_sub(endpoint.since), self.window)
        })
    }
}

/// `SplitMix64`, as in the gateway.
fn draw(state: &AtomicU64) -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut z = state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn choose(c: &mut Criterion) {
    let mut group = c.benchmark_group("choose_of_1000");
    let state = AtomicU64::new(7);
    let draw = || draw(&state);
    let began = Instant::now();
    let now = || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    for (name, window) in [("", 0), ("_slow_start", 30_000)] {
        let of = Endpoints::new(window);
        let mut turns = Turns::new(0);
        turns.prepare(of.count(), draw);
        group.bench_function(format!("round_robin{name}"), |b| {
            b.iter(|| of.take(black_box(turns.next(&of))));
        });
        group.bench_function(format!("random{name}"), |b| {
            b.iter(|| of.take(black_box(random(&of, &draw))));
        });
        group.bench_function(format!("least_request{name}"), |b| {
            b.iter(|| of.take(black_box(of_two(&of, &draw, |index| of.in_flight(index)))));
        });
        group.bench_function(format!("ewma{name}"), |b| {
            b.iter(|| {
                let now = now();
                of.take(black_box(of_two(&of, &draw, |index| of.cost(index, now))))
            });
        });
    }
    let mut of = Endpoints::new(0);
    let ring = of.ring();
    let key = |number: u64| place(&number.to_be_bytes());
    group.bench_function("hash", |b| {
        b.iter(|| of.take(black_box(ring.find(key(draw()), &of))));
    });
    let in_flight = (0..of.count()).map(|index| of.in_flight(index)).sum();
    of.room = room(125, in_flight, of.count());
    group.bench_function("hash_bounded", |b| {
        b.iter(|| of.take(black_box(ring.find(key(draw()), &of))));
    });
    group.finish();
    c.bench_function("ring_of_1000", |b| b.iter(|| of.ring()));
}

criterion_group!(benches, choose);
criterion_main!(benches);
