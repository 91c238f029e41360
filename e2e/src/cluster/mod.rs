//! The clusters that the tests run against.
//!
//! | tier | what runs | tests |
//! | --- | --- | --- |
//! | api | etcd and kube-apiserver; `lockgate` is a process | `e2e/tests/api.rs`: [`Access`], [`Cluster`] |
//! | cluster | a whole Kubernetes with nodes and pods; Lockgate is installed as shipped | `e2e/tests/cluster.rs`: [`Running`] |
//!
//! The second is a [`Kubernetes`], in namespaces of its own and a folder of its own ([`Home`]):
//!
//! | network namespace | addresses | who |
//! | --- | --- | --- |
//! | the router | 198.51.100.1, 192.0.2.1 | etcd, API server, controller manager, scheduler, load balancer |
//! | `node-1`, zone a | 198.51.100.11, pods 10.244.1.0/24 | containerd, kubelet, kube-proxy |
//! | `node-2`, zone b | 198.51.100.12, pods 10.244.2.0/24 | the same |
//! | `client` | 192.0.2.2 | the tests |
//!
//! Services have addresses in 10.96.0.0/16, the load balancer gives out 203.0.113.0/24.

mod access;
mod api;
mod cgroup;
mod component;
mod control;
mod control_plane;
mod home;
mod install;
mod kubernetes;
mod load_balancer;
mod network;
mod node;
mod requirements;
mod running;
mod tool;

pub use access::{Access, PRIVATE, Programs, SHARED, note};
pub use api::Cluster;
pub use control::Control;
pub use home::Home;
pub use install::install;
pub use kubernetes::{Kubernetes, Materials, path};
pub use network::{CLIENT, CLIENT_NAMESPACE, CONTROL_PLANE, NODES, Place};
pub use requirements::check as check_requirements;
pub use running::Running;
