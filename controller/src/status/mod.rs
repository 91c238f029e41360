//! What is reported back to the cluster: addresses in the status of Ingresses, and Events for their owners.
//!
//! [`plan`] decides, [`board`] keeps what is due, [`apply`] writes it. [`policies`] does so for the status of policies.

pub(crate) mod apply;
pub(crate) mod board;
pub(crate) mod event;
pub(crate) mod plan;
pub(crate) mod policies;

use crate::permissions::{Permission, Reach};

/// What this module asks the API server for.
pub(crate) const PERMISSIONS: &[Permission] = &[
    Permission {
        group: crds::GROUP,
        resource: "gatewaypolicies/status",
        verbs: &["patch"],
        reach: Reach::Watched,
    },
    Permission {
        group: crds::GROUP,
        resource: "routepolicies/status",
        verbs: &["patch"],
        reach: Reach::Watched,
    },
    Permission {
        group: "networking.k8s.io",
        resource: "ingresses",
        verbs: &["get"],
        reach: Reach::Watched,
    },
    Permission {
        group: "networking.k8s.io",
        resource: "ingresses/status",
        verbs: &["patch"],
        reach: Reach::Watched,
    },
    Permission {
        group: "events.k8s.io",
        resource: "events",
        verbs: &["create", "patch"],
        reach: Reach::Watched,
    },
];
