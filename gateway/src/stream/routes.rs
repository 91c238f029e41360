//! The routes of streams: what is counted by route, and when those that are gone have to end.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ahash::AHashMap;
use metrics::{Counter, Gauge, Label, counter, gauge};
use model::{BackendId, HostPattern};
use table::{CompiledStream, CompiledStreams};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::record::Ending;
use crate::telemetry::{OVERFLOW, STREAM_BYTES, STREAMS, STREAMS_OPEN, SeriesBudget};

/// Where a stream comes in.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Entrance {
    /// A port of TCP.
    Tcp(u16),
    /// A port of UDP.
    Udp(u16),
    /// The port for TLS, for these server names.
    Tls(HostPattern),
}

impl Entrance {
    /// The entrance of a stream that is found by its server name.
    pub(crate) fn of_host(stream: &CompiledStream) -> Self {
        Self::Tls(stream.host.clone().unwrap_or(HostPattern::Any))
    }

    /// As in logs of nginx.
    pub(crate) fn protocol(&self) -> &'static str {
        match self {
            Self::Tcp(_) | Self::Tls(_) => "TCP",
            Self::Udp(_) => "UDP",
        }
    }
}

impl fmt::Display for Entrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "tcp/{port}"),
            Self::Udp(port) => write!(f, "udp/{port}"),
            Self::Tls(host) => write!(f, "tls/{host}"),
        }
    }
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Key {
    entrance: Entrance,
    backend: BackendId,
}

/// A way that streams go, for as long as one of them is under way.
#[derive(Debug)]
pub(super) struct Route {
    open: Gauge,
    received: Counter,
    sent: Counter,
    labels: Box<[Label]>,
    /// When what is left has to end.
    end: watch::Sender<Option<Instant>>,
}

impl Route {
    fn new(key: &Key, budget: &SeriesBudget) -> Self {
        let entrance = key.entrance.to_string();
        let BackendId {
            namespace,
            service,
            port,
        } = &key.backend;
        // What follows tells backends of one port apart.
        let port = port.split('+').next().unwrap_or_default();
        let labels: Box<[Label]> = if budget.admit(&[&entrance, namespace, service, port]) {
            [
                Label::new("entrance", entrance),
                Label::new("namespace", namespace.to_string()),
                Label::new("service", service.to_string()),
                Label::new("service_port", port.to_owned()),
            ]
        } else {
            [
                Label::new("entrance", OVERFLOW),
                Label::new("namespace", ""),
                Label::new("service", ""),
                Label::new("service_port", ""),
            ]
        }
        .into();
        let directed = |direction: &'static str| {
            let labels = labels.iter().cloned();
            let labels: Vec<Label> = labels.chain([Label::new("direction", direction)]).collect();
            counter!(STREAM_BYTES, labels.iter())
        };
        Self {
            open: gauge!(STREAMS_OPEN, labels.iter()),
            received: directed("received"),
            sent: directed("sent"),
            labels,
            end: watch::Sender::new(None),
        }
    }

    /// A stream has begun.
    pub(super) fn begin(&self) {
        self.open.increment(1);
    }

    /// A stream has ended.
    pub(super) fn ended(&self, ending: Ending) {
        self.open.decrement(1);
        let reason = Label::new("reason", ending.as_str());
        let labels: Vec<Label> = self.labels.iter().cloned().chain([reason]).collect();
        counter!(STREAMS, labels.iter()).increment(1);
    }

    /// Bytes came from a client.
    pub(super) fn received(&self, bytes: u64) {
        self.received.increment(bytes);
    }

    /// Bytes went to a client.
    pub(super) fn sent(&self, bytes: u64) {
        self.sent.increment(bytes);
    }

    /// Waits until this way has been gone for as long as streams may stay.
    pub(super) async fn over(&self) {
        let mut end = self.end.subscribe();
        loop {
            let at = *end.borrow_and_update();
            // The sender is in here.
            match at {
                None => {
                    let _ = end.changed().await;
                }
                Some(at) => {
                    tokio::select! {
                        () = sleep_until(at) => return,
                        _ = end.changed() => {}
                    }
                }
            }
        }
    }
}

/// All routes that a table has or a stream takes.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    known: RwLock<AHashMap<Key, Arc<Route>>>,
}

impl Routes {
    /// The route of a stream.
    pub(super) fn of(
        &self,
        entrance: &Entrance,
        stream: &CompiledStream,
        budget: &SeriesBudget,
    ) -> Arc<Route> {
        let key = Key {
            entrance: entrance.clone(),
            backend: stream.backend.clone(),
        };
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = known.get(&key) {
            return Arc::clone(route);
        }
        drop(known);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let route = known
            .entry(key)
            .or_insert_with_key(|key| Arc::new(Route::new(key, budget)));
        Arc::clone(route)
    }

    /// Streams whose route is not in the table any more have `farewell` from now on, unless it comes back.
    pub(super) fn settle(&self, table: &CompiledStreams, farewell: Duration) {
        let tcp = table.tcp.iter().map(|(p, s)| (Entrance::Tcp(*p), s));
        let udp = table.udp.iter().map(|(p, s)| (Entrance::Udp(*p), s));
        let ports = tcp.chain(udp).map(|(entrance, stream)| Key {
            entrance,
            backend: stream.backend.clone(),
        });
        let hosts = table.hosts().map(|(host, backend)| Key {
            entrance: Entrance::Tls(host.clone()),
            backend: backend.clone(),
        });
        let wanted: ahash::AHashSet<Key> = ports.chain(hosts).collect();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|key, route| {
            let gone = !wanted.contains(key);
            route.end.send_if_modified(|end| {
                let differs = end.is_some() != gone;
                if differs {
                    *end = gone.then(|| Instant::now() + farewell);
                }
                differs
            });
            !gone || Arc::strong_count(route) > 1
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::{Balance, Changes, Origin, RoutingModel, StreamRoute, StreamRules};
    use table::{Table, compile};

    use super::*;

    fn table(service: Option<&str>) -> Table {
        let mut model = RoutingModel::default();
        model.streams.tcp = service.map_or_else(BTreeMap::new, |service| {
            let route = StreamRoute {
                backend: BackendId::new("a", service, "80"),
                balance: Balance::default(),
                proxy_in: false,
                proxy_out: false,
                rules: StreamRules::default(),
                origin: Origin::default(),
            };
            BTreeMap::from([(9000, Arc::new(route))])
        });
        assert_eq!(
            Changes::between(&RoutingModel::default(), &model).streams,
            service.is_some()
        );
        compile(&model).table
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_outlives_its_route_by_the_farewell_unless_it_comes_back() {
        let farewell = Duration::from_mins(1);
        let (routes, budget) = (Routes::default(), SeriesBudget::new(10));
        let with = table(Some("one"));
        let stream = &with.streams().tcp[&9000];
        let entrance = Entrance::Tcp(9000);
        let route = routes.of(&entrance, stream, &budget);
        routes.settle(with.streams(), farewell);
        {
            let over = route.over();
            tokio::pin!(over);
            assert!(futures::poll!(&mut over).is_pending());

            // Another Service behind the port is another route.
            for (service, waits) in [(None, 30), (Some("one"), 300), (Some("two"), 59)] {
                routes.settle(table(service).streams(), farewell);
                let early = tokio::time::timeout(Duration::from_secs(waits), &mut over);
                assert!(early.await.is_err(), "{service:?}");
            }
            tokio::time::timeout(Duration::from_secs(2), over)
                .await
                .unwrap();
        }

        drop(route);
        routes.settle(table(None).streams(), farewell);
        assert!(routes.known.read().unwrap().is_empty(), "forgotten");
    }
}
