//! Several Ingresses, one host: who wins, and what the others are told.
//!
//! | what two Ingresses share | what is served |
//! | --- | --- |
//! | a host | the paths of both |
//! | host, path and type | the path of the older one; the younger one is told whose |
//! | a default backend for the rest of a host | that of the older one, and any path `/` of a rule comes before it |
//! | a TLS host, in one namespace | the certificates of both, those of the older one first |
//! | a host for which clients need certificates | what the older one of the host's namespace asks for, see `clients` |
//! | a host, one with `ssl-passthrough` | what the older one asks for, see [`passthrough`] |
//! | a TLS host, in two namespaces | the certificates of the older one's namespace; the younger one is told |
//!
//! "Older" is [`Rank`]: by creation, then by namespace and name.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use model::{
    CertificateId, HostPattern, ObjectRef, Origin, PathMatch, Route, TlsHost, VirtualHost,
};

use crate::NamespacedName;
use crate::Problem;
use crate::Snapshot;
use crate::access;
use crate::clients::{self, Clients};
use crate::configmap::Globals;
use crate::ingress::passthrough::{self, Share};
use crate::ingress::tls::TlsEntry;
use crate::ingress::{Entry, HostPart, PathPart, Rank};
use crate::object::kinds;
use crate::report::Reason;
use crate::route::{self, Place};
use crate::settings::Compat;

/// What those are told who did not get what they asked for.
pub(crate) type Losers = BTreeMap<NamespacedName, Vec<Problem>>;

/// A path that has been given away: to whom, and where its route is.
type Taken<'a> = BTreeMap<&'a PathMatch, (&'a Entry, &'a PathPart, usize)>;

/// Merges what the Ingresses ask for on one host. `entries` are in the order of their rank.
///
/// `tls`: whether some TLS entry covers the host, and who decides about its TLS.
pub(crate) fn host<'a>(
    pattern: &HostPattern,
    entries: &(impl Iterator<Item = &'a Entry> + Clone),
    (has_certificate, owner): (bool, Option<&Entry>),
    globals: &Globals,
    snapshot: &Snapshot,
) -> (VirtualHost, Losers) {
    let mut merged = VirtualHost::default();
    let mut losers = Losers::new();
    let mut taken = Taken::new();
    let all = || {
        entries
            .clone()
            .filter_map(|entry| Some((entry, entry.hosts.get(pattern)?)))
    };
    let parts = || all().filter(|(entry, _)| !entry.annotations.is_canary());
    let asking = parts().map(|(entry, _)| entry);
    let clients = clients_of(pattern, asking, snapshot, &mut losers);
    let guarded = |entry: &Entry, share: Share| {
        share.closed().map_or(Ok(()), Err)?;
        let certificate = clients::filter(entry, clients.as_ref())?;
        let mut filters = access::of(entry, globals, snapshot)?;
        filters.splice(0..0, certificate);
        Ok(filters)
    };
    let regex = parts()
        .filter(|_| globals.compat != Some(Compat::Strict))
        .find_map(|(entry, _)| entry.annotations.wants_regex().then_some(entry));
    let place = Place {
        has_certificate: has_certificate || passthrough::is_passed_on(owner, pattern),
        regex: regex.is_some(),
        globals,
    };
    for (entry, part) in parts() {
        let share = Share::of(entry, owner, pattern);
        let access = guarded(entry, share);
        passthrough::tell(entry, owner, pattern, &mut losers);
        for path in &part.paths {
            if let Some((winner, other, _)) = taken.get(&path.path) {
                let (winner, field) = (&winner.rank, &*other.field);
                let problem = path_taken(pattern, path, &entry.rank, winner, field);
                lose(&mut losers, entry, problem);
                continue;
            }
            taken.insert(&path.path, (entry, path, merged.routes.len()));
            let route = route::route(entry, path, &access, &place);
            merged.routes.push(share.restrict(route));
        }
    }
    for (entry, part) in parts() {
        let Some(default) = &part.default else {
            continue;
        };
        match taken.get(&default.path) {
            None => {
                taken.insert(&default.path, (entry, default, merged.routes.len()));
                let share = Share::of(entry, owner, pattern);
                let access = guarded(entry, share);
                let route = route::route(entry, default, &access, &place);
                merged.routes.push(share.restrict(route));
            }
            // A rule for `/` leaves nothing over, and that is what its owner wants.
            Some((_, other, _)) if other.field != default.field => {}
            Some((winner, ..)) => {
                lose(
                    &mut losers,
                    entry,
                    Problem::warning(
                        Reason::Conflict,
                        &default.field,
                        &format!(
                            "the default backend of Ingress {}, which {}, answers for host `{pattern}`; this one does not",
                            winner.rank.name,
                            winner.rank.precedence_over(&entry.rank),
                        ),
                    ),
                );
            }
        }
    }
    for (entry, part) in all().filter(|(entry, _)| entry.annotations.is_canary()) {
        canary(pattern, entry, part, &taken, &mut merged, &mut losers);
    }
    if let Some(owner) = regex {
        sort_expressions(&mut merged);
        for (entry, _) in parts().filter(|(entry, _)| !entry.annotations.wants_regex()) {
            lose(&mut losers, entry, regex_host(pattern, owner));
        }
    }
    if regex.is_none() && globals.compat == Some(Compat::Nginx) {
        let paths = parts().flat_map(|(entry, part)| {
            let share = Share::of(entry, owner, pattern);
            part.paths.iter().map(move |path| (entry, path, share))
        });
        complete_slashes(paths, clients.as_ref(), globals, &mut merged);
    }
    let root = parts().find_map(|(entry, _)| {
        let share = Share::of(entry, owner, pattern);
        app_root(entry, clients.as_ref(), globals).and_then(|root| share.admit(root))
    });
    if let Some(root) = root {
        // Before every other route for `/`.
        merged.routes.insert(0, root);
    }
    merged.routes.shrink_to_fit();
    (merged, losers)
}

/// What is asked of the clients of a host, and who is told about it.
fn clients_of<'a>(
    pattern: &HostPattern,
    entries: impl Iterator<Item = &'a Entry> + Clone,
    snapshot: &Snapshot,
    losers: &mut Losers,
) -> Option<Clients<'a>> {
    let clients = clients::of(entries.clone(), snapshot);
    for entry in entries {
        if let Some(problem) = clients::problem(entry, clients.as_ref(), pattern) {
            lose(losers, entry, problem);
        }
    }
    clients
}

/// What an Ingress is told whose path belongs to another one.
fn path_taken(
    pattern: &HostPattern,
    path: &PathPart,
    rank: &Rank,
    winner: &Rank,
    field: &str,
) -> Problem {
    let text = format!(
        "Ingress {}, which {}, has the same host `{pattern}`, path and type in {field}; this path is not served",
        winner.name,
        winner.precedence_over(rank),
    );
    Problem::error(Reason::Conflict, &path.field, &text)
}

fn app_root(entry: &Entry, clients: Option<&Clients<'_>>, globals: &Globals) -> Option<Route> {
    let certificate = clients::filter(entry, clients).ok()?;
    route::app_root(entry, certificate, globals)
}

/// What an Ingress is told whose paths are regular expressions because of another one.
fn regex_host(pattern: &HostPattern, owner: &Entry) -> Problem {
    let text = format!(
        "Ingress {} makes all paths of host `{pattern}` regular expressions without regard to case; `Exact` and `Prefix` mean nothing there",
        owner.rank.name
    );
    Problem::warning(Reason::RegexHost, "spec.rules", &text)
}

/// Sends paths to the same with a slash where only that is there, as nginx does.
fn complete_slashes<'a>(
    paths: impl Iterator<Item = (&'a Entry, &'a PathPart, Share)>,
    clients: Option<&Clients<'_>>,
    globals: &Globals,
    host: &mut VirtualHost,
) {
    for (entry, path, share) in paths.filter(|(entry, ..)| entry.annotations.closed.is_none()) {
        let certificate = clients::filter(entry, clients).ok();
        let slash = certificate.and_then(|wanted| route::with_slash(entry, path, wanted, globals));
        let Some(slash) = slash.and_then(|slash| share.admit(slash)) else {
            continue;
        };
        // The same text as `= /p` and as `/p`.
        let text = slash.matches.path.to_string();
        let same = |route: &Route| {
            let other = route.matches.path.to_string();
            other.trim_start_matches("= ") == text.trim_start_matches("= ")
        };
        if !host.routes.iter().any(same) {
            host.routes.push(slash);
        }
    }
}

/// Of two texts that are equally long the one that comes later in the alphabet is tried first.
fn sort_expressions(host: &mut VirtualHost) {
    host.routes.sort_by_key(|route| {
        let text = route.matches.path.to_string();
        Reverse((text.len(), text))
    });
}

fn lose(losers: &mut Losers, entry: &Entry, problem: Problem) {
    losers
        .entry(entry.rank.name.clone())
        .or_default()
        .push(problem);
}

/// Gives the paths of a canary their share of the routes that they belong to.
fn canary(
    pattern: &HostPattern,
    entry: &Entry,
    part: &HostPart,
    taken: &Taken<'_>,
    merged: &mut VirtualHost,
    losers: &mut Losers,
) {
    for path in part.paths.iter().chain(&part.default) {
        let main = taken.get(&path.path);
        let problem = match main {
            None => "no other Ingress has this host, path and type; this path is not served",
            // Otherwise whoever may write an Ingress could take over every host.
            Some((main, ..)) if main.rank.name.namespace != entry.rank.name.namespace => {
                "the Ingress with this host, path and type is in another namespace; this path gets no requests"
            }
            Some((.., place)) => {
                let canary = route::canary(entry, path);
                if let (Some(route), Some(canary)) = (merged.routes.get_mut(*place), canary) {
                    route.options.canaries.push(canary);
                }
                continue;
            }
        };
        let text = format!("{problem} (host `{pattern}`)");
        lose(
            losers,
            entry,
            Problem::error(Reason::CanaryWithoutMain, &path.field, &text),
        );
    }
}

/// Tells an Ingress that a name of its annotations is somebody else's.
pub(crate) fn alias_lost(pattern: &HostPattern, entry: &Entry, losers: &mut Losers) {
    let text = format!("another Ingress has host `{pattern}`; this one does not answer for it");
    lose(
        losers,
        entry,
        Problem::warning(Reason::Conflict, "metadata.annotations", &text),
    );
}

/// A host that redirects to another one.
pub(crate) fn redirecting_host(of: &HostPattern, owner: &Entry, globals: &Globals) -> VirtualHost {
    VirtualHost {
        routes: vec![route::to_host(of, owner, globals)],
    }
}

/// Merges the TLS entries for one host. `entries` are in the order of their rank. `None` if there are none.
pub(crate) fn tls_host<'a>(
    pattern: &HostPattern,
    entries: impl Iterator<Item = &'a Entry> + Clone,
    globals: &Globals,
) -> (Option<TlsHost>, Losers) {
    let named = entries
        .clone()
        .any(|entry| entry.tls.iter().any(|tls| tls.hosts.contains(pattern)));
    let concerns = |tls: &TlsEntry| {
        let hosts = if named { &tls.hosts } else { &tls.aliases };
        hosts.contains(pattern)
    };
    let mut merged: Option<(TlsHost, &Rank)> = None;
    let mut losers = Losers::new();
    for entry in entries {
        let own = &entry.rank.name;
        for tls in entry.tls.iter().filter(|tls| concerns(tls)) {
            let (host, winner) = merged.get_or_insert_with(|| {
                let object: ObjectRef = own.reference(kinds::INGRESS);
                let host = TlsHost {
                    certificates: Vec::new(),
                    policy: globals.tls.clone(),
                    origin: Origin::new(object, &tls.field),
                };
                (host, &entry.rank)
            });
            if winner.name.namespace != own.namespace {
                losers.entry(own.clone()).or_default().push(Problem::error(
                    Reason::TlsConflict,
                    &tls.field,
                    &format!(
                        "Ingress {} of another namespace, which {}, has the TLS settings of host `{pattern}`; the Secret named here is not used for it",
                        winner.name,
                        winner.precedence_over(&entry.rank),
                    ),
                ));
                continue;
            }
            if let Some(secret) = &tls.secret {
                let id = CertificateId::secret(&secret.namespace, &secret.name);
                if !host.certificates.contains(&id) {
                    host.certificates.push(id);
                }
            }
        }
    }
    (merged.map(|(host, _)| host), losers)
}
