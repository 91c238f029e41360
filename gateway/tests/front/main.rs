//! What clients meet before their first request: real sockets, real TLS clients.

#[cfg(test)]
mod bounds;
#[cfg(test)]
mod crowds;
#[cfg(test)]
mod deadlines;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod floods;
#[cfg(test)]
#[expect(dead_code, reason = "each folder of tests needs another part of it")]
#[path = "../shared/frames.rs"]
mod frames;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod overload;
#[cfg(test)]
mod proxy_protocol;
#[cfg(test)]
#[path = "../shared/mod.rs"]
mod shared;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tls;

/// What serves in here.
#[cfg(test)]
const ENGINE: gateway::Engine = gateway::Engine::Pingora;
