//! The spec of an Ingress: rules, default backend and TLS entries.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, IngressBackend, IngressRule, IngressServiceBackend, IngressSpec,
    ServiceBackendPort,
};
use model::{BackendId, HostPattern, PathMatch};

use super::tls::{self, TlsEntry};
use super::{HostPart, Naming, PathPart, Target, name_backend, path, read_host};
use crate::Problem;
use crate::annotation::Annotations;
use crate::permit::{Permit, Refusal};
use crate::report::{Reason, quoted};
use crate::service;

/// Reads it, and keeps what it has found.
pub(super) struct Reader<'a> {
    pub(super) namespace: &'a str,
    pub(super) permit: &'a Permit<'a>,
    /// What the specification says comes first.
    pub(super) strict: bool,
    pub(super) annotations: &'a Annotations,
    pub(super) hosts: BTreeMap<HostPattern, HostPart>,
    /// Fields of the paths read so far.
    pub(super) taken: BTreeMap<(HostPattern, PathMatch), Arc<str>>,
    pub(super) backends: BTreeMap<BackendId, Naming>,
    pub(super) problems: Vec<Problem>,
    pub(super) violates: BTreeSet<Box<str>>,
}

impl Reader<'_> {
    /// Do the policies for its namespace let it have this host? If not, its owner learns what follows.
    pub(super) fn may_claim(&mut self, host: &HostPattern, field: &str, consequence: &str) -> bool {
        let Err(Refusal { policy, text }) = self.permit.host(host) else {
            return true;
        };
        let text = format!("{text}; {consequence}");
        self.problems
            .push(Problem::error(Reason::PolicyViolation, field, &text));
        self.violates.insert(policy);
        false
    }

    /// Reads rules and default backend, and returns the TLS entries.
    pub(super) fn spec(&mut self, spec: &IngressSpec) -> Vec<TlsEntry> {
        let rules = spec.rules.as_deref().unwrap_or_default();
        let default = spec.default_backend.as_ref();
        let default = default.map(|backend| self.default_backend(backend));
        let mut rule_hosts = BTreeSet::new();
        for (index, rule) in rules.iter().enumerate() {
            rule_hosts.extend(self.rule(rule, index, default.as_ref()));
        }
        match default {
            // By the specification it answers what no rule matches, whatever the host.
            Some(default) if rules.is_empty() || self.strict => {
                let field = "spec.defaultBackend";
                let consequence = if rules.is_empty() {
                    "nothing is served"
                } else {
                    "it answers for the hosts of the rules alone"
                };
                if self.may_claim(&HostPattern::Any, field, consequence) {
                    self.hosts.entry(HostPattern::Any).or_default().default = Some(default);
                }
            }
            None if rules.is_empty() => self.problems.push(Problem::warning(
                Reason::NothingToServe,
                "spec",
                "it has neither rules nor a defaultBackend; nothing is served",
            )),
            Some(_) | None => {}
        }
        let mut entries = Vec::new();
        for (index, entry) in spec.tls.iter().flatten().enumerate() {
            let namespace = self.namespace;
            let mut entry = tls::read(entry, index, namespace, &rule_hosts, &mut self.problems);
            let field = entry.field.clone();
            entry
                .hosts
                .retain(|host| self.may_claim(host, &field, "it gets no TLS settings"));
            entries.push(entry);
        }
        entries
    }

    /// Returns the host, if it is one.
    fn rule(
        &mut self,
        rule: &IngressRule,
        index: usize,
        default: Option<&PathPart>,
    ) -> Option<HostPattern> {
        let IngressRule { host, http } = rule;
        let at = format!("spec.rules[{index}]");
        let text = host.as_deref().unwrap_or_default();
        let pattern = match read_host(text, &format!("{at}.host"), "this rule is not served") {
            Ok(pattern) => pattern,
            Err(problem) => {
                self.problems.push(problem);
                return None;
            }
        };
        if !self.may_claim(&pattern, &format!("{at}.host"), "this rule is not served") {
            return None;
        }
        let mut part = self.hosts.remove(&pattern).unwrap_or_default();
        if part.default.is_none() {
            part.default = default.cloned();
        }
        for (position, path) in http.iter().flat_map(|http| &http.paths).enumerate() {
            let at = format!("{at}.http.paths[{position}]");
            if let Some(path) = self.path(path, &at, &pattern) {
                part.paths.push(path);
            }
        }
        self.hosts.insert(pattern.clone(), part);
        Some(pattern)
    }

    fn path(&mut self, path: &HTTPIngressPath, at: &str, host: &HostPattern) -> Option<PathPart> {
        let HTTPIngressPath {
            backend,
            path,
            path_type,
        } = path;
        let free = matches!(path_type.as_str(), "ImplementationSpecific" | "");
        let regex = self.annotations.wants_regex() && (free || !self.strict);
        let (matches, written) = match path::read(path.as_deref(), path_type, regex, at) {
            Ok(read) => read,
            Err(problem) => {
                self.problems.push(problem);
                return None;
            }
        };
        let key = (host.clone(), matches.clone());
        if let Some(first) = self.taken.get(&key) {
            self.problems.push(Problem::warning(
                Reason::Conflict,
                at,
                &format!("{first} has the same host, path and type; this path is not served"),
            ));
            return None;
        }
        let field: Arc<str> = at.into();
        self.taken.insert(key, Arc::clone(&field));
        Some(PathPart {
            path: matches,
            written,
            free,
            target: self.target(backend, &format!("{at}.backend")),
            field,
        })
    }

    fn default_backend(&mut self, backend: &IngressBackend) -> PathPart {
        let field = "spec.defaultBackend";
        PathPart {
            path: PathMatch::everything(),
            written: None,
            free: false,
            target: self.target(backend, field),
            field: field.into(),
        }
    }

    fn target(&mut self, backend: &IngressBackend, field: &str) -> Target {
        let target = match self.backend(backend, field) {
            Ok(id) => {
                name_backend(&mut self.backends, id.clone(), field);
                Target::Backend(id)
            }
            Err(problem) => {
                self.problems.push(problem);
                Target::Unavailable("invalid-backend")
            }
        };
        match self.annotations.closed {
            Some(reason) => Target::Unavailable(reason),
            None => target,
        }
    }

    fn backend(&self, backend: &IngressBackend, field: &str) -> Result<BackendId, Problem> {
        let IngressBackend { resource, service } = backend;
        let invalid = |reason: Reason, at: &str, text: String| {
            Problem::error(
                reason,
                &format!("{field}{at}"),
                &format!("{text}; requests to it are answered with 503"),
            )
        };
        let IngressServiceBackend { name, port } = match (service, resource) {
            (Some(service), _) => service,
            (None, Some(resource)) => {
                return Err(invalid(
                    Reason::ResourceBackend,
                    ".resource",
                    format!(
                        "resource backends ({}) are not supported",
                        quoted(&resource.kind)
                    ),
                ));
            }
            (None, None) => {
                return Err(invalid(
                    Reason::InvalidBackend,
                    "",
                    "it names no service".to_owned(),
                ));
            }
        };
        if !service::is_service_name(name) {
            return Err(invalid(
                Reason::InvalidBackend,
                ".service.name",
                format!("{} is not the name of a Service", quoted(name)),
            ));
        }
        let (number, port_name) = match port {
            Some(ServiceBackendPort { name, number }) => {
                (*number, name.as_deref().filter(|name| !name.is_empty()))
            }
            None => (None, None),
        };
        let port = match (number, port_name) {
            (Some(number), None) => u16::try_from(number)
                .ok()
                .filter(|number| *number > 0)
                .map(|number| number.to_string())
                .ok_or_else(|| format!("{number} is not a port number")),
            (None, Some(name)) if service::is_port_name(name) => Ok(name.to_owned()),
            (None, Some(name)) => Err(format!("{} is not a port name", quoted(name))),
            (Some(_), Some(_)) => Err("it has both a name and a number".to_owned()),
            (None, None) => Err("it has neither a name nor a number".to_owned()),
        };
        match port {
            Ok(port) => Ok(service::backend_id(
                self.namespace,
                name,
                &port,
                self.annotations.protocol,
                self.annotations
                    .traffic
                    .as_ref()
                    .is_some_and(|traffic| traffic.service_upstream),
            )),
            Err(text) => Err(invalid(Reason::InvalidBackend, ".service.port", text)),
        }
    }
}
