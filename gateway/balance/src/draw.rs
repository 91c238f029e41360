//! Choices by lot: one at random, or the better one of two at random.

use crate::{Candidates, first_from};

/// How often is drawn before the first one that may be chosen is taken in its place. Where hardly any may be chosen, drawing on
/// would take longer than looking at all of them.
const DRAWS: u32 = 8;

/// The same where new endpoints decline: at the least weight, nine of ten draws.
const DRAWS_BY_WEIGHT: u32 = 64;

/// One of those that may be chosen, each as likely as its weight says.
pub fn random(of: &impl Candidates, draw: &impl Fn() -> u64) -> Option<usize> {
    let count = of.count();
    if count < 2 {
        return first_from(of, 0);
    }
    by_lot(of, draw, |number| scaled(number, count))
        .or_else(|| first_from(of, scaled(draw(), count)))
}

/// Of two at random the one for which `load` is smaller. They are drawn by weight, so that the one which is drawn first, where both
/// have the same load, is as likely as its weight says.
///
/// Two are enough: the fullest of `n` endpoints then has about `log log n` requests more than the others, with one at random it
/// would be about `log n / log log n`; looking at all of them sends every worker to the same one.
pub fn of_two<K: PartialOrd>(
    of: &impl Candidates,
    draw: &impl Fn() -> u64,
    load: impl Fn(usize) -> K,
) -> Option<usize> {
    let first = random(of, draw)?;
    let second = another(of, draw, first);
    Some(match second {
        Some(second) if load(second) < load(first) => second,
        Some(_) | None => first,
    })
}

/// One of the others.
fn another(of: &impl Candidates, draw: &impl Fn() -> u64, first: usize) -> Option<usize> {
    let count = of.count();
    let others = count.checked_sub(1).filter(|others| *others > 0)?;
    let shifted = |number| {
        let index = first + 1 + scaled(number, others);
        if index < count { index } else { index - count }
    };
    by_lot(of, draw, shifted).or_else(|| {
        let start = scaled(draw(), count);
        let mut all = (start..count).chain(0..start);
        all.find(|index| *index != first && of.may(*index))
    })
}

fn by_lot(
    of: &impl Candidates,
    draw: &impl Fn() -> u64,
    index_of: impl Fn(u64) -> usize,
) -> Option<usize> {
    let weighted = of.is_weighted();
    let draws = if weighted { DRAWS_BY_WEIGHT } else { DRAWS };
    (0..draws).find_map(|_| {
        let number = draw();
        // The upper bits say which one, the lower ones whether it accepts.
        let index = index_of(number);
        let taken = of.may(index) && (!weighted || of.weight(index).accepts(number));
        taken.then_some(index)
    })
}

/// A number below `count`, all as likely as each other if `number` is.
pub(crate) fn scaled(number: u64, count: usize) -> usize {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    let scaled = (u128::from(number) * u128::from(count)) >> 64;
    usize::try_from(scaled).unwrap_or(0)
}
