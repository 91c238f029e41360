//! The rate at which all proxies are asked in the second half of a case.

use super::Peer;

/// Part of the slowest proxy's rate at which all are asked.
const PART: f64 = 0.7;

/// A proxy that is slower than this part of the fastest one does not decide about the rate of all.
const TOO_SLOW: f64 = 0.05;

/// Who is asked at which rate.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Pace {
    /// Those who can keep up with it.
    pub(super) quick: Vec<usize>,
    /// Those who cannot.
    pub(super) slow: Vec<usize>,
    /// Requests per second, if anybody is to be asked.
    pub(super) rate: Option<f64>,
}

impl Pace {
    /// From what each has reached, in requests per second. The yardstick has no part in it.
    pub(super) fn of(reached: &[(usize, Peer, f64)]) -> Self {
        let peers = || reached.iter().filter(|(_, peer, _)| !peer.is_yardstick());
        let fastest = peers().map(|(_, _, rate)| *rate).fold(0.0, f64::max);
        let mut pace = Self::default();
        for &(index, _, rate) in peers() {
            if rate < fastest * TOO_SLOW {
                pace.slow.push(index);
                continue;
            }
            pace.quick.push(index);
            let rate = PART * rate;
            pace.rate = Some(pace.rate.map_or(rate, |slowest| slowest.min(rate)));
        }
        pace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_of_the_peers_decides_unless_it_is_far_behind() {
        for (reached, quick, slow, rate, why) in [
            (
                vec![(0, Peer::Lockgate, 1000.0), (2, Peer::Nginx, 500.0)],
                vec![0, 2],
                vec![],
                Some(350.0),
                "70 % of the slowest",
            ),
            (
                vec![(0, Peer::Lockgate, 1000.0), (1, Peer::Nginx, 49.0)],
                vec![0],
                vec![1],
                Some(700.0),
                "far behind",
            ),
            (
                vec![(0, Peer::Lockgate, 1000.0), (1, Peer::Floor, 100.0)],
                vec![0],
                vec![],
                Some(700.0),
                "a slow yardstick",
            ),
            (
                vec![(0, Peer::Lockgate, 1000.0), (1, Peer::Floor, 30_000.0)],
                vec![0],
                vec![],
                Some(700.0),
                "a yardstick that leaves all behind",
            ),
            (
                vec![(0, Peer::Floor, 1.0)],
                vec![],
                vec![],
                None,
                "nobody else",
            ),
        ] {
            let wanted = Pace { quick, slow, rate };
            assert_eq!(Pace::of(&reached), wanted, "{why}");
        }
    }
}
