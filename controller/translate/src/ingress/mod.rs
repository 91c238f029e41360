//! One Ingress, translated by itself: nothing here looks at another object, except the policies for it and what it may
//! refer to.

pub(crate) mod auth;
pub(crate) mod backend_tls;
pub(crate) mod clients;
pub(crate) mod headers;
pub(crate) mod passthrough;
pub(crate) mod path;
pub(crate) mod reference;
mod rules;
pub(crate) mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::networking::v1::{Ingress, IngressRule};
use k8s_openapi::jiff::Timestamp;
use model::{BackendId, ExternalAuth, HostPattern, Mirror, ObjectRef, PathMatch};

use self::auth::BasicPart;
use self::backend_tls::BackendTlsPart;
use self::clients::ClientPart;
use self::headers::HeaderConfigMaps;
use self::rules::Reader;
use self::tls::TlsEntry;
use crate::NamespacedName;
use crate::Problem;
use crate::annotation::{self, Annotations, Routing};
use crate::few::Fixed;
use crate::object::{kinds, name_of};
use crate::permit::Permits;
use crate::policy;
use crate::report::{Reason, quoted};
use crate::service;
use crate::settings::{Compat, Settings};
use crate::snapshot::Snapshot;

/// Who comes first where two Ingresses want the same.
///
/// The oldest by `metadata.creationTimestamp`; at the same second (that is how fine these timestamps are) by
/// namespace, then name, ascending. An Ingress without a timestamp, which only a folder of manifests can hold, counts as
/// the newest.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Rank {
    age: Age,
    pub(crate) name: NamespacedName,
}

impl Rank {
    /// Why this one comes before that one, for messages.
    pub(crate) fn precedence_over(&self, other: &Self) -> &'static str {
        match (self.age == other.age, self.age) {
            (false, _) => "is older",
            (true, Age::Created(_)) => "is as old and comes first by name",
            (true, Age::Unknown) => "comes first by name",
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Age {
    Created(Timestamp),
    Unknown,
}

/// What one Ingress asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Entry {
    pub(crate) rank: Rank,
    /// The Ingress itself.
    pub(crate) object: Arc<ObjectRef>,
    pub(crate) annotations: Annotations,
    pub(crate) hosts: Fixed<HostPattern, HostPart>,
    pub(crate) tls: Vec<TlsEntry>,
    /// Asks for name and password.
    pub(crate) basic: Option<Box<BasicPart>>,
    /// Certificates for connections to its backends.
    pub(crate) backend_tls: Option<Box<BackendTlsPart>>,
    /// Certificates of clients.
    pub(crate) clients: Option<Box<ClientPart>>,
    /// ConfigMaps with headers.
    pub(crate) header_configmaps: HeaderConfigMaps,
    /// Copies of requests go elsewhere, too.
    pub(crate) mirror: Option<Box<Mirror>>,
    /// Asks another server.
    pub(crate) external: Option<Arc<ExternalAuth>>,
    /// Backends and the fields that name them; only `mirror` names those without a field.
    pub(crate) backends: Fixed<BackendId, Naming>,
    /// Hosts that get what another one of its hosts has, unless somebody has rules for them.
    pub(crate) aliases: Fixed<HostPattern, Alias>,
    /// What is wrong with the Ingress whatever the other objects are.
    pub(crate) problems: Vec<Problem>,
    /// The policies of kind `GatewayPolicy` that do not permit something of it.
    pub(crate) violates: BTreeSet<Box<str>>,
}

/// What one Ingress asks for on one host.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct HostPart {
    /// Its paths, in their order; no two are the same.
    pub(crate) paths: Vec<PathPart>,
    /// What answers paths that nobody asks for.
    pub(crate) default: Option<PathPart>,
}

/// A host that stands for another one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Alias {
    /// For which.
    pub(crate) of: HostPattern,
    /// It redirects there instead of answering itself.
    pub(crate) redirects: bool,
}

/// One path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct PathPart {
    pub(crate) path: PathMatch,
    /// As it is written, where that differs.
    pub(crate) written: Option<Box<str>>,
    /// Its type leaves to the implementation what it means.
    pub(crate) free: bool,
    pub(crate) target: Target,
    pub(crate) field: Arc<str>,
}

/// The fields that name something.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Naming {
    /// The first one; empty if there is none.
    pub(crate) field: Box<str>,
    /// How many there are.
    pub(crate) count: usize,
}

/// What answers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Target {
    Backend(BackendId),
    /// Status 503 for this reason.
    Unavailable(&'static str),
}

impl Entry {
    /// The Secrets that it names.
    pub(crate) fn secrets(&self) -> BTreeSet<&NamespacedName> {
        self.tls
            .iter()
            .filter_map(|entry| entry.secret.as_ref())
            .chain(self.basic.iter().map(|basic| &basic.secret))
            .chain(
                self.backend_tls
                    .iter()
                    .filter_map(|tls| tls.secret.as_ref()),
            )
            .chain(
                self.clients
                    .iter()
                    .filter_map(|clients| clients.secret.as_ref()),
            )
            .collect()
    }

    /// The hosts of its TLS entries.
    pub(crate) fn tls_hosts(&self) -> BTreeSet<&HostPattern> {
        self.tls
            .iter()
            .flat_map(|entry| entry.hosts.iter().chain(&entry.aliases))
            .collect()
    }
}

/// Translates one Ingress.
pub(crate) fn translate(
    ingress: &Ingress,
    settings: &Settings,
    snapshot: &Snapshot,
    permits: &Permits,
) -> Entry {
    let name = name_of(&ingress.metadata);
    let mut problems = Vec::new();
    let mut annotations = annotation::read(
        ingress.metadata.annotations.as_ref(),
        &settings.annotation_prefixes,
        &mut problems,
    );
    policy::attach(&name, snapshot, &mut annotations, &mut problems);
    passthrough::read(&mut annotations, settings, &mut problems);
    let namespace = &*name.namespace;
    let permit = permits.of(namespace);
    let used = used(ingress, &settings.annotation_prefixes, &annotations);
    let violates = permit.annotations(&used, &mut annotations, &mut problems);
    let basic = auth::basic(&mut annotations, namespace, snapshot, &mut problems).map(Box::new);
    let backend_tls =
        backend_tls::read(&mut annotations, namespace, snapshot, &mut problems).map(Box::new);
    let clients = clients::read(&mut annotations, namespace, snapshot, &mut problems).map(Box::new);
    let header_configmaps = HeaderConfigMaps::read(&annotations, namespace);
    let external = auth::external(&mut annotations, settings, &mut problems);
    let mut reader = Reader {
        namespace,
        permit: &permit,
        strict: settings.compat == Some(Compat::Strict),
        annotations: &annotations,
        hosts: BTreeMap::new(),
        taken: BTreeMap::new(),
        backends: BTreeMap::new(),
        problems,
        violates,
    };
    let mut tls = ingress
        .spec
        .as_ref()
        .map(|spec| reader.spec(spec))
        .unwrap_or_default();
    let mut aliases = BTreeMap::new();
    if annotations.is_canary() {
        // It takes part in what another Ingress serves.
        tls.clear();
    } else if let (Some(routing), Some(spec)) = (&annotations.routing, &ingress.spec) {
        let rules = spec.rules.as_deref().unwrap_or_default();
        aliases = aliases_of(routing, rules, &reader.hosts);
        let field = "metadata.annotations";
        aliases.retain(|host, _| reader.may_claim(host, field, "it stands for no other"));
        for entry in &mut tls {
            let aliases = aliases
                .iter()
                .filter(|(_, alias)| entry.hosts.contains(&alias.of));
            entry.aliases = aliases.map(|(name, _)| name.clone()).collect();
        }
    }
    let Reader {
        hosts,
        mut backends,
        problems,
        violates,
        ..
    } = reader;
    let mirror = mirror(&annotations, settings);
    let default = default_backend(&annotations, namespace);
    name_backends(
        &mut backends,
        default,
        external.as_deref(),
        mirror.as_deref(),
    );
    if annotations.closed.is_some() {
        backends.clear();
    }
    tls.shrink_to_fit();
    Entry {
        object: Arc::new(name.reference(kinds::INGRESS)),
        rank: Rank {
            age: age(ingress),
            name,
        },
        annotations,
        hosts: shrunk(hosts).into(),
        aliases: aliases.into(),
        tls,
        basic,
        backend_tls,
        clients,
        header_configmaps,
        mirror,
        external,
        backends: backends.into(),
        problems,
        violates,
    }
}

/// They are kept for long, and there are many.
fn shrunk(mut hosts: BTreeMap<HostPattern, HostPart>) -> BTreeMap<HostPattern, HostPart> {
    for part in hosts.values_mut() {
        part.paths.shrink_to_fit();
    }
    hosts
}

/// Where copies of requests go.
fn mirror(annotations: &Annotations, settings: &Settings) -> Option<Box<Mirror>> {
    let traffic = annotations.traffic.as_deref()?;
    let url = traffic.mirror.clone()?;
    Some(Box::new(Mirror {
        backend: crate::external::in_cluster(&url, settings),
        url,
        host: traffic.mirror_host.clone(),
        without_body: traffic.mirror_without_body,
    }))
}

fn name_backend(backends: &mut BTreeMap<BackendId, Naming>, id: BackendId, field: &str) {
    let naming = backends.entry(id).or_default();
    if naming.count == 0 {
        naming.field = field.into();
    }
    naming.count += 1;
}

/// Adds backends that annotations name.
fn name_backends(
    backends: &mut BTreeMap<BackendId, Naming>,
    default: Option<BackendId>,
    external: Option<&ExternalAuth>,
    mirror: Option<&Mirror>,
) {
    let asked = external.and_then(|asked| asked.backend.clone());
    for id in [default, asked].into_iter().flatten() {
        name_backend(backends, id, "metadata.annotations");
    }
    // Nothing is answered by it, so no field is about answers.
    if let Some(copied) = mirror.and_then(|mirror| mirror.backend.clone()) {
        backends.entry(copied).or_default();
    }
}

/// What it asks for by annotations under our prefixes, and by policies of kind `RoutePolicy`: names without prefix, and
/// where they stand.
fn used(
    ingress: &Ingress,
    prefixes: &[String],
    annotations: &Annotations,
) -> BTreeMap<Box<str>, String> {
    let mut used = BTreeMap::new();
    for full in ingress
        .metadata
        .annotations
        .iter()
        .flatten()
        .map(|(full, _)| full)
    {
        let mut shorts = prefixes
            .iter()
            .filter_map(|prefix| full.strip_prefix(prefix.as_str())?.strip_prefix('/'));
        if let Some(short) = shorts.next() {
            let field = format!("metadata.annotations[{full}]");
            used.entry(annotation::current(short).into())
                .or_insert(field);
        }
    }
    for name in annotations.policy.iter().flat_map(|policy| &policy.uses) {
        used.entry(name.clone())
            .or_insert_with(|| "metadata.annotations".to_owned());
    }
    used
}

/// The backend that answers when another one has no endpoints.
fn default_backend(annotations: &Annotations, namespace: &str) -> Option<BackendId> {
    let name = annotations.traffic.as_ref()?.default_backend.as_deref()?;
    Some(service::first_port(&NamespacedName::new(namespace, name)))
}

/// The names that an Ingress asks for beside those of its rules.
fn aliases_of(
    routing: &Routing,
    rules: &[IngressRule],
    hosts: &BTreeMap<HostPattern, HostPart>,
) -> BTreeMap<HostPattern, Alias> {
    let mut aliases = BTreeMap::new();
    let first = rules
        .iter()
        .filter_map(|rule| HostPattern::parse(rule.host.as_deref().unwrap_or_default()).ok())
        .find(|host| hosts.contains_key(host));
    if let Some(of) = first.filter(|host| *host != HostPattern::Any) {
        for name in &routing.aliases {
            let alias = Alias {
                of: of.clone(),
                redirects: false,
            };
            aliases.insert(name.clone(), alias);
        }
    }
    for host in hosts.keys().filter(|_| routing.www) {
        let HostPattern::Exact(name) = host else {
            continue;
        };
        let other = match name.as_str().strip_prefix("www.") {
            Some(rest) => HostPattern::parse(rest),
            None => HostPattern::parse(&format!("www.{name}")),
        };
        if let Ok(other) = other {
            let alias = Alias {
                of: host.clone(),
                redirects: true,
            };
            aliases.entry(other).or_insert(alias);
        }
    }
    aliases.retain(|name, _| !hosts.contains_key(name));
    aliases
}

fn age(ingress: &Ingress) -> Age {
    let created = ingress.metadata.creation_timestamp.as_ref();
    created.map_or(Age::Unknown, |time| Age::Created(time.0))
}

/// Reads a host of a rule or of a TLS entry.
pub(crate) fn read_host(
    text: &str,
    field: &str,
    consequence: &str,
) -> Result<HostPattern, Problem> {
    let reason = match HostPattern::parse(text) {
        // Two stars are the Gateway API's wildcard, which an Ingress has no way to ask for.
        Ok(_) if text.starts_with("**") => model::InvalidHost::Wildcard,
        Ok(pattern) => return Ok(pattern),
        Err(reason) => reason,
    };
    Err(Problem::error(
        Reason::InvalidHost,
        field,
        &format!(
            "{} is not a host name: {reason}; {consequence}",
            quoted(text)
        ),
    ))
}
