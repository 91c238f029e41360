//! The tests of `front`, one by one, with the direct engine, and those of what only it does.

#[cfg(test)]
#[path = "../front/bounds.rs"]
mod bounds;
#[cfg(test)]
#[path = "../front/crowds.rs"]
mod crowds;
#[cfg(test)]
#[path = "../front/deadlines.rs"]
mod deadlines;
#[cfg(test)]
#[path = "../front/drain.rs"]
mod drain;
#[cfg(test)]
mod farewell;
#[cfg(test)]
#[path = "../front/floods.rs"]
mod floods;
#[cfg(test)]
#[path = "../shared/frames.rs"]
mod frames;
#[cfg(test)]
#[path = "../front/limits.rs"]
mod limits;
#[cfg(test)]
#[path = "../front/overload.rs"]
mod overload;
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
#[cfg(test)]
mod tunnels;

/// What serves in here.
#[cfg(test)]
const ENGINE: gateway::Engine = gateway::Engine::Auto;
