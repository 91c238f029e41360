//! When a worker forgets what belongs to tables that are gone.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use table::Table;

/// So many requests at least are between two times.
const OFTEN: usize = 1024;

/// Says when there may be something to forget.
///
/// Going through all that is remembered takes a while. So it is done only where the table is newer than the last time,
/// and after as many requests as there was remembered then: every request pays a constant share.
#[derive(Debug)]
pub(crate) struct Housekeeping {
    /// Requests until the next time.
    left: AtomicUsize,
    /// The newest table so far.
    generation: AtomicU64,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Chore {
    /// Nothing.
    None,
    /// Some time has gone by, and the table is the same.
    Quick,
    /// The table is newer than the last time.
    Thorough,
}

impl Housekeeping {
    /// Nothing is remembered yet.
    pub(crate) fn new() -> Self {
        Self {
            left: AtomicUsize::new(OFTEN),
            generation: AtomicU64::new(0),
        }
    }

    /// Counts a request. After [`Chore::Thorough`] comes [`Self::done`].
    pub(crate) fn count(&self, table: &Table) -> Chore {
        // A worker is one thread: nobody else counts in between.
        let left = self.left.load(Ordering::Relaxed).saturating_sub(1);
        if left > 0 {
            self.left.store(left, Ordering::Relaxed);
            return Chore::None;
        }
        self.left.store(OFTEN, Ordering::Relaxed);
        // A request that took long has one from before.
        let newest = self
            .generation
            .fetch_max(table.generation(), Ordering::Relaxed);
        if table.generation() > newest {
            Chore::Thorough
        } else {
            Chore::Quick
        }
    }

    /// So much is remembered now.
    pub(crate) fn done(&self, remembered: usize) {
        self.left.store(remembered.max(OFTEN), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use model::RoutingModel;

    use super::*;

    #[test]
    fn all_is_gone_through_only_when_the_table_is_newer() {
        let (mut writer, reader) = table::channel(table::compile(&RoutingModel::default()).table);
        let chores = Housekeeping::new();
        let next_with = |table: &Table| {
            let mut requests = 1;
            loop {
                match chores.count(table) {
                    Chore::None => requests += 1,
                    chore @ (Chore::Quick | Chore::Thorough) => return (requests, chore),
                }
            }
        };
        let next = || next_with(&reader.pin());
        assert_eq!(next(), (OFTEN, Chore::Quick), "the first table");
        let old = reader.pin();

        writer.publish(table::compile(&RoutingModel::default()).table);
        assert_eq!(next(), (OFTEN, Chore::Thorough));
        chores.done(5_000);
        assert_eq!(next(), (5_000, Chore::Quick), "as many as remembered");
        assert_eq!(next(), (OFTEN, Chore::Quick));

        writer.publish(table::compile(&RoutingModel::default()).table);
        assert_eq!(next(), (OFTEN, Chore::Thorough));
        chores.done(3);
        assert_eq!(
            next_with(&old),
            (OFTEN, Chore::Quick),
            "few are no reason to hurry"
        );
    }
}
