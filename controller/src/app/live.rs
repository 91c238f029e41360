//! What other parts of the process ask a gateway, or tell it, without keeping it alive.

use std::sync::{Arc, OnceLock, Weak};

use futures::FutureExt;
use futures::future::BoxFuture;
use gateway::Running;
use table::Reject;

use super::backend_metrics;
use crate::admin;
use crate::memory::Pressure;
use crate::overview::Endpoint;

/// Asks the gateway, if it is there.
pub(super) fn ask<T>(
    running: &Weak<OnceLock<Running>>,
    question: impl FnOnce(&Running) -> T,
) -> Option<T> {
    running.upgrade()?.get().map(question)
}

/// Reads the live state of endpoints, without keeping the gateway alive.
pub(super) fn endpoints(
    running: &Arc<OnceLock<Running>>,
) -> Box<dyn Fn() -> Vec<Endpoint> + Send + Sync> {
    let running = Arc::downgrade(running);
    Box::new(move || {
        ask(&running, Running::endpoint_state)
            .unwrap_or_default()
            .into_iter()
            .map(|state| Endpoint {
                backend: state.backend,
                address: state.address,
                in_flight: state.in_flight,
                ejected: state.ejected,
                unhealthy: state.unhealthy,
                avoided: state.avoided,
            })
            .collect()
    })
}

/// Writes what is known of backends, at most so many of them, without keeping the gateway alive.
pub(super) fn backend_metrics(running: &Arc<OnceLock<Running>>, most: usize) -> admin::MoreMetrics {
    let running = Arc::downgrade(running);
    Box::new(move |text| {
        let states = ask(&running, Running::backend_state).unwrap_or_default();
        backend_metrics::render(&states, most, text);
    })
}

/// Tells the gateway how short memory is, without keeping it alive.
pub(super) fn press(running: &Arc<OnceLock<Running>>) -> impl Fn(Pressure) + use<> {
    let running = Arc::downgrade(running);
    move |pressure| {
        let pressure = match pressure {
            Pressure::None => gateway::Pressure::None,
            Pressure::Shed => gateway::Pressure::Shed,
            Pressure::Hold => gateway::Pressure::Hold,
        };
        ask(&running, |running| running.press(pressure));
    }
}

/// Opens and closes ports, without keeping the gateway alive.
pub(super) fn port_updates(
    running: &Arc<OnceLock<Running>>,
) -> impl Fn() -> BoxFuture<'static, Vec<Reject>> + use<> {
    let running = Arc::downgrade(running);
    move || {
        let running = running.upgrade();
        async move {
            match running.as_ref().and_then(|running| running.get()) {
                Some(running) => running.update_ports().await,
                None => Vec::new(),
            }
        }
        .boxed()
    }
}
