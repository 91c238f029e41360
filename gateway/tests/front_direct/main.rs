//! The tests of `front`, one by one, with the direct engine.

#[cfg(test)]
#[path = "../front/deadlines.rs"]
mod deadlines;
#[cfg(test)]
#[path = "../front/drain.rs"]
mod drain;
#[cfg(test)]
#[path = "../front/limits.rs"]
mod limits;
#[cfg(test)]
#[path = "../front/proxy_protocol.rs"]
mod proxy_protocol;
#[cfg(test)]
#[path = "../shared/mod.rs"]
mod shared;
#[cfg(test)]
#[path = "../front/support.rs"]
mod support;
#[cfg(test)]
#[path = "../front/tls.rs"]
mod tls;

/// What serves in here.
#[cfg(test)]
const ENGINE: gateway::Engine = gateway::Engine::DirectPreview;
