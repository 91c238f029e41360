//! What is asked of a choice, and which endpoints it is made from.

use std::net::SocketAddr;

use model::Balance;

use super::registry::{self, Endpoint};
use crate::engine::Random;

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn<'a> {
    /// By which rule.
    pub(crate) balance: Balance,
    /// Milliseconds until a new endpoint gets its whole share; 0 is at once.
    pub(crate) slow_start: u64,
    /// For rules that draw.
    pub(crate) random: &'a Random,
    /// What comes before the rule.
    pub(crate) wish: Wish,
}

impl Turn<'_> {
    /// The time, for rules that need it.
    pub(super) fn now(&self) -> u64 {
        if self.slow_start > 0 || self.balance == Balance::Ewma {
            registry::now()
        } else {
            0
        }
    }
}

/// What a request wants of the choice.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wish {
    /// Nothing.
    None,
    /// The endpoint at this place.
    Place(Place),
    /// The endpoint that the user had before.
    Session {
        /// What it was told.
        number: Option<u128>,
        /// A user keeps its endpoint whatever becomes of it.
        loyal: bool,
        /// As long as it is there.
        persistent: bool,
    },
}

/// What a key says about the endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Its place on the ring.
    pub(crate) at: u32,
    /// Any of so many from there on is as good.
    pub(crate) subset: Option<usize>,
    /// None that has more to do than so many hundredths of the average.
    pub(crate) bound: Option<u32>,
}

/// Which endpoints come into question, from the best to the last resort.
#[derive(Clone, Copy, Debug)]
pub(super) enum Level {
    /// Those that are well and have not been tried by this request.
    Well,
    /// Those that have not been tried.
    Untried,
    /// All of them.
    Any,
}

impl Level {
    /// The one place where the choice learns how endpoints are.
    pub(super) fn admits(self, endpoint: &Endpoint, tried: &impl Fn(SocketAddr) -> bool) -> bool {
        match self {
            Self::Well => !tried(endpoint.address()) && !endpoint.is_avoided(registry::now),
            Self::Untried => !tried(endpoint.address()),
            Self::Any => true,
        }
    }
}
