//! Lists of compiled filters, one for all routes that ask for the same.

use std::collections::VecDeque;
use std::ops::Deref;
use std::slice;
use std::sync::Arc;

use model::{Filter, Filters};

use crate::route::CompiledFilter;

/// How many lists are remembered.
const REMEMBERED: usize = 32;

/// What happens on the way, in this order. Routes share lists.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CompiledFilters(Arc<[CompiledFilter]>);

impl From<Vec<CompiledFilter>> for CompiledFilters {
    fn from(filters: Vec<CompiledFilter>) -> Self {
        Self(filters.into())
    }
}

impl Deref for CompiledFilters {
    type Target = [CompiledFilter];

    fn deref(&self) -> &[CompiledFilter] {
        &self.0
    }
}

impl<'a> IntoIterator for &'a CompiledFilters {
    type Item = &'a CompiledFilter;
    type IntoIter = slice::Iter<'a, CompiledFilter>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// The last lists that were compiled, by the very values that they were made from.
#[derive(Clone, Default)]
pub(crate) struct Common(VecDeque<(Filters, CompiledFilters)>);

impl Common {
    pub(crate) fn get(&self, source: &Filters) -> Option<CompiledFilters> {
        let known = self.0.iter().find(|(known, _)| known.is(source));
        known.map(|(_, compiled)| compiled.clone())
    }

    pub(crate) fn remember(&mut self, source: &Filters, compiled: &CompiledFilters) {
        // What decides about access counts per host, and names backends that the host has to hold on to.
        let of_one_host = |filter: &Filter| matches!(filter, Filter::Access(_));
        if source.len() != compiled.len()
            || source.iter().any(of_one_host)
            || self.get(source).is_some()
        {
            return;
        }
        if self.0.len() >= REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((source.clone(), compiled.clone()));
    }
}

#[cfg(test)]
mod tests {
    use model::{Access, Pace};

    use super::*;

    fn pace(bytes_per_second: u64) -> (Filter, CompiledFilter) {
        let pace = Pace {
            bytes_per_second,
            after: 0,
        };
        (Filter::Pace(pace), CompiledFilter::Pace(pace))
    }

    #[test]
    fn the_same_list_is_found_again_and_the_oldest_is_forgotten() {
        let mut common = Common::default();
        let lists: Vec<(Filters, CompiledFilters)> = (1..)
            .take(REMEMBERED + 1)
            .map(|number| {
                let (filter, compiled) = pace(number);
                (vec![filter].into(), vec![compiled].into())
            })
            .collect();
        for (source, compiled) in &lists {
            common.remember(source, compiled);
            common.remember(&source.clone(), compiled);
            assert_eq!(common.get(&source.clone()).as_ref(), Some(compiled));
        }
        assert_eq!(common.0.len(), REMEMBERED);
        assert!(common.get(&lists[0].0).is_none());
        let equal: Filters = vec![pace(2).0].into();
        assert!(common.get(&equal).is_none(), "equal, but not the same");
    }

    #[test]
    fn what_belongs_to_one_host_or_is_incomplete_is_not_remembered() {
        let mut common = Common::default();
        let (filter, compiled) = pace(1);
        let closed: Filters = vec![filter].into();
        common.remember(&closed, &CompiledFilters::default());
        assert!(common.get(&closed).is_none(), "the route is closed");
        let access: Filters = vec![Filter::Access(Arc::new(Access::default()))].into();
        common.remember(&access, &vec![compiled].into());
        assert!(common.get(&access).is_none());
    }
}
