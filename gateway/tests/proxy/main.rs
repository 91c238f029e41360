//! What happens to requests: real sockets, real clients, real backends.

#[cfg(test)]
mod access;
#[cfg(test)]
mod answers;
#[cfg(test)]
mod backend_tls;
#[cfg(test)]
mod balancing;
#[cfg(test)]
mod checks;
#[cfg(test)]
mod circuit;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod collecting;
#[cfg(test)]
mod deadlines;
#[cfg(test)]
mod endpoints;
#[cfg(test)]
mod external;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod forwarding;
#[cfg(test)]
#[expect(dead_code, reason = "each folder of tests needs another part of it")]
#[path = "../shared/frames.rs"]
mod frames;
#[cfg(test)]
mod h2spec;
#[cfg(test)]
mod health;
#[cfg(test)]
mod http2;
#[cfg(test)]
#[path = "../shared/log.rs"]
mod log;
#[cfg(test)]
mod logging;
#[cfg(test)]
mod mirror;
#[cfg(test)]
#[path = "../shared/nobody.rs"]
mod nobody;
#[cfg(test)]
mod protocols;
#[cfg(test)]
mod raw;
#[cfg(test)]
mod raw_http2;
#[cfg(test)]
mod routing;
#[cfg(test)]
mod sessions;
#[cfg(test)]
#[path = "../shared/mod.rs"]
mod shared;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod support;
#[cfg(test)]
mod swaps;
#[cfg(test)]
mod turns;
#[cfg(test)]
mod websocket;

/// What serves in here.
#[cfg(test)]
const ENGINE: gateway::Engine = gateway::Engine::Pingora;
