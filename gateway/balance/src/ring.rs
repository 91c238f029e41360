//! Consistent hashing: an endpoint that comes or goes moves its own share of the keys and no other.
//!
//! Each endpoint has points on a ring; a key belongs to the endpoint of the next point. Where the points are depends on
//! addresses alone, so that every worker and every replica sends a key to the same endpoint.

use std::net::{IpAddr, SocketAddr};

use crate::draw::scaled;
use crate::{Candidates, first_from};

/// Points per endpoint. With so many the shares of endpoints differ by about a tenth.
const POINTS: usize = 100;

/// How many points are looked at in search of an endpoint that may be chosen. Of endpoints of which half may not, all of so many are
/// such with a probability of `2^-64`.
const LOOKED_AT: usize = 64;

/// A place and the number of its endpoint.
type Point = (u32, u32);

/// The points of a set of endpoints.
#[derive(Debug)]
pub struct Ring {
    /// By place.
    points: Box<[Point]>,
    /// For each value of the uppermost bits of a place the first point from there on.
    starts: Box<[u32]>,
    /// How many lower bits are left out.
    shift: u32,
}

impl Ring {
    /// The ring for these endpoints, which are numbered in their order.
    pub fn new(addresses: impl ExactSizeIterator<Item = SocketAddr>) -> Self {
        let mut points = Vec::with_capacity(addresses.len() * POINTS);
        // In the order of the addresses, so that points in one place have one order everywhere.
        let mut numbered: Vec<_> = addresses.zip(0_u32..).collect();
        numbered.sort_unstable();
        for (address, number) in numbered {
            let mut state = place_of(address);
            points.extend((0..POINTS).map(|_| {
                state = state.wrapping_add(STEP);
                (upper(mix(state)), number)
            }));
        }
        let bits = points
            .len()
            .next_power_of_two()
            .trailing_zeros()
            .clamp(1, 24);
        let shift = 32 - bits;
        let (points, starts) = sorted(&points, bits, shift);
        Self {
            points,
            starts,
            shift,
        }
    }

    /// The endpoint of a place, or the next one after it that may be chosen. While one may not, only its own keys move, and they
    /// spread over all the others.
    pub fn find(&self, place: u32, of: &impl Candidates) -> Option<usize> {
        self.from(place)
            .take(LOOKED_AT)
            .find(|index| of.may(*index))
            // Hardly any may be. Everybody who asks for this place gets the same one.
            .or_else(|| first_from(of, scaled(u64::from(place) << 32, of.count())))
    }

    /// The endpoints from this place on, once round. They come as often as they have points.
    pub fn from(&self, place: u32) -> impl Iterator<Item = usize> {
        let bucket = usize::try_from(place >> self.shift).unwrap_or(usize::MAX);
        let start = self.starts.get(bucket).copied();
        let start = start.map_or(self.points.len(), |start| {
            usize::try_from(start).unwrap_or(usize::MAX)
        });
        let (before, after) = self
            .points
            .split_at_checked(start)
            .unwrap_or((&self.points, &[]));
        let skipped = after.iter().take_while(|(at, _)| *at < place).count();
        let (skipped, after) = after.split_at_checked(skipped).unwrap_or((after, &[]));
        after
            .iter()
            .chain(before)
            .chain(skipped)
            .filter_map(|(_, number)| usize::try_from(*number).ok())
    }
}

/// Points by place, and where each bucket begins. Buckets have about one point each, so that this takes time in proportion to the points:
/// a worker has nothing else to do meanwhile.
fn sorted(points: &[Point], bits: u32, shift: u32) -> (Box<[Point]>, Box<[u32]>) {
    let bucket = |place: u32| usize::try_from(place >> shift).unwrap_or(0);
    let mut starts = vec![0_u32; (1 << bits) + 1];
    for (place, _) in points {
        if let Some(count) = starts.get_mut(bucket(*place) + 1) {
            *count += 1;
        }
    }
    let mut sum = 0;
    for start in &mut starts {
        sum += *start;
        *start = sum;
    }
    let index = |at: u32| usize::try_from(at).unwrap_or(usize::MAX);
    let mut free = starts.clone();
    let mut sorted = vec![(0, 0); points.len()];
    for point in points {
        if let Some(at) = free.get_mut(bucket(point.0))
            && let Some(slot) = sorted.get_mut(index(*at))
        {
            *slot = *point;
            *at += 1;
        }
    }
    for (from, to) in starts.iter().zip(starts.iter().skip(1)) {
        if to - from > 1
            && let Some(bucket) = sorted.get_mut(index(*from)..index(*to))
        {
            // Points in one place stay in their order.
            bucket.sort_by_key(|(place, _)| *place);
        }
    }
    (sorted.into(), starts.into())
}

/// The place of a key.
pub fn place(key: &[u8]) -> u32 {
    upper(mix(fold(key)))
}

/// The place of a number that is as good as drawn.
pub fn place_of_number(number: u128) -> u32 {
    u32::try_from(number >> 96).unwrap_or(0)
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// FNV-1a.
fn fold(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The end of `SplitMix64`.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn upper(number: u64) -> u32 {
    u32::try_from(number >> 32).unwrap_or(0)
}

fn place_of(address: SocketAddr) -> u64 {
    let mut bytes = [0; 18];
    let ip = match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let port = address.port().to_be_bytes();
    for (to, from) in bytes.iter_mut().zip(ip.into_iter().chain(port)) {
        *to = from;
    }
    mix(fold(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(numbers: impl Iterator<Item = u32>) -> Vec<SocketAddr> {
        numbers
            .map(|n| SocketAddr::from(((0x0a00_0000 + n).to_be_bytes(), 8080)))
            .collect()
    }

    fn chosen(ring: &Ring, of: &[SocketAddr], key: u32) -> SocketAddr {
        let place = place(&key.to_be_bytes());
        of[ring.from(place).next().unwrap()]
    }

    #[test]
    fn a_key_is_sent_to_the_next_point() {
        let of = addresses(0..50);
        let ring = Ring::new(of.iter().copied());
        assert_eq!(ring.points.len(), 50 * POINTS);
        for step in 0..10_000_u32 {
            let place = step.wrapping_mul(429_497);
            let want = ring
                .points
                .iter()
                .find(|(at, _)| *at >= place)
                .or_else(|| ring.points.first())
                .unwrap()
                .1;
            let mut from = ring.from(place);
            assert_eq!(from.next(), Some(usize::try_from(want).unwrap()), "{place}");
            assert_eq!(from.count() + 1, ring.points.len(), "once round");
        }
        assert!(ring.points.is_sorted_by_key(|(place, _)| *place));
        assert_eq!(Ring::new([].into_iter()).from(7).next(), None);
        let last = ring.points.last().unwrap().0;
        assert_eq!(
            ring.from(last.saturating_add(1)).next(),
            ring.from(0).next(),
            "behind the last point comes the first"
        );
    }

    #[test]
    fn only_the_keys_of_an_endpoint_that_goes_move() {
        let all = addresses(0..20);
        let fewer: Vec<_> = all.iter().copied().filter(|a| *a != all[7]).collect();
        // The order in which endpoints are listed says nothing.
        let shuffled: Vec<_> = all.iter().rev().copied().collect();
        let rings = [&all, &fewer, &shuffled].map(|of| (Ring::new(of.iter().copied()), of));
        let mut moved = 0;
        for key in 0..20_000 {
            let [before, after, same] = [0, 1, 2].map(|n| chosen(&rings[n].0, rings[n].1, key));
            assert_eq!(before, same);
            if before == all[7] {
                moved += 1;
            } else {
                assert_eq!(before, after);
            }
        }
        assert!((500..1800).contains(&moved), "{moved} of 20000");
    }

    #[test]
    fn shares_are_nearly_the_same() {
        let of = addresses(0..10);
        let ring = Ring::new(of.iter().copied());
        let mut counts = [0_u32; 10];
        for key in 0..100_000_u32 {
            counts[ring.from(place(&key.to_be_bytes())).next().unwrap()] += 1;
        }
        for count in counts {
            assert!((6_500..14_500).contains(&count), "{counts:?}");
        }
    }
}
