//! What clients meet before their first request: real sockets, real TLS clients.

#[cfg(test)]
mod deadlines;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod limits;
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
