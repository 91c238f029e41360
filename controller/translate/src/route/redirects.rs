//! Routes that lead elsewhere, for paths and hosts that no rule has.

use model::{
    Action, Filter, HostPattern, ListenerSelector, NormalPath, Origin, PathMatch, RareOptions,
    Redirect, Route, RouteMatch, Timeouts,
};

use super::open_without_tls;
use crate::configmap::Globals;
use crate::ingress::{Entry, PathPart};

/// The route that sends `/` elsewhere.
pub(crate) fn app_root(
    entry: &Entry,
    certificate: Option<Filter>,
    globals: &Globals,
) -> Option<Route> {
    let routing = entry.annotations.routing.as_ref()?;
    let path = routing.app_root.as_ref()?;
    if entry.annotations.closed.is_some() {
        return None;
    }
    let redirect = Redirect {
        status: 302,
        path: Some(path.clone()),
        ..Redirect::default()
    };
    let path = PathMatch::Exact(NormalPath::parse("/").ok()?);
    let mut route = redirecting(path, redirect, entry, globals);
    route.filters.extend(certificate);
    open_without_tls(&mut route.filters);
    Some(route)
}

/// The route that sends everything to another host.
pub(crate) fn to_host(of: &HostPattern, owner: &Entry, globals: &Globals) -> Route {
    let redirect = Redirect {
        status: globals.redirect_status,
        host: Some(of.to_string()),
        ..Redirect::default()
    };
    redirecting(PathMatch::everything(), redirect, owner, globals)
}

/// The route that sends a path to the same with a slash at its end, as nginx does for locations that end with one.
pub(crate) fn with_slash(
    entry: &Entry,
    path: &PathPart,
    certificate: Option<Filter>,
    globals: &Globals,
) -> Option<Route> {
    let (PathMatch::Exact(full) | PathMatch::Prefix(full)) = &path.path else {
        return None;
    };
    let bare = full
        .as_str()
        .strip_suffix('/')
        .filter(|bare| !bare.is_empty())?;
    let redirect = Redirect {
        status: 301,
        path: Some(full.as_str().to_owned()),
        keeps_query: true,
        ..Redirect::default()
    };
    let bare = PathMatch::Exact(NormalPath::parse(bare).ok()?);
    let mut route = redirecting(bare, redirect, entry, globals);
    route.filters.extend(certificate);
    open_without_tls(&mut route.filters);
    Some(Route {
        origin: Origin::shared(&entry.object, &path.field),
        ..route
    })
}

fn redirecting(path: PathMatch, redirect: Redirect, owner: &Entry, globals: &Globals) -> Route {
    let refusals: Vec<_> = globals.access.refusals().into_iter().collect();
    Route {
        matches: RouteMatch::path(path),
        listeners: ListenerSelector::All,
        filters: refusals.into(),
        action: Action::Redirect(Box::new(redirect)),
        timeouts: Timeouts::default(),
        body_limit: None,
        options: RareOptions::default(),
        origin: Origin::shared(&owner.object, &"metadata.annotations".into()),
    }
}
