//! Which backend and which of its endpoints.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{BackendProtocol, Balance, EndpointSet, Timeouts};
use table::{BackendSlot, CompiledAction, CompiledRoute};

use crate::context::{RequestContext, Target, Try};
use crate::engine::Worker;
use crate::error::Reason;
use crate::phases::{body, headers};
use crate::upstream::{InFlight, Turn, Unresolved};

/// An endpoint and how to talk to it.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// Where it is.
    pub(crate) address: SocketAddr,
    /// What is spoken.
    pub(crate) protocol: BackendProtocol,
    /// The name for TLS; empty without.
    pub(crate) server_name: String,
    /// How long to wait.
    pub(crate) connect: Duration,
    /// Between two reads.
    pub(crate) read: Duration,
    /// Between two writes.
    pub(crate) send: Duration,
}

/// Chooses the backend of a request and the first endpoint to try. An error is answered before anything is connected.
pub(crate) async fn prepare(
    context: &mut RequestContext,
    worker: &Worker,
    request: &http::HeaderMap,
) -> Result<(), Reason> {
    let route = context.route.clone().ok_or(Reason::Internal)?;
    let CompiledAction::Forward(targets) = &route.action else {
        return Err(Reason::Internal);
    };
    context.request_id = Some(headers::request_id(request, || worker.random.wide()));
    body::announced(context, request)?;
    let Some(options) = &route.options else {
        let slot = targets.choose(worker.random.next_u32());
        return attempt(context, worker, slot).await;
    };
    let canary = options
        .canary(request, worker.random.next_u32())
        .filter(|slot| has_endpoints(context, *slot));
    let slot = canary.or_else(|| targets.choose(worker.random.next_u32()));
    let result = attempt(context, worker, slot).await;
    match (result, options.backup) {
        (Err(Reason::NoEndpoints | Reason::InvalidBackend), Some(backup)) => {
            context.on_backup = true;
            attempt(context, worker, Some(backup)).await
        }
        (result, _) => result,
    }
}

/// Could a backend take a request? A name may turn out to be nothing.
fn has_endpoints(context: &RequestContext, slot: BackendSlot) -> bool {
    context
        .table
        .backend(slot)
        .is_some_and(|backend| match &*backend.endpoints {
            EndpointSet::Addresses(addresses) => !addresses.is_empty(),
            EndpointSet::Dns { .. } => true,
            EndpointSet::Invalid(_) => false,
        })
}

/// Sends the request to a backend: takes the first endpoint to try.
async fn attempt(
    context: &mut RequestContext,
    worker: &Worker,
    slot: Option<BackendSlot>,
) -> Result<(), Reason> {
    let slot = slot.ok_or(Reason::NoEndpoints)?;
    let backend = context.table.backend(slot).cloned();
    // A backend that the model does not have has no endpoints either.
    let backend = backend.ok_or(Reason::NoEndpoints)?;
    let series = worker.picker.series(slot, &backend, &worker.shared.series);
    context.target = Some(Target {
        slot,
        protocol: match backend.protocol {
            BackendProtocol::Auto if context.client.https => BackendProtocol::Https,
            BackendProtocol::Auto => BackendProtocol::Http1,
            protocol @ (BackendProtocol::Http1 | BackendProtocol::H2c | BackendProtocol::Https) => {
                protocol
            }
        },
        backend,
        series,
    });
    begin_try(context, worker).await
}

/// Takes an endpoint for the next try.
pub(crate) async fn begin_try(context: &mut RequestContext, worker: &Worker) -> Result<(), Reason> {
    let target = context.target.clone().ok_or(Reason::Internal)?;
    let resolved = match &*target.backend.endpoints {
        EndpointSet::Addresses(_) => None,
        EndpointSet::Dns { host, .. } => {
            let known = worker.picker.name(target.slot, &target.backend);
            let name = known.unwrap_or_else(|| {
                let name = worker.shared.resolver.name(host);
                worker.picker.remember_name(target.slot, &name);
                name
            });
            let addresses = worker.shared.resolver.addresses(&name).await;
            Some(addresses.map_err(|error| match error {
                Unresolved::Failed => Reason::DnsFailed,
                Unresolved::Refused => Reason::DnsRefused,
            })?)
        }
        EndpointSet::Invalid(_) => return Err(Reason::InvalidBackend),
    };
    let endpoint = worker
        .picker
        .choose(
            target.slot,
            &target.backend,
            resolved.as_ref(),
            &worker.shared,
            Turn {
                balance: balance(context),
                random: &worker.random,
            },
            |address| context.tried(address),
        )
        .ok_or(Reason::NoEndpoints)?;
    context.tries.push(Try {
        in_flight: InFlight::on(endpoint),
        began: Instant::now(),
        connected: None,
        reused: false,
        header: None,
        ended: None,
        status: None,
    });
    Ok(())
}

fn balance(context: &RequestContext) -> Balance {
    context
        .route
        .as_ref()
        .and_then(|route| route.options.as_ref())
        .map_or_else(Balance::default, |options| options.balance)
}

/// How to talk to the endpoint of the current try.
pub(crate) fn upstream(context: &RequestContext) -> Result<Upstream, Reason> {
    let target = context.target.as_ref().ok_or(Reason::Internal)?;
    let attempt = context.tries.last().ok_or(Reason::Internal)?;
    let timeouts = timeouts(context.route.as_ref());
    let server_name = match target.protocol {
        BackendProtocol::Https => match &*target.backend.endpoints {
            EndpointSet::Dns { host, .. } => host.as_str().to_owned(),
            EndpointSet::Addresses(_) | EndpointSet::Invalid(_) => {
                let id = &target.backend.id;
                format!("{}.{}.svc", id.service, id.namespace)
            }
        },
        BackendProtocol::Http1 | BackendProtocol::H2c | BackendProtocol::Auto => String::new(),
    };
    Ok(Upstream {
        address: attempt.address(),
        protocol: target.protocol,
        server_name,
        connect: seconds(timeouts.connect),
        read: seconds(timeouts.read),
        send: seconds(timeouts.send),
    })
}

fn timeouts(route: Option<&Arc<CompiledRoute>>) -> Timeouts {
    route.map_or_else(Timeouts::default, |route| route.timeouts)
}

/// Zero would fail at once, which nobody means.
fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds.max(1)))
}
