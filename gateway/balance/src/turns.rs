//! One after the other.

use crate::{Candidates, Weight};

/// Whose turn it is.
///
/// Without weights endpoints simply take turns. With weights each visit gives an endpoint its weight in credit, and a whole credit is
/// a turn: nobody is ever more than one request away from its share of the rounds, and what an endpoint does not get is spread
/// over time instead of saved up. A choice costs one visit where all weights are whole, and never more than ten on average.
#[derive(Debug)]
pub struct Turns {
    next: usize,
    /// By identity; below a whole one.
    credits: Box<[u32]>,
}

/// The golden ratio of a whole credit. Multiples of it are spread evenly, so that endpoints with the same weight take their turns at
/// different times.
const STEP: u32 = 40_503;

impl Turns {
    /// Begins with this one.
    pub fn new(start: usize) -> Self {
        Self {
            next: start,
            credits: Box::default(),
        }
    }

    /// The endpoints are others now. The turn stays where it is.
    pub fn forget_credits(&mut self) {
        self.credits = Box::default();
    }

    /// Makes room for the credits of so many endpoints, unless there is. Choices among weighted candidates come after this; without it
    /// they ignore weights.
    pub fn prepare(&mut self, count: usize, random: impl FnOnce() -> u64) {
        if self.credits.len() == count {
            return;
        }
        // Where the set changes often, everybody has to begin anywhere with the same probability.
        let mut credit = u32::try_from(random() >> 32).unwrap_or(0);
        self.credits = std::iter::repeat_with(|| {
            credit = credit.wrapping_add(STEP);
            credit % Weight::FULL.units()
        })
        .take(count)
        .collect();
    }

    /// The next one that may be chosen.
    pub fn next(&mut self, of: &impl Candidates) -> Option<usize> {
        let count = of.count();
        if self.next >= count {
            self.next = self.next.checked_rem(count)?;
        }
        if of.is_weighted() {
            self.by_credit(of, count)
        } else {
            (0..count).find_map(|_| self.visit(count, |index| of.may(index)))
        }
    }

    fn by_credit(&mut self, of: &impl Candidates, count: usize) -> Option<usize> {
        for round in 0..Weight::ROUNDS {
            let mut any = false;
            for _ in 0..count {
                let credits = &mut self.credits;
                let index = self.next;
                self.next = following(index, count);
                if !of.may(index) {
                    continue;
                }
                any = true;
                let Some(credit) = credits.get_mut(of.identity(index)) else {
                    return Some(index);
                };
                *credit += of.weight(index).units();
                if let Some(rest) = credit.checked_sub(Weight::FULL.units()) {
                    *credit = rest;
                    return Some(index);
                }
            }
            if round == 0 && !any {
                return None;
            }
        }
        None
    }

    fn visit(&mut self, count: usize, may: impl Fn(usize) -> bool) -> Option<usize> {
        let index = self.next;
        self.next = following(index, count);
        may(index).then_some(index)
    }
}

fn following(index: usize, count: usize) -> usize {
    if index + 1 < count { index + 1 } else { 0 }
}
