//! Memory for output, which the connections of a thread hand on to each other: one that waits has none.

use std::cell::RefCell;

/// How many buffers a thread keeps, and how large they may be.
const MOST: usize = 32;
const LARGEST: usize = 96 * 1024;
/// The room that a buffer has at least.
const LEAST: usize = 2 * 1024;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer: one that has been used before, if there is one.
pub(super) fn take() -> Vec<u8> {
    let spare = SPARE.with_borrow_mut(Vec::pop);
    spare.unwrap_or_else(|| Vec::with_capacity(LEAST))
}

/// Keeps a buffer for others.
pub(super) fn put(mut buffer: Vec<u8>) {
    if (LEAST..=LARGEST).contains(&buffer.capacity()) {
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < MOST {
                buffer.clear();
                spare.push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_empty_and_bounded() {
        for capacity in [0, LEAST - 1, LARGEST + 1] {
            put(Vec::with_capacity(capacity));
            assert_eq!(SPARE.with_borrow(Vec::len), 0, "{capacity}");
        }
        for _ in 0..2 * MOST {
            put(vec![1; LEAST]);
        }
        assert_eq!(SPARE.with_borrow(Vec::len), MOST);
        assert!((0..2 * MOST).all(|_| take().is_empty()));
    }
}
