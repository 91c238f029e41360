//! Objects in, HTTP answers out: the whole process on a folder of manifests, without a cluster.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking, as the tests do"
)]

mod admin;
mod admission;
mod balancing;
mod cases;
mod client;
mod clients;
mod clock;
mod command;
mod compat;
mod folder;
mod guide;
mod manifest;
mod nginx;
mod origin;
mod overload;
mod process;
mod routes;
mod streams;
mod takeover;
mod tls;
mod world;
