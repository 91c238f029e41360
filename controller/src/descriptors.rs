//! How many descriptors there may be: a process without any accepts nothing, not even a question whether it is well.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// Kept for everything that is no connection: files, listening sockets, operators, the API server. Of a small limit a
/// quarter.
const KEPT: u64 = 512;

/// Raises the limit on descriptors as far as that is allowed. Returns how many connections of clients there may be, of
/// which each may need one to a backend: at most as many as `said`.
pub(crate) fn affordable(said: usize) -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(error) => {
            info!(%error, limit = current, "The limit on descriptors could not be raised");
            current
        }
    };
    let most = limit.map_or(usize::MAX, connections);
    if most < said {
        warn!(
            descriptors = limit,
            asked = said,
            connections = most,
            "There are too few descriptors for --max-connections; fewer are accepted"
        );
    }
    said.min(most)
}

/// How many connections so many descriptors are enough for.
fn connections(descriptors: u64) -> usize {
    let kept = KEPT.min(descriptors / 4);
    usize::try_from((descriptors - kept) / 2).map_or(usize::MAX, |most| most.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_may_need_two() {
        for (descriptors, want) in [
            (0, 1),
            (256, 96),
            (1024, 384),
            (4096, 1792),
            (1 << 20, 524_032),
        ] {
            assert_eq!(connections(descriptors), want, "{descriptors}");
        }
    }
}
