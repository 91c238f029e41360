//! What stands in the spec of a `GatewayPolicy`, and what is wrong with it.

use crds::{GatewayPolicySpec, LimitPolicy};
use model::HostName;

use super::Cover;
use crate::report::{Reason, quoted};
use crate::{NamespacedName, Problem, annotation, value};

/// Something in a policy that is not right.
pub(super) struct Fault {
    pub(super) field: String,
    pub(super) text: String,
    /// Nobody can say what it was meant to permit.
    pub(super) breaks: bool,
}

pub(super) fn faults(spec: &GatewayPolicySpec) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |field: String, text: String, breaks: bool| {
        faults.push(Fault {
            field,
            text,
            breaks,
        });
    };
    for (index, text) in spec.namespaces.iter().enumerate() {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '*';
        if text.trim().is_empty() || !text.trim().chars().all(legal) {
            let text = format!("no namespace has a name like {}", quoted(text));
            fault(format!("spec.namespaces[{index}]"), text, true);
        }
    }
    for (index, text) in spec.hosts.iter().enumerate() {
        if let Err(why) = cover(text) {
            let text = format!("{} is not a host name: {why}", quoted(text));
            fault(format!("spec.hosts[{index}]"), text, true);
        }
    }
    for (field, list, breaks) in [
        // Less is allowed than was meant, or less is denied.
        ("allowAnnotations", &spec.allow_annotations, false),
        ("denyAnnotations", &spec.deny_annotations, true),
    ] {
        for (index, name) in list.iter().enumerate() {
            if annotation::find(annotation::current(name.trim())).is_none() {
                let text = format!("there is no annotation {}", quoted(name));
                fault(format!("spec.{field}[{index}]"), text, breaks);
            }
        }
    }
    let Some(LimitPolicy {
        body_size,
        timeout_seconds,
        tries,
    }) = &spec.limits
    else {
        return faults;
    };
    if let Some(text) = body_size
        && let Err(why) = body(text)
    {
        let text = format!("{} cannot be used: {why}", quoted(text));
        fault("spec.limits.bodySize".to_owned(), text, true);
    }
    for (field, number) in [("timeoutSeconds", timeout_seconds), ("tries", tries)] {
        if *number == Some(0) {
            let text = "a limit of nothing is no limit".to_owned();
            fault(format!("spec.limits.{field}"), text, true);
        }
    }
    faults
}

/// What is wrong with a policy, and who does not keep to it, for its own owner.
pub(crate) fn problems<'a>(
    spec: &GatewayPolicySpec,
    violators: impl Iterator<Item = &'a NamespacedName>,
) -> Vec<Problem> {
    /// How many are named.
    const NAMED: usize = 5;
    let mut problems: Vec<Problem> = faults(spec)
        .into_iter()
        .map(|fault| {
            let Fault {
                field,
                text,
                breaks,
            } = fault;
            if breaks {
                let text = format!(
                    "{text}; the routes of the Ingresses in the namespaces of this policy answer 503"
                );
                Problem::error(Reason::InvalidPolicy, &field, &text)
            } else {
                let text = format!("{text}; it has no effect");
                Problem::warning(Reason::InvalidPolicy, &field, &text)
            }
        })
        .collect();
    let violators: Vec<String> = violators.map(ToString::to_string).collect();
    if let Some(first) = violators.get(..violators.len().min(NAMED))
        && !first.is_empty()
    {
        let more = match violators.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} others"),
        };
        let ingresses = if violators.len() == 1 {
            "Ingress asks"
        } else {
            "Ingresses ask"
        };
        let text = format!(
            "{} {ingresses} for more than it permits, and did not get it: {}{more}",
            violators.len(),
            first.join(", ")
        );
        problems.push(Problem::warning(Reason::PolicyViolation, "", &text));
    }
    problems
}

/// An entry of `hosts`.
pub(super) fn cover(text: &str) -> Result<Cover, model::InvalidHost> {
    let text = text.trim();
    if text == "*" {
        return Ok(Cover::All);
    }
    match text.strip_prefix("*.") {
        Some(name) => HostName::parse(name).map(Cover::below),
        None => HostName::parse(text).map(Cover::Name),
    }
}

/// A size that is a limit.
pub(super) fn body(text: &str) -> Result<u64, String> {
    match value::size(text) {
        Ok(0) => Err("a limit of nothing is no limit".to_owned()),
        size => size,
    }
}
