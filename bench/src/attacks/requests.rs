//! Requests as the load generator sends them: those of a well-behaved client, and those whose only malice is what they ask for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use http::{Request, Uri};
use rustls::ClientConfig;

use super::list::What;
use crate::certs;
use crate::load::{
    self, Answer, Body, Budget, Collector, Connector, Figures, Shape, Target, Traffic, Version,
};
use crate::peers::{EXPRESSION, HOST};

/// Bytes that the backend answers with.
const LENGTH: u64 = 1 << 10;

/// A well-behaved client: 200 requests a second over TLS, a fresh connection after 20 of them.
const POLITE: Shape = Shape {
    version: Version::Http1,
    connections: 8,
    streams: 1,
    renew_after: Some(20),
    rate: Some(200.0),
    timeout: Duration::from_secs(5),
};

/// Asks for what costs much, each time as soon as there is an answer.
const GREEDY: Shape = Shape {
    renew_after: None,
    rate: None,
    timeout: Duration::from_secs(30),
    ..POLITE
};

/// What a well-behaved client sees within that time.
pub(super) async fn polite(
    https: SocketAddr,
    client: &ClientConfig,
    time: Duration,
) -> Result<Figures> {
    let traffic = Asking {
        target: Target {
            address: https,
            server_name: Some(certs::server_name(HOST)?),
            authority: HOST.into(),
        },
        kind: Kind::Polite,
    };
    Ok(run(traffic, POLITE, client, time).await)
}

/// What a client sees that asks for what may cost much.
pub(super) async fn greedy(
    http: SocketAddr,
    what: What,
    connections: usize,
    client: &ClientConfig,
    time: Duration,
) -> Figures {
    let traffic = Asking {
        target: Target {
            address: http,
            server_name: None,
            authority: HOST.into(),
        },
        kind: if what == What::Hosts {
            Kind::Hosts
        } else {
            Kind::Expressions
        },
    };
    let shape = Shape {
        connections,
        ..GREEDY
    };
    run(traffic, shape, client, time).await
}

async fn run(traffic: Asking, shape: Shape, client: &ClientConfig, time: Duration) -> Figures {
    let collector = Arc::new(Collector::default());
    load::run(
        Arc::new(traffic),
        Connector::with(client, false),
        shape,
        Arc::new(Budget::new(None, Some(time))),
        Arc::clone(&collector),
    )
    .await;
    collector.figures()
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Polite,
    Expressions,
    Hosts,
}

struct Asking {
    target: Target,
    kind: Kind,
}

impl Asking {
    fn url(&self, number: u64) -> String {
        match self.kind {
            Kind::Polite => format!("https://{HOST}/"),
            Kind::Expressions => {
                let length = 2_000 + number % 16;
                let most = usize::try_from(length).unwrap_or_default();
                format!("http://{EXPRESSION}/x{}c", "a".repeat(most))
            }
            Kind::Hosts => format!("http://n{number}.{}bench.test/", "a.".repeat(57)),
        }
    }
}

impl Traffic for Asking {
    type Mark = ();

    fn target(&self, _: u64) -> Target {
        self.target.clone()
    }

    fn opening(&self, _: &Target) {}

    fn request(&self, _: &Target, number: u64) -> (Request<Body>, ()) {
        let mut request = Request::new(Body::default());
        *request.uri_mut() = self.url(number).parse::<Uri>().unwrap_or_default();
        (request, ())
    }

    fn judge(&self, _: &Target, (): (), answer: &Answer) -> Result<(), String> {
        let Answer { status, length, .. } = answer;
        match self.kind {
            Kind::Polite if *status != 200 || *length != LENGTH => {
                Err(format!("status {status}, {length} bytes"))
            }
            // No route is for these.
            Kind::Expressions | Kind::Hosts if status.is_success() => {
                Err(format!("status {status}"))
            }
            Kind::Polite | Kind::Expressions | Kind::Hosts => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_a_url() {
        for kind in [Kind::Polite, Kind::Expressions, Kind::Hosts] {
            let asking = Asking {
                target: Target {
                    address: SocketAddr::from(([127, 0, 0, 1], 80)),
                    server_name: None,
                    authority: HOST.into(),
                },
                kind,
            };
            let url: Uri = asking.url(7).parse().unwrap();
            let host = url.host().unwrap();
            assert!(host.len() < 254, "{host}");
            assert_eq!(host.split('.').count() >= 60, kind == Kind::Hosts, "{host}");
        }
    }
}
