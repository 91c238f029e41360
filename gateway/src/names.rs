//! Names of header fields that have been seen before.

use std::cell::RefCell;

use ahash::RandomState;
use http::HeaderName;

/// How many a thread remembers. Names that fall on the same place take turns.
const PLACES: usize = 512;
/// Longer names are not remembered: clients choose them.
const LONGEST: usize = 64;

struct Names {
    hasher: RandomState,
    /// As they were written, and what they are.
    places: Vec<Option<(Box<[u8]>, HeaderName)>>,
}

thread_local! {
    static NAMES: RefCell<Names> = RefCell::new(Names {
        hasher: RandomState::new(),
        places: vec![None; PLACES],
    });
}

/// The name that is written so; `None` if it is none. Most requests have the same names as others before them, and
/// making one anew checks, copies and allocates.
pub(crate) fn name(written: &[u8]) -> Option<HeaderName> {
    if written.len() > LONGEST {
        return HeaderName::from_bytes(written).ok();
    }
    NAMES.with_borrow_mut(|names| {
        let hash = usize::try_from(names.hasher.hash_one(written) % PLACES as u64).ok()?;
        let place = names.places.get_mut(hash)?;
        if let Some((known, name)) = place
            && **known == *written
        {
            return Some(name.clone());
        }
        let name = HeaderName::from_bytes(written).ok()?;
        *place = Some((written.into(), name.clone()));
        Some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_it_would_be_without_memory() {
        let long = "x".repeat(LONGEST + 1);
        let many: Vec<String> = (0..2 * PLACES).map(|i| format!("X-Field-{i}")).collect();
        let some = [
            "Host", "host", "X-Custom", "x-custom", "", "a b", "ä", &long,
        ];
        for _ in 0..3 {
            for written in some.into_iter().chain(many.iter().map(String::as_str)) {
                let want = HeaderName::from_bytes(written.as_bytes()).ok();
                assert_eq!(name(written.as_bytes()), want, "{written}");
            }
        }
    }
}
