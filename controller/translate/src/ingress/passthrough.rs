//! `ssl-passthrough`: hosts whose TLS connections are passed on unread.
//!
//! The oldest Ingress that has a host, by a rule or by `spec.tls`, decides for all of it, as about its certificates.
//! Whoever asks for the annotation wants nobody to read on the way: where the wish cannot be granted, the routes are
//! closed instead of being served with TLS that ends here.

use std::sync::Arc;

use model::{BackendId, HostPattern, ListenerName, ListenerSelector, PathMatch, Route};

use super::{Entry, HostPart, PathPart, Target};
use crate::Problem;
use crate::annotation::Annotations;
use crate::conflict::Losers;
use crate::report::Reason;
use crate::settings::Settings;

/// Why routes are closed.
const CLOSED: &str = "ssl-passthrough";

/// Closes the routes of an Ingress that asks for what is not switched on.
pub(crate) fn read(
    annotations: &mut Annotations,
    settings: &Settings,
    problems: &mut Vec<Problem>,
) {
    if annotations.is_canary() {
        // It takes part in what another Ingress serves.
        annotations.passthrough = false;
    }
    if !annotations.passthrough {
        return;
    }
    if let Some(guard) = guard(annotations) {
        annotations.closed.get_or_insert("unsupported-annotation");
        problems.push(Problem::error(
            Reason::UnsupportedAnnotation,
            "metadata.annotations",
            &format!(
                "with `ssl-passthrough` there is nobody who could apply {guard}; the routes of this Ingress answer 503 rather than without it"
            ),
        ));
    }
    if settings.ssl_passthrough {
        if let Some(routing) = &mut annotations.routing
            && (routing.www || !routing.aliases.is_empty())
        {
            // Under another name the connections would end here.
            routing.www = false;
            routing.aliases.clear();
            problems.push(Problem::warning(
                Reason::UnsupportedAnnotation,
                "metadata.annotations",
                "`server-alias` and `from-to-www-redirect` have no effect with `ssl-passthrough`: only the hosts of the rules are passed on",
            ));
        }
        return;
    }
    annotations.passthrough = false;
    annotations.closed.get_or_insert("unsupported-annotation");
    problems.push(Problem::error(
        Reason::UnsupportedAnnotation,
        "metadata.annotations",
        "`ssl-passthrough` has no effect without the flag `--enable-ssl-passthrough`; the routes of this Ingress answer 503 rather than with TLS that ends at the gateway",
    ));
}

/// What annotations or policies ask for that decides about single requests: somebody would have to read them.
fn guard(annotations: &Annotations) -> Option<&'static str> {
    if let Some(access) = annotations.access.as_deref() {
        let lists = [&access.allow, &access.whitelist, &access.deny];
        if lists.iter().any(|list| list.is_some()) {
            return Some("an address list");
        }
        if access.basic || access.secret.is_some() {
            return Some("a password");
        }
        if access.external.url.is_some() || access.external.is_half() {
            return Some("what another server says");
        }
        if access.per_second > 0 || access.per_minute > 0 || access.concurrent > 0 {
            return Some("a limit");
        }
    }
    let clients = annotations.clients.as_deref();
    if clients.is_some_and(|clients| clients.secret.is_some() || clients.broken) {
        return Some("what is asked of clients");
    }
    let policy = annotations.policy.as_deref();
    policy
        .is_some_and(|policy| !policy.deny.is_empty())
        .then_some("what a policy refuses")
}

/// Where the connections for a host go, if its owner wants them to be passed on: to the backend of path `/`.
pub(crate) fn backend<'a>(owner: &'a Entry, host: &HostPattern) -> Option<&'a BackendId> {
    if !owner.annotations.passthrough || *host == HostPattern::Any {
        return None;
    }
    let part = owner.hosts.get(host)?;
    match &root(part)?.target {
        Target::Backend(id) => Some(id),
        Target::Unavailable(_) => None,
    }
}

/// Are the connections for a host passed on? Plain HTTP goes to https then, too: there is TLS, whoever ends it.
pub(crate) fn is_passed_on(owner: Option<&Entry>, host: &HostPattern) -> bool {
    owner.is_some_and(|owner| backend(owner, host).is_some())
}

/// The field that names the backend.
pub(crate) fn field(owner: &Entry, host: &HostPattern) -> Arc<str> {
    let part = owner.hosts.get(host).and_then(root);
    part.map_or_else(Arc::default, |path| Arc::clone(&path.field))
}

fn root(part: &HostPart) -> Option<&PathPart> {
    let is_root = |path: &&PathPart| match &path.path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) => path.as_str() == "/",
        PathMatch::Regex(_) => false,
    };
    part.paths.iter().find(is_root).or(part.default.as_ref())
}

/// What an Ingress gets on a host of which `owner` decides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Share {
    /// It did not ask.
    Usual,
    /// Its connections are passed on; its routes are for plain HTTP.
    PassedOn,
    /// It asked in vain.
    Closed,
}

impl Share {
    /// The share of an Ingress.
    pub(crate) fn of(entry: &Entry, owner: Option<&Entry>, host: &HostPattern) -> Self {
        if !entry.annotations.passthrough {
            return Self::Usual;
        }
        let owns = owner.is_some_and(|owner| owner.rank == entry.rank);
        if owns && backend(entry, host).is_some() {
            Self::PassedOn
        } else {
            Self::Closed
        }
    }

    /// Why the routes are closed, if they are.
    pub(crate) fn closed(self) -> Option<&'static str> {
        (self == Self::Closed).then_some(CLOSED)
    }

    /// Keeps a route to where it may be.
    pub(crate) fn restrict(self, mut route: Route) -> Route {
        if self == Self::PassedOn {
            // The only plain one: what comes over TLS that ends here, under another name, is not for it.
            route.listeners = ListenerSelector::Only([ListenerName::http()].into());
        }
        route
    }

    /// The same for a route that answers by itself: where the others are closed there is none.
    pub(crate) fn admit(self, route: Route) -> Option<Route> {
        (self != Self::Closed).then(|| self.restrict(route))
    }
}

/// Tells an Ingress what it does not get on a host.
pub(crate) fn tell(entry: &Entry, owner: Option<&Entry>, host: &HostPattern, losers: &mut Losers) {
    let Some(owner) = owner else {
        return;
    };
    if entry.annotations.closed.is_some() {
        // Its owner has been told why.
        return;
    }
    let owns = owner.rank == entry.rank;
    let share = Share::of(entry, Some(owner), host);
    let mut problems = Vec::new();
    let closed =
        "the routes of this Ingress answer 503 there rather than with TLS that ends at the gateway";
    if share == Share::Closed && *host == HostPattern::Any {
        let text = format!(
            "`ssl-passthrough` needs a host, by which connections are told apart; {closed}"
        );
        problems.push(Problem::error(
            Reason::UnsupportedAnnotation,
            "spec.rules",
            &text,
        ));
    } else if share == Share::Closed && owns {
        let text =
            format!("`ssl-passthrough` needs path `/` with a backend on host `{host}`; {closed}");
        problems.push(Problem::error(
            Reason::UnsupportedAnnotation,
            "spec.rules",
            &text,
        ));
    } else if share == Share::Closed {
        let text = format!(
            "Ingress {}, which {}, has host `{host}` and decides about its TLS; `ssl-passthrough` is not applied there, and {closed}",
            owner.rank.name,
            owner.rank.precedence_over(&entry.rank)
        );
        problems.push(Problem::error(
            Reason::TlsConflict,
            "metadata.annotations",
            &text,
        ));
    } else if share == Share::Usual && backend(owner, host).is_some() {
        let text = format!(
            "Ingress {}, which {}, has the TLS connections for host `{host}` passed on unread; the paths of this Ingress are reached there by plain HTTP only",
            owner.rank.name,
            owner.rank.precedence_over(&entry.rank)
        );
        problems.push(Problem::error(Reason::TlsConflict, "spec.rules", &text));
    } else if share == Share::PassedOn {
        let parts = entry.hosts.get(host).map(|part| part.paths.as_slice());
        let chosen = field(entry, host);
        for path in parts
            .unwrap_or_default()
            .iter()
            .filter(|path| path.field != chosen)
        {
            let text = format!(
                "the TLS connections for host `{host}` all go to the backend of path `/`; this path is reached by plain HTTP only"
            );
            problems.push(Problem::warning(
                Reason::UnsupportedAnnotation,
                &path.field,
                &text,
            ));
        }
    }
    if !problems.is_empty() {
        losers
            .entry(entry.rank.name.clone())
            .or_default()
            .extend(problems);
    }
}
