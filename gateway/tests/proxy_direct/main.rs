//! The tests of `proxy`, one by one, with the direct engine, and those of what only it does.

#[cfg(test)]
#[path = "../proxy/access.rs"]
mod access;
#[cfg(test)]
#[path = "../proxy/answers.rs"]
mod answers;
#[cfg(test)]
#[path = "../proxy/backend_tls.rs"]
mod backend_tls;
#[cfg(test)]
#[path = "../proxy/balancing.rs"]
mod balancing;
#[cfg(test)]
#[path = "../proxy/checks.rs"]
mod checks;
#[cfg(test)]
#[path = "../proxy/circuit.rs"]
mod circuit;
#[cfg(test)]
#[path = "../proxy/clients.rs"]
mod clients;
#[cfg(test)]
#[path = "../proxy/collecting.rs"]
mod collecting;
#[cfg(test)]
#[path = "../proxy/deadlines.rs"]
mod deadlines;
#[cfg(test)]
mod deadlines_of_http2;
#[cfg(test)]
mod early;
#[cfg(test)]
#[path = "../proxy/endpoints.rs"]
mod endpoints;
#[cfg(test)]
#[path = "../proxy/external.rs"]
mod external;
#[cfg(test)]
#[path = "../proxy/failures.rs"]
mod failures;
#[cfg(test)]
#[path = "../proxy/forwarding.rs"]
mod forwarding;
#[cfg(test)]
#[expect(dead_code, reason = "each folder of tests needs another part of it")]
#[path = "../shared/frames.rs"]
mod frames;
#[cfg(test)]
#[path = "../proxy/h2spec.rs"]
mod h2spec;
#[cfg(test)]
#[path = "../proxy/health.rs"]
mod health;
#[cfg(test)]
mod hostile_http2;
#[cfg(test)]
#[path = "../proxy/http2.rs"]
mod http2;
#[cfg(test)]
#[path = "../shared/log.rs"]
mod log;
#[cfg(test)]
#[path = "../proxy/logging.rs"]
mod logging;
#[cfg(test)]
#[path = "../proxy/mirror.rs"]
mod mirror;
#[cfg(test)]
#[path = "../shared/nginx.rs"]
mod nginx;
#[cfg(test)]
#[path = "../shared/nobody.rs"]
mod nobody;
#[cfg(test)]
#[path = "../proxy/protocols.rs"]
mod protocols;
#[cfg(test)]
mod rates;
#[cfg(test)]
#[path = "../proxy/raw.rs"]
mod raw;
#[cfg(test)]
#[path = "../proxy/raw_http2.rs"]
mod raw_http2;
#[cfg(test)]
#[path = "../proxy/routing.rs"]
mod routing;
#[cfg(test)]
#[path = "../proxy/sessions.rs"]
mod sessions;
#[cfg(test)]
#[path = "../shared/mod.rs"]
mod shared;
#[cfg(test)]
#[path = "../proxy/streams.rs"]
mod streams;
#[cfg(test)]
mod streams_of_http2;
#[cfg(test)]
mod strict;
#[cfg(test)]
#[path = "../proxy/support.rs"]
mod support;
#[cfg(test)]
#[path = "../proxy/swaps.rs"]
mod swaps;
#[cfg(test)]
mod tunnels;
#[cfg(test)]
#[path = "../proxy/turns.rs"]
mod turns;
#[cfg(test)]
#[path = "../proxy/websocket.rs"]
mod websocket;

/// What serves in here.
#[cfg(test)]
const ENGINE: gateway::Engine = gateway::Engine::Auto;
