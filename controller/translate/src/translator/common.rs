//! One list of filters for all routes that ask for the same.

use std::collections::VecDeque;

use model::Filters;

/// How many lists are remembered. Most routes of a cluster have one of very few.
const REMEMBERED: usize = 32;

/// The lists that were seen first of late.
#[derive(Debug, Default)]
pub(super) struct CommonFilters(VecDeque<Filters>);

impl CommonFilters {
    /// Replaces a list by an equal one that others have.
    pub(super) fn share(&mut self, filters: &mut Filters) {
        if let Some(known) = self.0.iter().find(|known| **known == *filters) {
            *filters = known.clone();
            return;
        }
        if self.0.len() >= REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(filters.clone());
    }
}

#[cfg(test)]
mod tests {
    use model::{Filter, Pace};

    use super::*;

    fn list(bytes_per_second: u64) -> Filters {
        let after = 0;
        let pace = Pace {
            bytes_per_second,
            after,
        };
        vec![Filter::Pace(pace)].into()
    }

    #[test]
    fn equal_lists_become_one_and_changing_one_changes_no_other() {
        let mut common = CommonFilters::default();
        let (mut one, mut other) = (list(1), list(1));
        common.share(&mut one);
        common.share(&mut other);
        assert!(one.is(&other));
        other.clear();
        assert_eq!((one.len(), other.len()), (1, 0));
        for number in 2..200 {
            common.share(&mut list(number));
        }
        assert_eq!(common.0.len(), REMEMBERED);
    }
}
