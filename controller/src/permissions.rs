//! What the code asks the API server for. `config/rbac` has to grant exactly this; a test compares the two.

use crate::{leader, status, watch};

/// Where a permission has to hold.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Reach {
    /// In every namespace that is watched, and for objects of the whole cluster.
    Watched,
    /// In the namespace of the pod.
    OwnNamespace,
}

/// Verbs on one resource.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Permission {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Resource, with its subresource after a slash.
    pub resource: &'static str,
    /// Verbs as RBAC names them.
    pub verbs: &'static [&'static str],
    /// Where.
    pub reach: Reach,
}

/// Everything that the controller does at the API server.
pub fn permissions() -> Vec<Permission> {
    let mut all = watch::kinds::permissions();
    all.extend_from_slice(leader::PERMISSIONS);
    all.extend_from_slice(status::PERMISSIONS);
    all
}
