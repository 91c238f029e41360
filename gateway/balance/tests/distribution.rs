//! Who gets how much: statistics over many choices with numbers that are the same in each run.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

mod common;

use std::cell::RefCell;

use balance::{Ring, Turns, of_two, place, random};

use crate::common::{Set, chi_square, limit, numbers};

fn counts(endpoints: usize, choices: u32, mut choose: impl FnMut() -> Option<usize>) -> Vec<u32> {
    let mut counts = vec![0_u32; endpoints];
    for _ in 0..choices {
        counts[choose().unwrap()] += 1;
    }
    counts
}

#[test]
fn the_statistic_tells_a_loaded_die_from_a_good_one() {
    let draw = numbers(1);
    let good = counts(6, 60_000, || {
        Some(usize::try_from((draw() >> 32) % 6).unwrap())
    });
    assert!(chi_square(&good, |_| 10_000.0) < limit(6), "{good:?}");
    let loaded: Vec<_> = good
        .iter()
        .zip([0_u32, 0, 0, 0, 1_000, 0])
        .map(|(count, more)| count + more)
        .collect();
    assert!(chi_square(&loaded, |_| 10_166.7) > limit(6), "{loaded:?}");
}

#[test]
fn at_random_all_are_equally_likely() {
    for (count, seed) in [(2, 3), (3, 5), (10, 7), (1_000, 11)] {
        let (set, draw) = (Set::of(count), numbers(seed));
        let counts = counts(count, 1_000_000, || random(&set, &draw));
        let share = 1_000_000.0 / f64::from(u32::try_from(count).unwrap());
        let found = chi_square(&counts, |_| share);
        assert!(found < limit(count), "{count}: {found}");
    }
}

#[test]
fn at_random_those_that_may_not_leave_their_share_to_all_others() {
    let (mut set, draw) = (Set::of(12), numbers(13));
    for ill in [0, 5, 6, 11] {
        set.may[ill] = false;
    }
    let counts = counts(12, 800_000, || random(&set, &draw));
    let well: Vec<_> = (0..12).filter(|i| set.may[*i]).map(|i| counts[i]).collect();
    assert_eq!(well.iter().sum::<u32>(), 800_000);
    // One draw in 3^8 of those that fail looks at the next one instead: that is the tolerance.
    assert!(
        well.iter().all(|count| (98_500..101_500).contains(count)),
        "{well:?}"
    );
}

#[test]
fn lots_respect_weights() {
    let shares = [100, 100, 50, 20, 10];
    let all: u64 = shares.iter().sum();
    let expected = |index: usize| {
        1_000_000.0 * f64::from(u32::try_from(shares[index]).unwrap())
            / f64::from(u32::try_from(all).unwrap())
    };
    let set = Set::weighted(&shares);
    let draw = numbers(17);
    let one = counts(5, 1_000_000, || random(&set, &draw));
    // Weights are rounded to 1 of 65,536.
    for (index, count) in one.iter().enumerate() {
        let (count, expected) = (f64::from(*count), expected(index));
        assert!(
            (count - expected).abs() < 0.005 * 1_000_000.0 / 5.0 + expected * 0.01,
            "{one:?}"
        );
    }
    let two = counts(5, 1_000_000, || of_two(&set, &draw, |_| 0));
    for (index, count) in two.iter().enumerate() {
        let (count, expected) = (f64::from(*count), expected(index));
        assert!(
            (count - expected).abs() < 2_000.0 + expected * 0.01,
            "idle: {two:?}"
        );
    }
}

#[test]
fn of_two_the_better_one_is_chosen_and_the_worst_never() {
    let (set, draw) = (Set::of(4), numbers(19));
    // Of 12 ordered pairs the best is in 6, the second best is better than the others in 4, the third in 2.
    let counts = counts(4, 600_000, || of_two(&set, &draw, |index| index));
    let expected = [300_000.0, 200_000.0, 100_000.0];
    assert_eq!(counts[3], 0);
    let found = chi_square(&counts[..3], |index| expected[index]);
    assert!(found < limit(3), "{counts:?}");
}

#[test]
fn of_two_equals_each_is_as_likely() {
    let (set, draw) = (Set::of(1_000), numbers(23));
    let counts = counts(1_000, 1_000_000, || of_two(&set, &draw, |_| 7));
    assert!(chi_square(&counts, |_| 1_000.0) < limit(1_000));
}

/// 100,000 requests that do not end, to 1,000 endpoints: the average is 100.
fn fullest(mut choose: impl FnMut(&[u32]) -> usize) -> u32 {
    let mut loads = vec![0_u32; 1_000];
    for _ in 0..100_000 {
        let index = choose(&loads);
        loads[index] += 1;
    }
    loads.into_iter().max().unwrap()
}

#[test]
fn two_choices_keep_loads_close() {
    let (set, draw) = (Set::of(1_000), numbers(29));
    let one = fullest(|_| random(&set, &draw).unwrap());
    // A Poisson distribution of mean 100: three standard deviations are 30.
    assert!((125..160).contains(&one), "{one}");
    let two = fullest(|loads| of_two(&set, &draw, |index| loads[index]).unwrap());
    // log log 1000 / log 2 is 2.8, and a constant.
    assert!((101..=106).contains(&two), "{two}");
}

#[test]
fn a_slow_endpoint_gets_fewer_requests_by_least_request() {
    // Endpoint 0 takes four times as long: requests end in the order of their times.
    let (set, draw) = (Set::of(4), numbers(31));
    let loads = RefCell::new(vec![0_u32; 4]);
    let mut ends: Vec<(u64, usize)> = Vec::new();
    let mut served = [0_u32; 4];
    for now in 0..40_000_u64 {
        ends.retain(|(end, index)| {
            let goes_on = *end > now;
            if !goes_on {
                loads.borrow_mut()[*index] -= 1;
            }
            goes_on
        });
        let index = of_two(&set, &draw, |index| loads.borrow()[index]).unwrap();
        loads.borrow_mut()[index] += 1;
        served[index] += 1;
        ends.push((now + if index == 0 { 40 } else { 10 }, index));
    }
    let others = served[1..].iter().sum::<u32>() / 3;
    // In proportion to its speed it would be a quarter, in turns all would get the same.
    assert!(served[0] * 2 < others, "{served:?}");
    assert!(served[0] * 6 > others, "{served:?}");
}

#[test]
fn turns_without_weights_are_strict() {
    let set = Set::of(5);
    let mut turns = Turns::new(3);
    let order: Vec<_> = (0..11).map(|_| turns.next(&set).unwrap()).collect();
    assert_eq!(order, [3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3]);
    let mut some = set;
    some.may[0] = false;
    some.may[4] = false;
    let order: Vec<_> = (0..5).map(|_| turns.next(&some).unwrap()).collect();
    assert_eq!(order, [1, 2, 3, 1, 2]);
}

#[test]
fn weighted_turns_are_exact_and_smooth() {
    for shares in [
        &[100, 20, 20][..],
        &[100, 100, 10],
        &[100, 73, 51, 29, 12],
        &[10, 10, 10, 10],
        &[100, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10],
    ] {
        let set = Set::weighted(shares);
        let units: Vec<f64> = set.weights.iter().map(|weight| weight.share()).collect();
        let all: f64 = units.iter().sum();
        for seed in 1..20 {
            let draw = numbers(seed);
            let mut turns = Turns::new(0);
            turns.prepare(shares.len(), &draw);
            let order: Vec<_> = (0..2_000).map(|_| turns.next(&set).unwrap()).collect();
            for (index, unit) in units.iter().enumerate() {
                let mut count = 0.0;
                for (choices, chosen) in (1_u32..).zip(&order) {
                    count += f64::from(u8::from(*chosen == index));
                    let share = f64::from(choices) * unit / all;
                    // One for the credit, one for the round that is not over, and what the others are away from theirs.
                    assert!(
                        (count - share).abs() < 3.0,
                        "{shares:?}: {index} has {count} of {choices}, its share is {share}"
                    );
                }
            }
        }
    }
}

#[test]
fn turns_go_on_when_the_set_changes() {
    let mut turns = Turns::new(0);
    let set = Set::of(4);
    for _ in 0..2 {
        turns.next(&set);
    }
    turns.forget_credits();
    assert_eq!(turns.next(&Set::of(5)), Some(2), "where it was");
    assert_eq!(turns.next(&Set::of(2)), Some(1), "3 of 2");
    assert_eq!(turns.next(&Set::of(0)), None);
    // However often the set changes, a new endpoint gets its share.
    let set = Set::weighted(&[100, 10]);
    let draw = numbers(37);
    let counts = counts(2, 100_000, || {
        turns.forget_credits();
        turns.prepare(2, &draw);
        turns.next(&set)
    });
    // Each choice begins where the last one ended: after the first one the second is asked, and accepts one time in ten.
    let share = f64::from(counts[1]) / 100_000.0;
    assert!((0.08..0.11).contains(&share), "{counts:?}");
}

#[test]
fn keys_spread_over_the_ring() {
    let addresses: Vec<_> = (0..20_u32)
        .map(|n| std::net::SocketAddr::from(((0x0a00_0000 + n).to_be_bytes(), 80)))
        .collect();
    let ring = Ring::new(addresses.iter().copied());
    let set = Set::of(20);
    let mut key = 0_u64;
    let counts = counts(20, 200_000, || {
        key += 1;
        ring.find(place(&key.to_be_bytes()), &set)
    });
    // 100 points per endpoint: the standard deviation of a share is a tenth of it.
    assert!(
        counts.iter().all(|count| (6_000..14_500).contains(count)),
        "{counts:?}"
    );
    let mean = 10_000.0_f64;
    let variance: f64 = counts
        .iter()
        .map(|count| (f64::from(*count) - mean).powi(2))
        .sum::<f64>()
        / 20.0;
    assert!(variance.sqrt() < 0.2 * mean, "{}", variance.sqrt());
}
