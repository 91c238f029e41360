//! What is passed on unread: real sockets on both sides.

#[cfg(test)]
#[path = "../shared/free_port.rs"]
mod free_port;
#[cfg(test)]
#[path = "../front/support.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "the tests of `front` use more of it"
)]
mod front;
#[cfg(test)]
#[path = "../shared/log.rs"]
mod log;
#[cfg(test)]
#[path = "../shared/nobody.rs"]
mod nobody;
#[cfg(test)]
mod ports;
#[cfg(test)]
#[path = "../shared/mod.rs"]
mod shared;
#[cfg(test)]
mod succession;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tcp;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod udp;

/// What serves requests in here.
#[cfg(test)]
const ENGINE: gateway::Engine = gateway::Engine::Auto;
