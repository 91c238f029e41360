//! Which backend and which of its endpoints.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use model::{BackendProtocol, BackendTls, Balance, EndpointSet, Timeouts};
use table::{BackendSlot, CompiledAction, CompiledFilter, CompiledOptions, CompiledRoute};

use crate::context::{RequestContext, Target, Try};
use crate::engine::Worker;
use crate::error::Reason;
use crate::filters::variables;
use crate::phases::original::Original;
use crate::phases::stand_in::{self, StandIn};
use crate::phases::{body, deadline, headers, session};
use crate::upstream::{InFlight, Limit, Place, Turn, Unresolved, Wish, now, server_name};

/// How many endpoints are looked at for one that has a place for one more request.
const CHOICES: usize = 4;

/// An endpoint and how to talk to it.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// Where it is.
    pub(crate) address: SocketAddr,
    /// It has failed lately: connections that were made before may lead nowhere.
    pub(crate) suspect: bool,
    /// How often it has begun to fail.
    pub(crate) era: u32,
    /// What is spoken.
    pub(crate) protocol: BackendProtocol,
    /// What else the route says about TLS.
    pub(crate) tls: Option<Arc<BackendTls>>,
    /// The name for TLS; empty without.
    pub(crate) server_name: String,
    /// How long to wait for a connection.
    pub(crate) connect: Duration,
    /// The same, TLS included.
    pub(crate) connect_tls: Duration,
    /// Between two reads.
    pub(crate) read: Duration,
    /// Between two writes.
    pub(crate) send: Duration,
}

/// Chooses the backend of a request and the first endpoint to try. An error is answered before anything is connected.
pub(crate) async fn prepare(
    context: &mut RequestContext,
    worker: &Worker,
    request: Original<'_>,
) -> Result<(), Reason> {
    let headers = request.headers;
    let route = context.route.clone().ok_or(Reason::Internal)?;
    let CompiledAction::Forward(targets) = &route.action else {
        return Err(Reason::Internal);
    };
    context
        .request_id
        .get_or_insert_with(|| headers::request_id(headers, || worker.random.wide()));
    body::announced(context, headers)?;
    let Some(options) = &route.options else {
        let slot = targets.choose(worker.random.next_u32());
        return attempt(context, worker, slot).await;
    };
    if let Some(hash) = &options.hash_by {
        let key = variables::render(&hash.key, context, request);
        context.place = Some(Place {
            at: balance::place(key.as_bytes()),
            subset: hash.subset,
            bound: hash.bound,
        });
    }
    let slot = match &options.affinity {
        Some(affinity) => {
            session::choose(context, worker, headers.map(), (options, affinity), targets)
        }
        None => drawn(context, worker, headers.map(), options)
            .or_else(|| targets.choose(worker.random.next_u32())),
    };
    let result = attempt(context, worker, slot).await;
    match (result, options.backup) {
        (Err(Reason::NoEndpoints | Reason::InvalidBackend), Some(backup)) => {
            context.stand_in = Some(StandIn::without_endpoints(context));
            context.session = None;
            attempt(context, worker, Some(backup)).await
        }
        (Err(reason), None) if stand_in::replaces_failure(context, worker, reason.status()) => {
            context.session = None;
            begin_try(context, worker).await.map_err(|_| reason)
        }
        (result, _) => result,
    }
}

/// The canary that is to take a request and can.
pub(super) fn drawn(
    context: &RequestContext,
    worker: &Worker,
    headers: &HeaderMap,
    options: &CompiledOptions,
) -> Option<BackendSlot> {
    options
        .canary(headers, worker.random.next_u32())
        .filter(|slot| has_endpoints(context, *slot))
}

/// Could a backend take a request? A name may turn out to be nothing.
pub(super) fn has_endpoints(context: &RequestContext, slot: BackendSlot) -> bool {
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
    // A backend that the model does not have has no endpoints either.
    let target = target(context, worker, slot).ok_or(Reason::NoEndpoints)?;
    context.target = Some(target);
    begin_try(context, worker).await
}

/// A backend as the goal of a request.
pub(super) fn target(
    context: &RequestContext,
    worker: &Worker,
    slot: BackendSlot,
) -> Option<Target> {
    let backend = context.table.backend(slot).cloned()?;
    let series = worker.picker.series(slot, &backend, &worker.shared.series);
    Some(Target {
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
    })
}

/// Takes an endpoint for the next try.
pub(crate) async fn begin_try(context: &mut RequestContext, worker: &Worker) -> Result<(), Reason> {
    if deadline::is_over(context) {
        return Err(Reason::RequestTimeout { silent: false });
    }
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
    let (balance, slow_start) = rule(context);
    let mut left = CHOICES;
    let (in_flight, number) = loop {
        let (endpoint, number) = worker
            .picker
            .choose(
                target.slot,
                &target.backend,
                resolved.as_ref(),
                &worker.shared,
                Turn {
                    balance,
                    slow_start,
                    random: &worker.random,
                    wish: wish(context),
                },
                |address| context.tried(address),
            )
            .ok_or(Reason::NoEndpoints)?;
        left -= 1;
        match InFlight::admit(Arc::clone(&endpoint), target.backend.health.clone()) {
            Ok(in_flight) => break (in_flight, number),
            // Somebody else was faster, and the next one may have a place.
            Err(Limit::Endpoint) if left > 0 => {}
            Err(limit) => {
                endpoint.no_place(limit);
                return Err(Reason::Limited(limit));
            }
        }
    };
    in_flight.endpoint().chosen(now);
    if let (Some(session), Some(number)) = (&mut context.session, number) {
        session.number = Some(number);
        session.new = true;
    }
    context.tries.push(Try {
        in_flight,
        began: Instant::now(),
        connected: None,
        reused: false,
        header: None,
        ended: None,
        status: None,
        failed: None,
    });
    Ok(())
}

/// What the request wants of the choice.
fn wish(context: &RequestContext) -> Wish {
    if let Some(session) = &context.session
        && context.stand_in.is_none()
    {
        let route = context.route.as_ref();
        let options = route.and_then(|route| route.options.as_ref());
        let affinity = options.and_then(|options| options.affinity.as_ref());
        return Wish::Session {
            number: session.number,
            // Nobody has been told yet where a new user is.
            loyal: !session.new && affinity.is_some_and(|affinity| !affinity.change_on_failure),
            persistent: affinity.is_some_and(|affinity| affinity.persistent),
        };
    }
    match context.place {
        Some(place) if context.stand_in.is_none() => Wish::Place(place),
        Some(_) | None => Wish::None,
    }
}

/// How an endpoint is chosen where nothing else decides, and in how many milliseconds a new one gets its whole share.
fn rule(context: &RequestContext) -> (Balance, u64) {
    let route = context.route.as_ref();
    let options = route.and_then(|route| route.options.as_ref());
    options.map_or_else(Default::default, |options| {
        (options.balance, options.slow_start)
    })
}

/// How to talk to the endpoint of the current try.
pub(crate) fn upstream(context: &RequestContext) -> Result<Upstream, Reason> {
    let target = context.target.as_ref().ok_or(Reason::Internal)?;
    let attempt = context.tries.last().ok_or(Reason::Internal)?;
    let timeouts = timeouts(context.route.as_ref());
    let connect = seconds(timeouts.connect);
    let until = deadline::of(context);
    let cut = |time| until.map_or(time, |until| until.cut(time, attempt.began));
    let tls = tls(context, target.protocol);
    let name = tls.as_ref().and_then(|tls| tls.name.as_deref());
    let server_name = match target.protocol {
        BackendProtocol::Https => server_name(&target.backend, name),
        BackendProtocol::Http1 | BackendProtocol::H2c | BackendProtocol::Auto => String::new(),
    };
    Ok(Upstream {
        address: attempt.address(),
        suspect: attempt.in_flight.endpoint().is_suspect(),
        era: attempt.in_flight.endpoint().era(),
        protocol: target.protocol,
        tls,
        server_name,
        connect: cut(connect),
        // One for TCP and one for TLS, as in nginx.
        connect_tls: cut(connect * 2),
        read: seconds(timeouts.read),
        send: seconds(timeouts.send),
    })
}

/// What the route says about TLS to its own backends.
fn tls(context: &RequestContext, protocol: BackendProtocol) -> Option<Arc<BackendTls>> {
    if protocol != BackendProtocol::Https || context.stand_in.is_some() {
        return None;
    }
    let mut filters = context.route.as_ref()?.filters.iter();
    filters.find_map(|filter| {
        if let CompiledFilter::BackendTls(tls) = filter {
            return Some(Arc::clone(tls));
        }
        None
    })
}

fn timeouts(route: Option<&Arc<CompiledRoute>>) -> Timeouts {
    route.map_or_else(Timeouts::default, |route| route.timeouts)
}

/// Zero would fail at once, which nobody means.
fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds.max(1)))
}
