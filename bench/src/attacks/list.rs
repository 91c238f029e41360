//! Which attacks there are.

use crate::peers::{World, idle_connections};

/// What hostile clients do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum What {
    /// Nothing: what the others are compared with.
    Nothing,
    /// Header sections that trickle in.
    SlowHeader,
    /// Bodies that trickle in.
    SlowBody,
    /// Large responses that are taken a byte at a time.
    SlowRead,
    /// The beginning of a `ClientHello`, and nothing more.
    Silence,
    /// Handshakes, and nothing after that.
    Idle,
    /// What only looks like a `ClientHello`.
    Garbage,
    /// HTTP/2: requests that are taken back at once.
    RapidReset,
    /// HTTP/2: a header section without an end.
    Continuation,
    /// HTTP/2: settings to be acknowledged, acknowledgements that nobody reads.
    Settings,
    /// HTTP/2: pings to be answered, answers that nobody reads.
    Pings,
    /// A header field of 1 MiB.
    LargeHeader,
    /// 10,000 header fields.
    ManyHeaders,
    /// A PROXY header from somebody who is not trusted.
    Spoof,
    /// Paths on which an expression of a route backtracks, if it can.
    Expressions,
    /// Hosts of many labels that nobody has, beside 100,000 routes.
    Hosts,
}

/// One attack.
#[derive(Clone, Copy, Debug)]
pub struct Attack {
    /// For `--attack`.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// What is done.
    pub what: What,
    connections: usize,
    /// How long, in seconds.
    pub seconds: u64,
}

impl Attack {
    /// Connections at the same time.
    pub fn connections(&self) -> usize {
        if self.what == What::Idle {
            return self.connections.min(idle_connections());
        }
        self.connections
    }

    /// The configuration that it meets.
    pub fn world(&self) -> World {
        if self.what == What::Hosts {
            World::GuardedRoutes
        } else {
            World::Guarded
        }
    }
}

/// Longer than the deadline for a header section, so that it is seen to be kept.
const SLOW: u64 = 36;
const FLOOD: u64 = 10;

const fn attack(
    name: &'static str,
    title: &'static str,
    what: What,
    connections: usize,
    seconds: u64,
) -> Attack {
    Attack {
        name,
        title,
        what,
        connections,
        seconds,
    }
}

/// All of them, in the order of the table.
pub const ATTACKS: [Attack; 16] = [
    attack("none", "none", What::Nothing, 0, FLOOD),
    attack(
        "slow-header",
        "2,000 header sections, a field per second",
        What::SlowHeader,
        2_000,
        SLOW,
    ),
    attack(
        "slow-body",
        "2,000 bodies, a byte per second",
        What::SlowBody,
        2_000,
        SLOW,
    ),
    attack(
        "slow-read",
        "500 responses of 10 MiB, taken a byte per second",
        What::SlowRead,
        500,
        SLOW,
    ),
    attack(
        "silence",
        "2,000 times the beginning of a ClientHello",
        What::Silence,
        2_000,
        SLOW,
    ),
    attack(
        "idle",
        "idle TLS connections, 10,000 where there are descriptors for them",
        What::Idle,
        10_000,
        30,
    ),
    attack(
        "garbage",
        "garbage in place of a ClientHello, 64 at once",
        What::Garbage,
        64,
        FLOOD,
    ),
    attack(
        "rapid-reset",
        "HTTP/2 requests taken back, 4 connections",
        What::RapidReset,
        4,
        FLOOD,
    ),
    attack(
        "continuation",
        "HTTP/2 header sections without an end, 4 connections",
        What::Continuation,
        4,
        FLOOD,
    ),
    attack(
        "settings",
        "HTTP/2 SETTINGS, acknowledgements not read, 4 connections",
        What::Settings,
        4,
        FLOOD,
    ),
    attack(
        "pings",
        "HTTP/2 PING, answers not read, 4 connections",
        What::Pings,
        4,
        FLOOD,
    ),
    attack(
        "large-header",
        "header fields of 1 MiB, 8 at once",
        What::LargeHeader,
        8,
        FLOOD,
    ),
    attack(
        "many-headers",
        "10,000 header fields, 8 at once",
        What::ManyHeaders,
        8,
        FLOOD,
    ),
    attack(
        "spoof",
        "PROXY headers from a stranger, 4 at once",
        What::Spoof,
        4,
        FLOOD,
    ),
    attack(
        "expressions",
        "2,000 characters that make `(a+)+b` backtrack, 4 connections",
        What::Expressions,
        4,
        FLOOD,
    ),
    attack(
        "hosts",
        "unknown hosts of 60 labels beside 100,000 routes, 4 connections",
        What::Hosts,
        4,
        FLOOD,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attacks_have_names_of_their_own_and_an_end() {
        let names: std::collections::BTreeSet<_> = ATTACKS.iter().map(|it| it.name).collect();
        assert_eq!(names.len(), ATTACKS.len());
        assert!(ATTACKS.iter().all(|it| (1..60).contains(&it.seconds)));
    }
}
