//! What the model's documentation says, read plainly: every route is looked at, nothing is prepared.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BTreeMap;

use model::{
    Action, CertificateId, Filter, HostPattern, ListenerSelector, NormalPath, PathMatch, Route,
    RouteMatch, RoutingModel, TextMatch, TlsHost, WildcardDepth,
};
use regex::Regex;

use crate::generate::{self, Request};

/// The most specific pattern that matches `host`.
pub(crate) fn best<'a>(
    patterns: impl Iterator<Item = &'a HostPattern>,
    host: &str,
) -> Option<&'a HostPattern> {
    patterns
        .filter(|pattern| pattern.matches(host))
        .max_by_key(|pattern| match pattern {
            HostPattern::Exact(_) => (2, 0, false),
            HostPattern::Wildcard { suffix, depth } => {
                (1, suffix.as_str().len(), *depth == WildcardDepth::One)
            }
            HostPattern::Any => (0, 0, false),
        })
}

/// The host and the route that take `request`.
pub(crate) fn route_for<'a>(
    model: &'a RoutingModel,
    request: &Request,
) -> Option<(&'a HostPattern, &'a Route)> {
    let pattern = best(model.hosts.keys(), &request.host)?;
    let mut winner: Option<&Route> = None;
    for route in &model.hosts[pattern].routes {
        let better = winner.is_none_or(|other| rank(&route.matches) < rank(&other.matches));
        if better && takes(route, request) {
            winner = Some(route);
        }
    }
    winner.map(|route| (pattern, route))
}

/// Smaller is more specific.
pub(crate) fn rank(matches: &RouteMatch) -> impl Ord + use<> {
    let (kind, length) = match &matches.path {
        PathMatch::Exact(path) => (0, path.as_str().len()),
        PathMatch::Prefix(path) => (1, path.as_str().len()),
        PathMatch::Regex(text) => (2, text.len()),
    };
    (
        kind,
        Reverse(length),
        matches.method.is_none(),
        Reverse(matches.headers.len()),
        Reverse(matches.query.len()),
    )
}

fn takes(route: &Route, request: &Request) -> bool {
    let RouteMatch {
        path,
        method,
        headers,
        query,
    } = &route.matches;
    // A condition that makes no sense takes the route out, even if another one fails first.
    let sensible = headers
        .iter()
        .all(|header| !header.name.contains(' ') && text_holds(&header.value, "").is_some())
        && query
            .iter()
            .all(|query| text_holds(&query.value, "").is_some());
    let listener = match &route.listeners {
        ListenerSelector::All => true,
        ListenerSelector::Only(names) => names.contains(&request.listener),
    };
    sensible
        && listener
        && path_holds(path, &request.path)
        && method
            .as_deref()
            .is_none_or(|method| method == request.method.as_str())
        && headers.iter().all(|header| {
            let values: Vec<_> = request
                .headers
                .get_all(&header.name)
                .iter()
                .map(|value| value.to_str().unwrap())
                .collect();
            !values.is_empty() && text_holds(&header.value, &values.join(",")) == Some(true)
        })
        && query.iter().all(|wanted| {
            let pairs: Vec<_> = request
                .query
                .iter()
                .flat_map(|query| query.split('&'))
                .collect();
            let first = pairs.into_iter().find_map(|pair| {
                if pair == wanted.name {
                    return Some("");
                }
                pair.strip_prefix(&wanted.name)?.strip_prefix('=')
            });
            first.is_some_and(|value| text_holds(&wanted.value, value) == Some(true))
        })
}

fn path_holds(wanted: &PathMatch, path: &str) -> bool {
    match wanted {
        PathMatch::Exact(exact) => exact.as_str() == path,
        PathMatch::Prefix(prefix) => elements(path).starts_with(&elements(prefix.as_str())),
        PathMatch::Regex(text) => regex_holds(text, "", path) == Some(true),
    }
}

fn elements(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty()).collect()
}

/// Nothing when the expression is broken.
fn text_holds(wanted: &TextMatch, text: &str) -> Option<bool> {
    match wanted {
        TextMatch::Exact(exact) => Some(exact == text),
        TextMatch::Regex(pattern) => regex_holds(pattern, "$", text),
    }
}

/// Nothing when the expression is broken. Compiled once: that takes far longer than to match.
fn regex_holds(pattern: &str, end: &'static str, text: &str) -> Option<bool> {
    thread_local! {
        static COMPILED: RefCell<BTreeMap<(String, &'static str), Option<Regex>>> = RefCell::default();
    }
    COMPILED.with_borrow_mut(|compiled| {
        let regex = compiled
            .entry((pattern.to_owned(), end))
            .or_insert_with(|| {
                // By itself first: the group must not mend it.
                Regex::new(pattern).ok()?;
                Regex::new(&format!("^(?:{pattern}){end}")).ok()
            });
        Some(regex.as_ref()?.is_match(text))
    })
}

/// Can its action and its filters be carried out? The generator makes few kinds of fault.
pub(crate) fn is_sound(route: &Route) -> bool {
    let action = match &route.action {
        Action::Forward(_) => true,
        Action::Redirect(redirect) => redirect.status == 302,
        Action::Respond { status, .. } => (200..600).contains(status),
    };
    action
        && route.filters.iter().all(|filter| match filter {
            Filter::RequestHeaders(change) => !change.remove.iter().any(|name| name.contains(' ')),
            Filter::Access(_)
            | Filter::ClientCertificate(_)
            | Filter::Deny(_)
            | Filter::PathRules(_)
            | Filter::BackendTls(_)
            | Filter::Pace(_)
            | Filter::HttpsRedirect(_)
            | Filter::Hsts(_)
            | Filter::ResponseHeaders(_)
            | Filter::Cors(_)
            | Filter::Rewrite(_)
            | Filter::UpstreamHost(_)
            | Filter::ResponseRewrite(_) => true,
        })
}

/// The entry that answers for a server name, as (its pattern, what was asked for).
pub(crate) fn tls_for<'a>(
    model: &'a RoutingModel,
    name: Option<&str>,
) -> Option<(Option<&'a HostPattern>, &'a TlsHost)> {
    let pattern = match name {
        Some(name) => best(model.tls_hosts.keys(), name),
        None => model.tls_hosts.keys().find(|key| **key == HostPattern::Any),
    };
    let host = match pattern {
        Some(pattern) => &model.tls_hosts[pattern],
        None => model.default_tls.as_ref()?,
    };
    let possible = host.policy.cipher_suites.is_empty() && !certificates(model, host).is_empty();
    possible.then_some((pattern, host))
}

/// The certificates that serve for `host`.
pub(crate) fn certificates<'a>(
    model: &'a RoutingModel,
    host: &'a TlsHost,
) -> Vec<&'a CertificateId> {
    let usable = |host: &'a TlsHost| -> Vec<_> {
        let good = |id: &&CertificateId| {
            let certificate = model.certificates.get(id);
            certificate.is_some_and(|certificate| generate::is_good(certificate))
        };
        host.certificates.iter().filter(good).collect()
    };
    let own = usable(host);
    match &model.default_tls {
        Some(default) if own.is_empty() => usable(default),
        _ => own,
    }
}

/// Kept so that a normal path is what requests have.
pub(crate) fn normal(path: &str) -> String {
    NormalPath::parse(path).unwrap().as_str().to_owned()
}
