//! What the end-to-end tests stand on: a real Kubernetes, the real Lockgate, origin servers, and clients that see only
//! what a user sees: `kubectl`, `curl`, the gateway's ports, the admin port. There are two tiers, see [`cluster`].
//!
//! Everything runs in namespaces that `e2e/cluster/run.sh` makes, so that the addresses are free, no traffic leaves the
//! machine, and nothing survives the run. `cargo test -p e2e` by itself fails and says so.
//!
//! In the api tier, where `lockgate` is a process:
//!
//! | address | who |
//! | --- | --- |
//! | 203.0.113.10 and up | `lockgate`: ports 80, 443 and 10254 |
//! | 203.0.113.100 and up | origin servers: port 8080 |
//! | 203.0.113.240 and up | API servers (6443), each with its etcd (2379) |

pub mod audit;
pub mod bulk;
pub mod client;
pub mod cluster;
pub mod compare;
pub mod growth;
pub mod kubectl;
pub mod load;
pub mod lockgate;
pub mod node;
pub mod observe;
pub mod origin;
pub mod pki;
pub mod process;
pub mod scene;
pub mod site;
pub mod space;
pub mod traffic;
pub mod wait;
