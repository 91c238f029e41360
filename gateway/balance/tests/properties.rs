//! What holds for all sets and all numbers.
#![expect(clippy::indexing_slicing, reason = "helpers of tests")]

mod common;

use std::net::SocketAddr;

use balance::{Candidates, Latency, Ring, Turns, Weight, of_two, place, random, room};
use proptest::prelude::*;

use crate::common::{Set, numbers};

fn addresses(of: &[u16]) -> Vec<SocketAddr> {
    of.iter()
        .map(|number| {
            let [upper, lower] = number.to_be_bytes();
            SocketAddr::from(([10, 0, upper, lower], 8080))
        })
        .collect()
}

fn sets() -> impl Strategy<Value = Set> {
    let endpoint = (any::<bool>(), 0_u64..=100);
    (prop::collection::vec(endpoint, 0..40), any::<bool>()).prop_map(|(endpoints, weighted)| Set {
        may: endpoints.iter().map(|(may, _)| *may).collect(),
        weights: if weighted {
            let weights = endpoints.iter();
            weights.map(|(_, age)| Weight::at_age(*age, 100)).collect()
        } else {
            Vec::new()
        },
    })
}

/// Requests in flight; the room of each counts.
struct Loaded {
    loads: Vec<u32>,
    room: u32,
}

impl Candidates for Loaded {
    fn count(&self) -> usize {
        self.loads.len()
    }

    fn may(&self, index: usize) -> bool {
        self.loads[index] < self.room
    }
}

proptest! {
    #[test]
    fn only_one_that_may_be_is_chosen_and_one_is_if_any_may(
        set in sets(), seed in any::<u64>(), start in any::<usize>(), at in any::<u32>(),
    ) {
        let any = set.may.contains(&true);
        let draw = numbers(seed);
        let mut turns = Turns::new(start);
        if !set.weights.is_empty() {
            turns.prepare(set.may.len(), &draw);
        }
        let names: Vec<u16> = (0..set.may.len()).map(|n| u16::try_from(n).unwrap()).collect();
        let ring = Ring::new(addresses(&names).into_iter());
        for _ in 0..50 {
            let chosen = [
                turns.next(&set),
                random(&set, &draw),
                of_two(&set, &draw, |index| index),
                of_two(&set, &draw, |_| f64::NAN),
                ring.find(at, &set),
            ];
            for index in chosen {
                prop_assert_eq!(index.is_some(), any);
                prop_assert!(index.is_none_or(|index| set.may[index]));
            }
        }
    }

    /// Whatever the keys are (here all the same, or few), nobody has more than the bound, and everybody finds a place.
    #[test]
    fn the_bound_holds_for_every_key(
        count in 1_usize..60,
        percent in 101_u32..300,
        keys in 1_u64..20,
        steps in prop::collection::vec(any::<u16>(), 1..600),
    ) {
        let names: Vec<u16> = (0..count).map(|n| u16::try_from(n).unwrap()).collect();
        let ring = Ring::new(addresses(&names).into_iter());
        let mut loaded = Loaded { loads: vec![0; count], room: 0 };
        let mut in_flight: Vec<usize> = Vec::new();
        for step in steps {
            // Some end, in any order.
            if step % 4 == 0 && !in_flight.is_empty() {
                let ended = in_flight.swap_remove(usize::from(step) % in_flight.len());
                loaded.loads[ended] -= 1;
                continue;
            }
            let all = u32::try_from(in_flight.len()).unwrap();
            loaded.room = room(percent, all, count);
            let key = u64::from(step) % keys;
            let index = ring.find(place(&key.to_be_bytes()), &loaded);
            prop_assert!(index.is_some(), "there is always room");
            let index = index.unwrap();
            loaded.loads[index] += 1;
            in_flight.push(index);
            let average = f64::from(all + 1) / f64::from(u32::try_from(count).unwrap());
            let most = (average * f64::from(percent) / 100.0).ceil();
            prop_assert!(f64::from(loaded.loads[index]) <= most + 1e-9);
        }
    }

    /// Where there is room, the bound moves no key.
    #[test]
    fn without_load_the_bound_changes_nothing(count in 1_usize..60, keys in any::<[u32; 32]>()) {
        let names: Vec<u16> = (0..count).map(|n| u16::try_from(n).unwrap()).collect();
        let ring = Ring::new(addresses(&names).into_iter());
        let idle = Loaded { loads: vec![0; count], room: room(125, 0, count) };
        for at in keys {
            prop_assert_eq!(ring.find(at, &idle), ring.find(at, &Set::of(count)));
        }
    }

    /// An endpoint that goes moves its own keys; one that comes takes keys from others and moves none between them.
    #[test]
    fn only_the_keys_of_who_goes_move(
        names in prop::collection::btree_set(any::<u16>(), 2..40),
        gone in any::<prop::sample::Index>(),
    ) {
        let names: Vec<u16> = names.into_iter().collect();
        let gone = gone.index(names.len());
        let all = addresses(&names);
        let rest: Vec<SocketAddr> =
            all.iter().copied().filter(|address| *address != all[gone]).collect();
        let before = Ring::new(all.iter().copied());
        let after = Ring::new(rest.iter().copied());
        let mut ill = Set::of(all.len());
        ill.may[gone] = false;
        let keys = 4_000_u32;
        let mut moved = 0_u32;
        for key in 0..keys {
            let at = place(&key.to_be_bytes());
            let was = all[before.find(at, &Set::of(all.len())).unwrap()];
            let is = rest[after.find(at, &Set::of(rest.len())).unwrap()];
            // Whether it is gone, or may not be chosen for a while, its keys go to the same endpoints.
            prop_assert_eq!(all[before.find(at, &ill).unwrap()], is);
            if was == all[gone] {
                moved += 1;
            } else {
                prop_assert_eq!(was, is);
            }
        }
        // Its share, with five standard deviations of a share of 100 points and those of the sample.
        let share = f64::from(keys) / f64::from(u32::try_from(all.len()).unwrap());
        prop_assert!(f64::from(moved) < share * 1.5 + 5.0 * share.sqrt(), "{} of {}", moved, share);
    }

    /// The definition of the peak-sensitive average, step by step in numbers of full width.
    #[test]
    fn latency_is_a_peak_sensitive_average(
        steps in prop::collection::vec((0_u64..30_000, 0.000_1_f64..5.0, 0_u64..60_000), 1..60),
        begin in any::<u32>(),
    ) {
        let latency = Latency::default();
        let mut now = u64::from(begin);
        let mut cost = 0.0_f64;
        let mut stamp = now;
        for (elapsed, measured, later) in steps {
            now += elapsed;
            let w = (-f64::from(u32::try_from(now - stamp).unwrap()) / 10_000.0).exp();
            cost = if measured > cost { measured } else { cost * w + measured * (1.0 - w) };
            stamp = now;
            latency.observe(measured, now);
            let faded = cost * (-f64::from(u32::try_from(later).unwrap()) / 10_000.0).exp();
            let found = latency.seconds(now + later);
            prop_assert!((found - faded).abs() <= faded * 1e-4 + 1e-9, "{found} {faded}");
        }
    }
}

#[test]
fn a_peak_counts_at_once_and_is_forgotten_in_time() {
    let latency = Latency::known(0.01, 0);
    latency.observe(1.0, 1_000);
    assert!((latency.seconds(1_000) - 1.0).abs() < 1e-6, "at once");
    latency.observe(0.01, 2_000);
    let after = latency.seconds(2_000);
    assert!((0.9..0.92).contains(&after), "one second of ten: {after}");
    assert!(latency.seconds(12_000) < after / 2.7, "it fades by itself");
    let ahead = latency.seconds(1_990);
    assert!(
        (ahead - after).abs() < 1e-6,
        "who looks from before sees it whole"
    );
}
