//! Which of several endpoints gets the next request.
//!
//! Pure: no sockets, no runtime, no clock, no dependencies. What is known about endpoints is asked through [`Candidates`], time and random
//! numbers are arguments. No choice allocates memory.
//!
//! ```
//! use balance::{Candidates, Turns, Weight, of_two};
//!
//! /// Requests that each endpoint is working on; the last endpoint is ill.
//! struct Three([u32; 3]);
//!
//! impl Candidates for Three {
//!     fn count(&self) -> usize {
//!         self.0.len()
//!     }
//!     fn may(&self, index: usize) -> bool {
//!         index < 2
//!     }
//! }
//!
//! let three = Three([7, 0, 0]);
//! let mut turns = Turns::new(0);
//! assert_eq!([1, 2, 3].map(|_| turns.next(&three)), [Some(0), Some(1), Some(0)]);
//! // The less loaded of two.
//! let random = std::cell::Cell::new(1_u64);
//! let draw = || {
//!     random.set(random.get().wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1));
//!     random.get()
//! };
//! assert_eq!(of_two(&three, &draw, |index| three.0[index]), Some(1));
//! ```
//!
//! What each of them costs stands in `docs/balancing.md`.

mod bound;
mod draw;
mod latency;
mod ring;
mod turns;
mod weight;

pub use bound::room;
pub use draw::{of_two, random};
pub use latency::Latency;
pub use ring::{Ring, place, place_of_number};
pub use turns::Turns;
pub use weight::Weight;

/// What a choice is made from.
pub trait Candidates {
    /// How many there are, whether they may be chosen or not.
    fn count(&self) -> usize;

    /// May this one be chosen now?
    fn may(&self, index: usize) -> bool;

    /// Has any of them another weight than [`Weight::FULL`]?
    fn is_weighted(&self) -> bool {
        false
    }

    /// Its share, relative to those of the others. Asked only where they are weighted.
    fn weight(&self, _index: usize) -> Weight {
        Weight::FULL
    }

    /// Which one it is among all that turns are kept for, where these are only some of them.
    fn identity(&self, index: usize) -> usize {
        index
    }
}

/// The first candidate that may be chosen, from this one on, once round.
fn first_from(of: &impl Candidates, start: usize) -> Option<usize> {
    (start..of.count())
        .chain(0..start.min(of.count()))
        .find(|index| of.may(*index))
}
