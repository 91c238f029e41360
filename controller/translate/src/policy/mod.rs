//! Policies and snippets → what a route does.
//!
//! What an annotation can say as well goes the way of that annotation; headers and refusals of requests become filters.

mod nginx;
mod reader;
mod snippet;

use std::collections::BTreeSet;

use crds::{HeaderEdits, RoutePolicySpec, TimeoutSeconds};
use model::{Filter, HeaderChange};

use self::reader::Reader;
pub(crate) use self::reader::header_name;
pub(crate) use self::snippet::{Snippet, question, translate as snippet};
use crate::annotation::Annotations;
use crate::object::kinds;
use crate::report::Reason;
use crate::{NamespacedName, Problem, Snapshot};

/// What policies and snippets ask for beyond what annotations can say.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct PolicyPart {
    pub(crate) deny: Vec<model::DenyRule>,
    pub(crate) request: Vec<HeaderChange>,
    pub(crate) response: Vec<HeaderChange>,
    pub(crate) paths: Vec<model::PathRule>,
    /// The annotations that would say the same, and the one that would name the policy.
    pub(crate) uses: BTreeSet<Box<str>>,
}

impl PolicyPart {
    /// What happens before anything else.
    pub(crate) fn refusals(&self) -> Option<Filter> {
        (!self.deny.is_empty()).then(|| Filter::Deny(self.deny.clone()))
    }

    /// What happens to paths.
    pub(crate) fn paths(&self) -> Option<Filter> {
        (!self.paths.is_empty()).then(|| Filter::PathRules(self.paths.clone()))
    }

    /// What happens to headers.
    pub(crate) fn headers(&self) -> impl Iterator<Item = Filter> {
        let request = self.request.iter().cloned().map(Filter::RequestHeaders);
        request.chain(self.response.iter().cloned().map(Filter::ResponseHeaders))
    }
}

/// The Ingresses that a policy names, all in its own namespace.
pub(crate) fn targets(spec: &RoutePolicySpec) -> impl Iterator<Item = &str> {
    let targets = spec.target_refs.iter();
    let targets = targets.filter(|target| target.kind == kinds::INGRESS);
    targets.map(|target| target.name.as_str())
}

/// A field of a policy that cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Fault {
    pub(crate) field: String,
    pub(crate) text: String,
}

/// Takes what a policy says. Where something cannot be used, nothing of it may be served.
pub(crate) fn apply(spec: &RoutePolicySpec, annotations: &mut Annotations) -> Vec<Fault> {
    let RoutePolicySpec {
        target_refs: _,
        request_headers,
        response_headers,
        deny,
        timeouts,
        redirect,
        cors,
        rate_limit,
        basic_auth,
        rewrite,
        path_rules,
    } = spec;
    let mut policy = annotations.policy.take().unwrap_or_default();
    let mut reader = Reader {
        annotations,
        faults: Vec::new(),
        uses: BTreeSet::new(),
    };
    if let Some(edits) = request_headers {
        policy
            .request
            .extend(reader.headers(edits, "spec.requestHeaders"));
    }
    if let Some(edits) = response_headers {
        policy
            .response
            .extend(reader.headers(edits, "spec.responseHeaders"));
    }
    // What is taken later counts first.
    let rules = deny.iter().enumerate();
    let rules = rules.filter_map(|(index, rule)| reader.rule(rule, &format!("spec.deny[{index}]")));
    policy.deny.splice(0..0, rules);
    let rules = path_rules.iter().enumerate();
    let rules = rules
        .filter_map(|(index, rule)| reader.path_rule(rule, &format!("spec.pathRules[{index}]")));
    policy.paths.splice(0..0, rules);
    if let Some(timeouts) = timeouts {
        for (field, name, seconds) in [
            ("connect", "proxy-connect-timeout", timeouts.connect),
            ("read", "proxy-read-timeout", timeouts.read),
            ("send", "proxy-send-timeout", timeouts.send),
        ] {
            if let Some(seconds) = seconds {
                reader.set(
                    &format!("spec.timeouts.{field}"),
                    name,
                    &seconds.to_string(),
                );
            }
        }
    }
    if let Some(redirect) = redirect {
        reader.set("spec.redirect.url", "temporal-redirect", &redirect.url);
        let status = redirect.status.unwrap_or(302).to_string();
        reader.set("spec.redirect.status", "temporal-redirect-code", &status);
    }
    if let Some(cors) = cors {
        reader.cors(cors);
    }
    if let Some(limit) = rate_limit {
        reader.rate_limit(limit);
    }
    if let Some(basic) = basic_auth {
        if basic.secret_name.contains('/') {
            reader.fault(
                "spec.basicAuth.secretName",
                "it is the name of a Secret of the same namespace",
            );
        }
        reader.set("spec.basicAuth", "auth-type", "basic");
        reader.set(
            "spec.basicAuth.secretName",
            "auth-secret",
            &basic.secret_name,
        );
        if let Some(realm) = &basic.realm {
            reader.set("spec.basicAuth.realm", "auth-realm", realm);
        }
    }
    if let Some(rewrite) = rewrite {
        reader.set("spec.rewrite", "rewrite-target", rewrite);
    }
    let Reader {
        annotations,
        faults,
        uses,
    } = reader;
    policy.uses.extend(uses);
    annotations.policy = Some(policy);
    faults
}

/// What is wrong with a policy, for its own owner.
pub(crate) fn problems(spec: &RoutePolicySpec) -> Vec<Problem> {
    let faults = apply(spec, &mut Annotations::default()).into_iter();
    faults
        .map(|Fault { field, text }| {
            let text = format!("{text}; the routes of the Ingresses that it is for answer 503");
            Problem::error(Reason::InvalidPolicy, &field, &text)
        })
        .collect()
}

/// Takes what the policies for an Ingress say: the one that it names, then those that name it. Where one is missing
/// or cannot be used, the routes are closed.
pub(crate) fn attach(
    ingress: &NamespacedName,
    snapshot: &Snapshot,
    annotations: &mut Annotations,
    problems: &mut Vec<Problem>,
) {
    if annotations.is_canary() {
        // It has the policies of the Ingress that it belongs to.
        return;
    }
    let named = annotations
        .policy_name
        .as_deref()
        .map(|name| NamespacedName::new(&ingress.namespace, name));
    let mut close = |annotations: &mut Annotations, reason, text: &str| {
        annotations.closed.get_or_insert("invalid-policy");
        let text = format!("{text}; the routes of this Ingress answer 503 rather than without it");
        problems.push(Problem::error(reason, "metadata.annotations", &text));
    };
    if let Some(name) = &named
        && !snapshot.policies().contains_key(name)
    {
        let text = format!("RoutePolicy {name} does not exist");
        close(annotations, Reason::PolicyNotFound, &text);
    }
    let first = named
        .as_ref()
        .and_then(|name| snapshot.policies().get_key_value(name));
    let others = snapshot
        .policies_for(ingress)
        .filter(|(name, _)| named.as_ref() != Some(*name));
    // The first one counts where two say different things, so it comes last.
    let all: Vec<_> = first.into_iter().chain(others).collect();
    for (name, policy) in all.into_iter().rev() {
        let faults = apply(&policy.spec, annotations);
        if let Some(part) = &mut annotations.policy {
            part.uses.insert(crds::ROUTE_POLICY_ANNOTATION.into());
        }
        if let Some(Fault { field, text }) = faults.first() {
            let text = format!("RoutePolicy {name} cannot be used: {field}: {text}");
            close(annotations, Reason::InvalidPolicy, &text);
        }
    }
}

/// Adds what another policy says.
pub fn merge(into: &mut RoutePolicySpec, other: RoutePolicySpec) {
    let RoutePolicySpec {
        target_refs,
        request_headers,
        response_headers,
        deny,
        timeouts,
        redirect,
        cors,
        rate_limit,
        basic_auth,
        rewrite,
        path_rules,
    } = other;
    let headers = |into: &mut Option<HeaderEdits>, other: Option<HeaderEdits>| {
        let Some(HeaderEdits { remove, set, add }) = other else {
            return;
        };
        let edits = into.get_or_insert_default();
        edits.remove.extend(remove);
        edits.set.extend(set);
        edits.add.extend(add);
    };
    into.target_refs.extend(target_refs);
    headers(&mut into.request_headers, request_headers);
    headers(&mut into.response_headers, response_headers);
    into.deny.extend(deny);
    into.path_rules.extend(path_rules);
    if let Some(TimeoutSeconds {
        connect,
        read,
        send,
    }) = timeouts
    {
        let timeouts = into.timeouts.get_or_insert_default();
        timeouts.connect = connect.or(timeouts.connect);
        timeouts.read = read.or(timeouts.read);
        timeouts.send = send.or(timeouts.send);
    }
    into.redirect = redirect.or_else(|| into.redirect.take());
    into.cors = cors.or_else(|| into.cors.take());
    into.rate_limit = rate_limit.or_else(|| into.rate_limit.take());
    into.basic_auth = basic_auth.or_else(|| into.basic_auth.take());
    into.rewrite = rewrite.or_else(|| into.rewrite.take());
}

/// The policy that says the same as this annotation (without prefix), if it is a snippet that has one.
pub fn replacement(annotation: &str, text: &str) -> Option<RoutePolicySpec> {
    let place = match annotation {
        "configuration-snippet" => Snippet::Location,
        "server-snippet" => Snippet::Server,
        _ => return None,
    };
    let spec = snippet(text, place).ok()?;
    apply(&spec, &mut Annotations::default())
        .is_empty()
        .then_some(spec)
}

#[cfg(test)]
mod tests;
