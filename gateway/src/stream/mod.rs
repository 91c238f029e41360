//! Connections and datagrams that are passed on unread: ports of TCP and UDP, and TLS for hosts whose owners terminate
//! it themselves.
//!
//! A stream belongs to the worker that accepted it, and its endpoint is chosen as that of a request is. It does not
//! keep the table that it began with: what it has to know of later ones is whether its route is still there.

mod both_ways;
mod endpoint;
mod ports;
mod record;
mod routes;
mod session;
mod tcp;
mod udp;

use std::sync::Arc;

use table::Table;

use crate::Shared;
use crate::access_log::LineWriter;
use crate::drain::Tracker;
use crate::engine::Random;
use crate::housekeeping::{Chore, Housekeeping};
use crate::upstream::Picker;

pub(crate) use ports::{Host, Ports};
pub(crate) use record::{Ending, StreamFacts};
pub(crate) use routes::{Entrance, Routes};
pub(crate) use tcp::{Downstream, PassedOn};

/// What one worker thread has for its streams. Locks in it are never waited for, since nobody else takes them.
#[derive(Debug)]
pub(crate) struct StreamWorker {
    shared: Arc<Shared>,
    tracker: Arc<Tracker>,
    picker: Picker,
    random: Random,
    log: Option<LineWriter>,
    housekeeping: Housekeeping,
}

impl StreamWorker {
    /// A worker.
    pub(crate) fn new(shared: Arc<Shared>, tracker: Arc<Tracker>) -> Self {
        Self {
            picker: Picker::new(),
            random: Random::new(),
            log: shared.access_log.writer(),
            housekeeping: Housekeeping::new(),
            tracker,
            shared,
        }
    }

    /// Forgets, once in a while, what belongs to tables that are gone.
    fn tidy(&self, table: &Table) {
        if self.housekeeping.count(table) == Chore::Thorough {
            self.housekeeping.done(self.picker.forget_gone(table));
        }
    }
}
