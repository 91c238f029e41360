//! The clusters that the tests run against.
//!
//! | tier | what runs | tests |
//! | --- | --- | --- |
//! | api | etcd and kube-apiserver; `lockgate` is a process | `e2e/tests/api.rs`: [`Access`], [`Cluster`] |
//! | cluster | a whole Kubernetes with nodes and pods; Lockgate is installed as shipped | `e2e/tests/cluster.rs`: [`Running`] |

mod access;
mod control;
mod control_plane;
mod running;

pub use access::{Access, PRIVATE, Programs, SHARED, note};
pub use control::Control;
pub use control_plane::Cluster;
pub use running::Running;
