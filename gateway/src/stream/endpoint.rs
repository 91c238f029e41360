//! The endpoint of a stream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::EndpointSet;
use table::{CompiledStream, Table};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::StreamWorker;
use super::record::{Ending, Record};
use crate::listen;
use crate::telemetry::BackendSeries;
use crate::upstream::{InFlight, Turn, Unresolved, Wish, now};

/// An endpoint that was chosen.
pub(super) struct Chosen {
    /// Counts the stream while it is kept.
    pub(super) in_flight: InFlight,
    pub(super) series: Arc<BackendSeries>,
    /// The set that it was chosen from.
    pub(super) of: Arc<EndpointSet>,
    /// There is one that has not been tried.
    pub(super) has_another: bool,
}

impl Chosen {
    /// Where it is.
    pub(super) fn address(&self) -> SocketAddr {
        self.in_flight.endpoint().address()
    }
}

impl StreamWorker {
    /// Chooses an endpoint as for a request; those that were tried come last.
    pub(super) async fn choose(
        &self,
        table: &Table,
        stream: &CompiledStream,
        tried: &[SocketAddr],
    ) -> Result<Chosen, Ending> {
        let slot = stream.slot;
        let backend = table.backend(slot).ok_or(Ending::NoEndpoints)?;
        let series = self.picker.series(slot, backend, &self.shared.series);
        let resolved = match &*backend.endpoints {
            EndpointSet::Addresses(_) => None,
            EndpointSet::Dns { host, .. } => {
                let known = self.picker.name(slot, backend);
                let name = known.unwrap_or_else(|| {
                    let name = self.shared.resolver.name(host);
                    self.picker.remember_name(slot, &name);
                    name
                });
                let addresses = self.shared.resolver.addresses(&name).await;
                Some(addresses.map_err(|error| match error {
                    Unresolved::Failed => Ending::DnsFailed,
                    Unresolved::Refused => Ending::DnsRefused,
                })?)
            }
            EndpointSet::Invalid(_) => return Err(Ending::InvalidBackend),
        };
        let turn = Turn {
            balance: stream.balance,
            slow_start: 0,
            random: &self.random,
            wish: Wish::None,
        };
        let is_tried = |address| tried.contains(&address);
        let chosen = self.picker.choose(
            slot,
            backend,
            resolved.as_ref(),
            &self.shared,
            turn,
            is_tried,
        );
        let (endpoint, _) = chosen.ok_or(Ending::NoEndpoints)?;
        endpoint.chosen(now);
        let chosen = endpoint.address();
        let has_another = self.picker.has_another(slot, backend, |address| {
            address == chosen || is_tried(address)
        });
        Ok(Chosen {
            in_flight: InFlight::on(endpoint),
            series,
            of: Arc::clone(&backend.endpoints),
            has_another,
        })
    }

    /// Connects to an endpoint, or to the next one.
    pub(super) async fn connect(
        &self,
        table: &Table,
        stream: &CompiledStream,
        record: &mut Record,
    ) -> Result<(TcpStream, InFlight), Ending> {
        let rules = stream.rules;
        let begun = Instant::now();
        let most = match rules.tries {
            0 => usize::MAX,
            tries => usize::try_from(tries).unwrap_or(usize::MAX),
        };
        loop {
            let chosen = self.choose(table, stream, &record.facts.tries).await?;
            let address = chosen.address();
            record.facts.tries.push(address);
            let try_begun = Instant::now();
            let connected = timeout(seconds(rules.connect), TcpStream::connect(address)).await;
            let ending = match connected {
                Ok(Ok(connection)) => {
                    chosen.in_flight.endpoint().connected();
                    chosen.series.connects.increment(1);
                    record.facts.connected = Some(try_begun.elapsed());
                    // Without these options it works as well.
                    let _ = listen::tune(&connection);
                    return Ok((connection, chosen.in_flight));
                }
                Ok(Err(error)) => {
                    tracing::debug!(%address, %error, "Cannot connect to the endpoint of a stream");
                    Ending::ConnectFailed
                }
                Err(_elapsed) => Ending::ConnectTimeout,
            };
            chosen.in_flight.endpoint().refused();
            chosen.series.connect_failed(&ending.reason());
            let late = rules.tries_timeout > 0 && begun.elapsed() >= seconds(rules.tries_timeout);
            if record.facts.tries.len() >= most || late || !chosen.has_another {
                return Err(ending);
            }
            if !self.picker.may_retry(stream.slot) {
                chosen.series.retry_refused();
                return Err(ending);
            }
            chosen.series.retries.increment(1);
        }
    }
}

/// Zero would end at once, which nobody means.
pub(super) fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds.max(1)))
}
