//! Random models and random edits: compiling what changed equals compiling everything, and a lookup finds what a
//! plain reading of the model's documentation finds.
//!
//! 500 cases by default; `LOCKGATE_PROPTEST_CASES` or `PROPTEST_CASES` asks for more.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

#[path = "../common/mod.rs"]
mod common;
mod generate;
mod reference;

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Action, Changes, Route, RoutingModel, VirtualHost};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError};
use table::{CompiledAction, INVALID_ROUTE, Lookup, Table, compile, recompile};

use crate::generate::{Request, apply, edits, noise, requests, shuffles};
use crate::reference::{best, certificates, is_sound, rank, route_for, tls_for};

fn config() -> Config {
    let mut config = Config::default(); // reads PROPTEST_CASES
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 500;
    }
    if let Ok(cases) = std::env::var("LOCKGATE_PROPTEST_CASES") {
        config.cases = cases.parse().unwrap();
    }
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn compiling_the_changes_equals_compiling_everything(
        start in edits(0..24),
        batches in prop::collection::vec((edits(1..5), noise()), 1..8),
    ) {
        let mut model = RoutingModel::default();
        let mut count = 0;
        apply(&mut model, &start, &mut count);
        let mut table = compile(&model).table;
        for (batch, noise) in &batches {
            let before = model.clone();
            apply(&mut model, batch, &mut count);
            let mut changes = Changes::between(&before, &model);
            changes.extend(noise.clone());
            let incremental = recompile(&table, &model, &changes);
            let whole = compile(&model);
            prop_assert_eq!(incremental.table.describe(), whole.table.describe());
            prop_assert_eq!(incremental.rejects, whole.rejects);
            check_shared(&table, &incremental.table, &model, &changes)?;
            table = incremental.table;
        }
        check_tls(&table, &model)?;
    }

    #[test]
    fn lookups_agree_with_the_documentation(
        start in edits(0..24),
        more in edits(0..12),
        requests in requests(),
    ) {
        let mut model = RoutingModel::default();
        let mut count = 0;
        apply(&mut model, &start, &mut count);
        let first = compile(&model).table;
        let before = model.clone();
        apply(&mut model, &more, &mut count);
        let changed = recompile(&first, &model, &Changes::between(&before, &model)).table;
        for request in &requests {
            check_lookup(&first, &before, request)?;
            check_lookup(&changed, &model, request)?;
        }
        check_tls(&first, &before)?;
    }

    #[test]
    fn only_the_order_of_equal_routes_matters(
        start in edits(0..24),
        requests in requests(),
        shuffles in shuffles(),
    ) {
        let mut model = RoutingModel::default();
        apply(&mut model, &start, &mut 0);
        let mut shuffled = model.clone();
        for host in shuffled.hosts.values_mut() {
            let routes = shuffle(&host.routes, &shuffles);
            *host = Arc::new(VirtualHost { routes });
        }
        let tables = [compile(&model).table, compile(&shuffled).table];
        for request in &requests {
            let [one, other] = tables.each_ref().map(|table| {
                let route = find(table, request)?;
                Some(route.origin.field.clone())
            });
            prop_assert_eq!(one, other);
        }
    }
}

/// Moves routes about, but those of equal rank keep their order.
fn shuffle(routes: &[Route], keys: &[u32]) -> Vec<Route> {
    let mut order: Vec<usize> = (0..routes.len()).collect();
    order.sort_by_key(|place| keys[*place % keys.len()]);
    let mut equals: BTreeMap<_, Vec<&Route>> = BTreeMap::new();
    for route in routes.iter().rev() {
        equals.entry(rank(&route.matches)).or_default().push(route);
    }
    order
        .into_iter()
        .map(|place| {
            let queue = equals.get_mut(&rank(&routes[place].matches)).unwrap();
            queue.pop().unwrap().clone()
        })
        .collect()
}

fn find<'a>(table: &'a Table, request: &Request) -> Option<&'a table::CompiledRoute> {
    let lookup = Lookup {
        listener: table.listener(&request.listener)?,
        host: &request.host,
        path: &request.path,
        query: request.query.as_deref(),
        method: &request.method,
        headers: &request.headers,
    };
    table.lookup(&lookup).map(|route| &**route)
}

fn check_lookup(
    table: &Table,
    model: &RoutingModel,
    request: &Request,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(
        table.listener(&request.listener).is_some(),
        model.listeners.contains_key(&request.listener)
    );
    if !model.listeners.contains_key(&request.listener) {
        return Ok(());
    }
    let found = find(table, request);
    let want = route_for(model, request);
    prop_assert_eq!(
        found.map(|route| (&route.host, &route.origin)),
        want.map(|(pattern, route)| (pattern, &route.origin)),
        "{:?}",
        request
    );
    let (Some(found), Some((_, want))) = (found, want) else {
        return Ok(());
    };
    prop_assert_eq!(found.timeouts, want.timeouts);
    if !is_sound(want) {
        let closed = matches!(
            &found.action,
            CompiledAction::Respond { status, reason }
                if status.as_u16() == 503 && &**reason == INVALID_ROUTE
        );
        prop_assert!(closed, "{:?}", found.action);
        return Ok(());
    }
    prop_assert_eq!(found.filters.len(), want.filters.len());
    match (&found.action, &want.action) {
        (CompiledAction::Forward(found), Action::Forward(want)) => {
            let found: Vec<_> = found
                .iter()
                .map(|(slot, weight)| (table.backend(slot).map(|backend| &backend.id), weight))
                .collect();
            let want: Vec<_> = want
                .iter()
                .map(|target| {
                    let id = &target.backend;
                    let known = model.backends.contains_key(id) || model.endpoints.contains_key(id);
                    (known.then_some(id), target.weight)
                })
                .collect();
            prop_assert_eq!(found, want);
        }
        (CompiledAction::Redirect(found), Action::Redirect(want)) => {
            prop_assert_eq!(found, want);
        }
        (CompiledAction::Respond { status, .. }, Action::Respond { status: want, .. }) => {
            prop_assert_eq!(status.as_u16(), *want);
        }
        (found, want) => prop_assert!(false, "{:?} for {:?}", found, want),
    }
    Ok(())
}

fn check_tls(table: &Table, model: &RoutingModel) -> Result<(), TestCaseError> {
    for name in generate::HOSTS.iter().copied().map(Some).chain([None]) {
        let found = table.tls(name);
        let want = tls_for(model, name);
        prop_assert_eq!(
            found.map(|entry| entry.pattern.as_ref()),
            want.map(|(pattern, _)| pattern),
            "{:?}",
            name
        );
        if let (Some(found), Some((_, want))) = (found, want) {
            let h2 = found.config.alpn_protocols.contains(&b"h2".to_vec());
            prop_assert_eq!(h2, want.policy.http2);
        }
    }
    for name in &generate::HOSTS {
        let passed = &model.streams.hosts;
        let all = model.hosts.keys().chain(model.tls_hosts.keys());
        let want = best(all.chain(passed.keys()), name).filter(|best| passed.contains_key(*best));
        let found = table.passed_on(name);
        prop_assert_eq!(found.and_then(|stream| stream.host.as_ref()), want);
        let backend = want.map(|pattern| &passed[pattern].backend);
        prop_assert_eq!(found.map(|stream| &stream.backend), backend);
    }
    let description = table.describe();
    for (pattern, host) in &model.tls_hosts {
        let got = &description.tls[pattern].certificates;
        let got: Vec<_> = got.iter().map(|(id, _)| id).collect();
        prop_assert_eq!(got, certificates(model, host));
    }
    Ok(())
}

/// What was not changed is not merely equal, it is the same.
fn check_shared(
    before: &Table,
    after: &Table,
    model: &RoutingModel,
    changes: &Changes,
) -> Result<(), TestCaseError> {
    let [earlier, later] = [before, after].map(|table| table.describe().backends);
    for (id, endpoints) in &model.endpoints {
        let named = changes.endpoints.contains(id) || changes.backends.contains(id);
        let want = if named {
            Some(endpoints)
        } else {
            earlier
                .get(id)
                .and_then(Option::as_ref)
                .map(|backend| &backend.endpoints)
        };
        let got = later
            .get(id)
            .and_then(Option::as_ref)
            .map(|backend| &backend.endpoints);
        let shared = got
            .zip(want)
            .is_some_and(|(got, want)| Arc::ptr_eq(got, want));
        prop_assert!(shared, "{id}");
    }
    for name in generate::HOSTS {
        let (Some(old), Some(new)) = (before.tls(Some(name)), after.tls(Some(name))) else {
            continue;
        };
        if changes.tls_hosts.is_empty() && changes.certificates.is_empty() && !changes.globals {
            prop_assert!(Arc::ptr_eq(old, new), "{name}");
        }
    }
    Ok(())
}
