//! The Kubernetes side of Lockgate: watches objects, decides what is served, and reports back.
//!
//! A *source* ([`app::Source`]) reports changes of objects. The reconcile loop translates them into a routing model,
//! compiles that into a table and publishes it with one swap; the gateway serves it. [`app`] puts the parts together
//! and is the only module that names the gateway.

mod admin;
mod admission;
pub mod app;
pub mod args;
mod backoff;
mod certificate;
mod columns;
mod debounce;
mod descriptors;
mod expiry;
#[cfg(test)]
mod fake_api;
mod files;
mod histograms;
mod leader;
mod lifecycle;
mod listener;
mod memory;
pub mod migrate;
pub mod nginx_metrics;
mod overview;
mod permissions;
mod problems;
mod publish;
mod reconcile;
pub mod render;
mod status;
mod takeover;
pub mod telemetry;
mod watch;

pub use certificate::CertificateError;
pub use lifecycle::Phase;
pub use permissions::{Permission, Reach, permissions};
pub use reconcile::Progress;
pub use watch::directory::FolderError;
