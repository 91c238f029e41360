//! The one place that publishes tables.

use model::{Changes, RoutingModel};
use table::{Compiled, Reject, TableWriter};

/// Owns the writing end of the table.
#[derive(Debug)]
pub(crate) struct Publisher {
    writer: TableWriter,
}

/// What came of publishing.
#[derive(Debug)]
pub(crate) struct Published {
    /// The number of the table.
    pub(crate) generation: u64,
    /// The entries that it could not take.
    pub(crate) rejects: Vec<Reject>,
}

impl Publisher {
    pub(crate) fn new(writer: TableWriter) -> Self {
        Self { writer }
    }

    /// Compiles what `changes` names and swaps the table.
    pub(crate) fn publish(&mut self, model: &RoutingModel, changes: &Changes) -> Published {
        let Compiled { table, rejects } = table::recompile(&self.writer.current(), model, changes);
        Published {
            generation: self.writer.publish(table),
            rejects,
        }
    }

    /// The number of the table that is served.
    pub(crate) fn generation(&self) -> u64 {
        self.writer.current().generation()
    }
}
