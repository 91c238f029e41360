//! The one place where a table is exchanged for the next: one writer, many readers.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::Table;

/// The two ends of the one cell that holds the table in force.
pub fn channel(initial: Table) -> (TableWriter, TableReader) {
    let cell = Arc::new(ArcSwap::from_pointee(initial));
    let reader = TableReader {
        cell: Arc::clone(&cell),
    };
    (TableWriter { cell }, reader)
}

/// Publishes tables. There is one per channel, and it cannot be cloned.
#[derive(Debug)]
pub struct TableWriter {
    cell: Arc<ArcSwap<Table>>,
}

impl TableWriter {
    /// Puts `table` in force and returns its generation, which is one more than that of the table before.
    ///
    /// Whoever has pinned the table before keeps it; who pins from now on gets this one.
    pub fn publish(&mut self, mut table: Table) -> u64 {
        let generation = self.cell.load().generation() + 1;
        table.generation = generation;
        self.cell.store(Arc::new(table));
        generation
    }

    /// The table in force.
    pub fn current(&self) -> Arc<Table> {
        self.cell.load_full()
    }
}

/// Reads the table in force. Clones are cheap and read the same table.
#[derive(Clone, Debug)]
pub struct TableReader {
    cell: Arc<ArcSwap<Table>>,
}

impl TableReader {
    /// The table in force. Pin once per request, and every phase of it sees the same table.
    pub fn pin(&self) -> Arc<Table> {
        self.cell.load_full()
    }
}

#[cfg(test)]
mod tests {
    use model::RoutingModel;

    use super::*;
    use crate::compile;

    #[test]
    fn a_pinned_table_stays_and_generations_count() {
        let table = || compile(&RoutingModel::default()).table;
        let (mut writer, reader) = channel(table());
        let pinned = reader.pin();
        assert_eq!(pinned.generation(), 0);
        assert_eq!(writer.publish(table()), 1);
        assert_eq!(writer.publish(table()), 2);
        assert_eq!(pinned.generation(), 0);
        assert_eq!(reader.pin().generation(), 2);
        assert!(Arc::ptr_eq(&writer.current(), &reader.pin()));
    }

    #[test]
    fn readers_cross_threads() {
        fn crosses<T: Clone + Send + Sync + 'static>(_: &T) {}
        let (_, reader) = channel(compile(&RoutingModel::default()).table);
        crosses(&reader);
    }
}
