//! Entries that the table cannot hold.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use model::{CertificateId, HostPattern, Origin};
use serde::Serialize;

/// One entry that the table cannot hold as it was asked for, and what follows from that.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Reject {
    /// The object and field that asked for it.
    pub origin: Origin,
    /// What is wrong and what happens instead, for the owner of that object.
    pub reason: String,
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.reason)
    }
}

/// The part of the model that a list of rejects belongs to.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Part {
    Listeners,
    Host(HostPattern),
    Fallback,
    TlsHost(HostPattern),
    DefaultTls,
    Certificate(CertificateId),
}

/// Rejects by part, remembered so that compiling a few parts anew still reports all of them.
#[derive(Clone, Default)]
pub(crate) struct Rejects(Arc<BTreeMap<Part, Vec<Reject>>>);

impl Rejects {
    /// Replaces the list of one part.
    pub(crate) fn set(&mut self, part: Part, rejects: Vec<Reject>) {
        if !rejects.is_empty() {
            Arc::make_mut(&mut self.0).insert(part, rejects);
        } else if self.0.contains_key(&part) {
            Arc::make_mut(&mut self.0).remove(&part);
        }
    }

    /// All of them, in one order.
    pub(crate) fn all(&self) -> Vec<Reject> {
        self.0.values().flatten().cloned().collect()
    }
}
