//! A choice allocates nothing. A test binary of its own, because it counts for the whole process.

mod common;

use std::net::SocketAddr;

use balance::{Latency, Ring, Turns, of_two, place, random};

use crate::common::{Set, numbers};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

#[test]
fn a_choice_allocates_nothing() {
    let addresses = (0..1_000_u32)
        .map(|n| SocketAddr::from(((0x0a00_0000 + n).to_be_bytes(), 80)))
        .collect::<Vec<_>>();
    let ring = Ring::new(addresses.into_iter());
    let equal = Set::of(1_000);
    let weighted = Set::weighted(&[[100_u64; 900].as_slice(), [10; 100].as_slice()].concat());
    let mut ill = Set::of(1_000);
    ill.may = vec![false; 1_000];
    ill.may[77] = true;
    let latencies: Vec<_> = (0..1_000)
        .map(|n| Latency::known(f64::from(n), 0))
        .collect();
    let draw = numbers(41);
    let mut turns = Turns::new(0);
    turns.prepare(1_000, &draw);

    let _profiler = dhat::Profiler::builder().testing().build();
    let before = dhat::HeapStats::get();
    let mut chosen = 0;
    for set in [&equal, &weighted, &ill] {
        for key in 0..1_000_u32 {
            let cost = |index: usize| latencies[index].seconds(u64::from(key));
            for index in [
                turns.next(set),
                random(set, &draw),
                of_two(set, &draw, |index| index),
                of_two(set, &draw, cost),
                ring.find(place(&key.to_be_bytes()), set),
            ] {
                chosen += usize::from(index.is_some());
            }
        }
    }
    let after = dhat::HeapStats::get();
    assert_eq!(after.total_blocks, before.total_blocks);
    assert_eq!(chosen, 3 * 1_000 * 5, "it chose");
    // The counters count.
    drop(std::hint::black_box(vec![0_u8; 16]));
    assert_eq!(dhat::HeapStats::get().total_blocks, after.total_blocks + 1);
}
