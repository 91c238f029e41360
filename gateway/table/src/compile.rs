//! Models to tables, from nothing and from the table before.

use std::sync::Arc;

use model::{Changes, HostPattern, PathMatch, Route, RoutingModel, VirtualHost};

use crate::access::Accesses;
use crate::backends::{BackendSlot, Backends};
use crate::filters::Common;
use crate::hosts::{self, HostMap, Patterned};
use crate::listeners::Listeners;
use crate::log_format::CompiledLogFormat;
use crate::paths::{Paths, Rule, Specificity};
use crate::pattern::Patterns;
use crate::reject::{Part, Reject, Rejects};
use crate::route::{CompiledRoute, compile_route};
use crate::streams::CompiledStreams;
use crate::text::Text;
use crate::tls::Tls;
use crate::{Compiled, Table};

/// A virtual host, compiled. A lookup reads `key` and `paths`, which lie in it as far as possible.
pub(crate) struct CompiledHost {
    key: Text,
    pub(crate) paths: Paths,
    pattern: HostPattern,
    pub(crate) source: Arc<VirtualHost>,
    /// One for each target of its routes.
    acquired: Vec<BackendSlot>,
}

impl Patterned for CompiledHost {
    fn pattern(&self) -> &HostPattern {
        &self.pattern
    }

    fn key(&self) -> &Text {
        &self.key
    }
}

/// The route for requests that no host takes.
#[derive(Clone)]
pub(crate) struct Fallback {
    pub(crate) source: Arc<Route>,
    pub(crate) route: Arc<CompiledRoute>,
    acquired: Arc<[BackendSlot]>,
}

/// Compiles `model` from nothing. There is always a table: what it cannot hold is left out and reported.
///
/// From nothing also means with new ticket keys: a process that serves goes on with [`recompile`], which keeps them.
pub fn compile(model: &RoutingModel) -> Compiled {
    let mut changes = Changes::between(&RoutingModel::default(), model);
    changes.globals = true;
    recompile(&empty(), model, &changes)
}

/// Compiles what `changes` names and shares everything else with `previous`.
///
/// The result equals that of [`compile`] when `changes` names everything in which `model` differs from the model of
/// `previous`. The work depends on the changes and on what refers to them, not on the size of the model.
pub fn recompile(previous: &Table, model: &RoutingModel, changes: &Changes) -> Compiled {
    let mut table = previous.successor();
    for id in changes.backends.union(&changes.endpoints) {
        table.backends.update(id, model);
    }
    if changes.globals {
        update_globals(&mut table, model);
    }
    if changes.streams {
        let streams = CompiledStreams::compile(model, &mut table.backends);
        let before = std::mem::replace(&mut table.streams, Arc::new(streams));
        // The new ones first, so that a backend of both keeps its slot.
        before.release(&mut table.backends);
    }
    // All routes know their listeners by number.
    if table.listeners == previous.listeners {
        for pattern in &changes.hosts {
            update_host(&mut table, pattern, model.hosts.get(pattern));
        }
    } else {
        let gone = changes
            .hosts
            .iter()
            .filter(|pattern| !model.hosts.contains_key(pattern));
        for pattern in gone.chain(model.hosts.keys()) {
            update_host(&mut table, pattern, model.hosts.get(pattern));
        }
    }
    table.tls.update(model, changes, &mut table.rejects);
    let rejects = table.rejects.all();
    Compiled { table, rejects }
}

fn empty() -> Table {
    Table {
        generation: 0,
        listeners: Listeners::default(),
        hosts: HostMap::new(),
        fallback: None,
        backends: Backends::new(),
        patterns: Patterns::new(),
        common: Common::default(),
        tls: Tls::new(),
        trust: Arc::default(),
        client_bounds: Arc::default(),
        streams: Arc::default(),
        log_format: None,
        rejects: Rejects::default(),
    }
}

fn update_globals(table: &mut Table, model: &RoutingModel) {
    let (listeners, rejects) = Listeners::compile(model);
    table.listeners = listeners;
    table.rejects.set(Part::Listeners, rejects);
    if *table.trust != model.trust {
        table.trust = Arc::new(model.trust.clone());
    }
    let format = table.log_format.as_ref().map(|format| &format.source);
    if format != model.log_format.as_ref() {
        let source = model.log_format.as_ref();
        table.log_format =
            source.map(|source| Arc::new(CompiledLogFormat::new(Arc::clone(source))));
    }
    if *table.client_bounds != model.client_bounds {
        table.client_bounds = Arc::new(model.client_bounds);
    }

    let mut rejects = Vec::new();
    let fallback = model.fallback.as_ref().map(|source| {
        let mut acquired = Vec::new();
        let route = compile_route(
            &HostPattern::Any,
            (source, None),
            &mut table.backends,
            &mut table.patterns,
            &mut acquired,
            &mut Accesses::new(),
            &mut rejects,
        );
        Fallback {
            source: Arc::clone(source),
            route: Arc::new(CompiledRoute {
                path: PathMatch::everything(),
                ..route
            }),
            acquired: acquired.into(),
        }
    });
    table.rejects.set(Part::Fallback, rejects);
    // The new one first, so that a backend of both keeps its slot.
    let before = std::mem::replace(&mut table.fallback, fallback);
    for slot in before.iter().flat_map(|fallback| &*fallback.acquired) {
        table.backends.release(*slot);
    }
}

fn update_host(table: &mut Table, pattern: &HostPattern, source: Option<&Arc<VirtualHost>>) {
    let mut rejects = Vec::new();
    let before = match source {
        Some(source) => {
            let host = compile_host(table, pattern, source, &mut rejects);
            table.hosts.insert(Arc::new(host))
        }
        None => table.hosts.remove(pattern),
    };
    // The new one first, so that a backend of both keeps its slot.
    for slot in before.iter().flat_map(|host| &host.acquired) {
        table.backends.release(*slot);
    }
    table.rejects.set(Part::Host(pattern.clone()), rejects);
}

fn compile_host(
    table: &mut Table,
    pattern: &HostPattern,
    source: &Arc<VirtualHost>,
    rejects: &mut Vec<Reject>,
) -> CompiledHost {
    let mut acquired = Vec::new();
    let mut accesses = Accesses::new();
    let mut rules = Vec::with_capacity(source.routes.len());
    for (position, route) in source.routes.iter().enumerate() {
        let (listeners, unknown) = table.listeners.select(&route.listeners);
        rejects.extend(unknown.into_iter().map(|name| Reject {
            origin: route.origin.clone(),
            reason: format!("there is no listener `{name}`; this route is not served there"),
        }));
        let mut faults = Vec::new();
        let known = table.common.get(&route.filters);
        let rule = Rule::compile(
            &route.matches,
            position,
            listeners,
            &mut table.patterns,
            |patterns| {
                let backends = &mut table.backends;
                compile_route(
                    pattern,
                    (route, known),
                    backends,
                    patterns,
                    &mut acquired,
                    &mut accesses,
                    &mut faults,
                )
            },
        );
        rejects.append(&mut faults);
        match rule {
            Ok(rule) => {
                let compiled = &rule.route.filters;
                table.common.remember(&route.filters, compiled);
                rules.push((Specificity::of(&route.matches, position), rule));
            }
            Err(fault) => rejects.push(Reject {
                origin: route.origin.clone(),
                reason: format!("{fault}; this route is not served"),
            }),
        }
    }
    CompiledHost {
        key: hosts::key(pattern),
        pattern: pattern.clone(),
        source: Arc::clone(source),
        paths: Paths::new(rules),
        acquired,
    }
}
