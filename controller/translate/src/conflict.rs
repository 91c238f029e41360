//! Several Ingresses, one host: who wins, and what the others are told.
//!
//! | what two Ingresses share | what is served |
//! | --- | --- |
//! | a host | the paths of both |
//! | host, path and type | the path of the older one; the younger one is told whose |
//! | a default backend for the rest of a host | that of the older one, and any path `/` of a rule comes before it |
//! | a TLS host, in one namespace | the certificates of both, those of the older one first |
//! | a TLS host, in two namespaces | the certificates of the older one's namespace; the younger one is told |
//!
//! "Older" is [`Rank`]: by creation, then by namespace and name.

use std::collections::BTreeMap;

use model::{
    Action, CertificateId, Filter, HeaderChange, HostPattern, HttpsRedirect, ObjectRef, Origin,
    PathMatch, Route, RouteMatch, Timeouts, TlsHost, VirtualHost, WeightedBackend,
};

use crate::NamespacedName;
use crate::Problem;
use crate::access;
use crate::annotation::Annotations;
use crate::configmap::Globals;
use crate::ingress::{Entry, PathPart, Rank, Target};
use crate::object::kinds;
use crate::report::Reason;

/// What those are told who did not get what they asked for.
pub(crate) type Losers = BTreeMap<NamespacedName, Vec<Problem>>;

/// Merges what the Ingresses ask for on one host. `entries` are in the order of their rank.
///
/// `has_certificate`: some TLS entry covers the host.
pub(crate) fn host<'a>(
    pattern: &HostPattern,
    entries: &(impl Iterator<Item = &'a Entry> + Clone),
    has_certificate: bool,
    globals: &Globals,
) -> (VirtualHost, Losers) {
    let mut merged = VirtualHost::default();
    let mut losers = Losers::new();
    let mut taken: BTreeMap<&PathMatch, (&Rank, &PathPart)> = BTreeMap::new();
    let parts = || {
        entries
            .clone()
            .filter_map(|entry| Some((entry, entry.hosts.get(pattern)?)))
    };
    for (entry, part) in parts() {
        let own = &entry.rank.name;
        let access = access::of(entry, globals);
        for path in &part.paths {
            if let Some((winner, other)) = taken.get(&path.path) {
                losers.entry(own.clone()).or_default().push(Problem::error(
                    Reason::Conflict,
                    &path.field,
                    &format!(
                        "Ingress {}, which {}, has the same host `{pattern}`, path and type in {}; this path is not served",
                        winner.name,
                        winner.precedence_over(&entry.rank),
                        other.field
                    ),
                ));
                continue;
            }
            taken.insert(&path.path, (&entry.rank, path));
            merged
                .routes
                .push(route(entry, path, &access, has_certificate, globals));
        }
    }
    for (entry, part) in parts() {
        let own = &entry.rank.name;
        let Some(default) = &part.default else {
            continue;
        };
        match taken.get(&default.path) {
            None => {
                taken.insert(&default.path, (&entry.rank, default));
                let access = access::of(entry, globals);
                merged
                    .routes
                    .push(route(entry, default, &access, has_certificate, globals));
            }
            // A rule for `/` leaves nothing over, and that is what its owner wants.
            Some((_, other)) if other.field != default.field => {}
            Some((winner, _)) => {
                losers.entry(own.clone()).or_default().push(Problem::warning(
                    Reason::Conflict,
                    &default.field,
                    &format!(
                        "the default backend of Ingress {}, which {}, answers for host `{pattern}`; this one does not",
                        winner.name,
                        winner.precedence_over(&entry.rank),
                    ),
                ));
            }
        }
    }
    merged.routes.shrink_to_fit();
    (merged, losers)
}

fn route(
    entry: &Entry,
    path: &PathPart,
    access: &Result<Vec<Filter>, &'static str>,
    has_certificate: bool,
    globals: &Globals,
) -> Route {
    let mut filters = filters(&entry.annotations, has_certificate, globals);
    filters.extend(access.iter().flatten().cloned());
    filters.shrink_to_fit();
    Route {
        matches: RouteMatch::path(path.path.clone()),
        listeners: model::ListenerSelector::All,
        filters,
        action: match (access, &path.target) {
            (Err(reason), _) | (Ok(_), Target::Unavailable(reason)) => Action::Respond {
                status: 503,
                reason: (*reason).to_owned(),
            },
            (Ok(_), Target::Backend(id)) => Action::Forward(vec![WeightedBackend {
                backend: id.clone(),
                weight: 1,
            }]),
        },
        timeouts: Timeouts {
            connect: entry
                .annotations
                .connect_timeout
                .unwrap_or(globals.timeouts.connect),
            read: entry
                .annotations
                .read_timeout
                .unwrap_or(globals.timeouts.read),
            send: entry
                .annotations
                .send_timeout
                .unwrap_or(globals.timeouts.send),
        },
        origin: Origin::new(entry.rank.name.reference(kinds::INGRESS), &path.field),
    }
}

/// Plain HTTP goes to https where the host has a certificate, or where that is forced. `Strict-Transport-Security` goes
/// with every response over TLS, as with ingress-nginx: a client believes it only where it believes the certificate.
pub(crate) fn filters(
    annotations: &Annotations,
    has_certificate: bool,
    globals: &Globals,
) -> Vec<Filter> {
    let mut filters = Vec::new();
    let wanted = annotations.ssl_redirect.unwrap_or(globals.ssl_redirect);
    let forced = annotations
        .force_ssl_redirect
        .unwrap_or(globals.force_ssl_redirect);
    if forced || (wanted && has_certificate) {
        filters.push(Filter::HttpsRedirect(HttpsRedirect {
            status: globals.redirect_status,
            except: globals.redirect_except.clone(),
        }));
    }
    if let Some(hsts) = &globals.hsts {
        filters.push(Filter::Hsts(hsts.clone()));
    }
    if globals.server_tokens {
        filters.push(Filter::ResponseHeaders(HeaderChange {
            set: vec![("Server".to_owned(), "lockgate".to_owned())],
            ..HeaderChange::default()
        }));
    }
    filters.shrink_to_fit();
    filters
}

/// Merges the TLS entries for one host. `entries` are in the order of their rank. `None` if there are none.
pub(crate) fn tls_host<'a>(
    pattern: &HostPattern,
    entries: impl Iterator<Item = &'a Entry>,
    globals: &Globals,
) -> (Option<TlsHost>, Losers) {
    let mut merged: Option<(TlsHost, &Rank)> = None;
    let mut losers = Losers::new();
    for entry in entries {
        let own = &entry.rank.name;
        for tls in entry.tls.iter().filter(|tls| tls.hosts.contains(pattern)) {
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
