//! What the cluster should be told; pure.
//!
//! [`status`] decides whether the addresses in an Ingress have to be written, [`notes`] and [`expiry`] which Events
//! its owner should see. Nothing in here reads a clock or sends anything.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{Ingress, IngressLoadBalancerIngress};
use k8s_openapi::jiff::Timestamp;
use model::{ObjectRef, Origin};
use serde_json::{Value, json};
use table::Reject;
use translate::{NamespacedName, Problem, RevocationTerm};

/// An address under which the gateway is reached.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Address {
    /// An IP address.
    Ip(IpAddr),
    /// A DNS name.
    Name(String),
}

/// A text that is neither an IP address nor a DNS name.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is neither an IP address nor a DNS name")]
pub(crate) struct InvalidAddress(String);

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        let name = text.to_ascii_lowercase();
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        // The API server takes a name of digits and dots for a broken IP address.
        let numeric = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if name.len() <= 253 && !numeric && name.split('.').all(label) {
            Ok(Self::Name(name))
        } else {
            Err(InvalidAddress(text.to_owned()))
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Where the addresses for the status come from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) enum Publish {
    /// Statuses are left alone.
    #[default]
    Nothing,
    /// From this Service.
    Service(NamespacedName),
    /// These.
    Addresses(BTreeSet<Address>),
}

/// The addresses to write; `None` while they are unknown. `service` is the Service that `publish` names.
pub(crate) fn addresses(publish: &Publish, service: Option<&Service>) -> Option<BTreeSet<Address>> {
    match publish {
        Publish::Nothing => None,
        Publish::Addresses(addresses) => Some(addresses.clone()),
        Publish::Service(_) => service.map(addresses_of),
    }
}

/// The addresses of a Service, by its type.
fn addresses_of(service: &Service) -> BTreeSet<Address> {
    let Some(spec) = &service.spec else {
        return BTreeSet::new();
    };
    let parsed = |text: &String| text.parse::<Address>().ok();
    let external: BTreeSet<Address> = spec
        .external_ips
        .iter()
        .flatten()
        .filter_map(parsed)
        .collect();
    let cluster = || spec.cluster_ip.iter().filter(|ip| *ip != "None");
    match spec.type_.as_deref() {
        Some("LoadBalancer") => {
            let balancers = service
                .status
                .iter()
                .filter_map(|status| status.load_balancer.as_ref()?.ingress.as_ref())
                .flatten()
                .filter_map(|entry| entry.ip.as_ref().or(entry.hostname.as_ref()));
            balancers.filter_map(parsed).chain(external).collect()
        }
        Some("NodePort") if external.is_empty() => cluster().filter_map(parsed).collect(),
        Some("NodePort") => external,
        Some("ExternalName") => spec.external_name.iter().filter_map(parsed).collect(),
        _ => cluster().filter_map(parsed).collect(),
    }
}

/// The addresses that an Ingress's status holds; `None` if it holds something that Lockgate does not write.
pub(crate) fn current(ingress: &Ingress) -> Option<BTreeSet<Address>> {
    let entries = ingress
        .status
        .iter()
        .filter_map(|status| status.load_balancer.as_ref()?.ingress.as_ref())
        .flatten();
    entries
        .map(|entry| match entry {
            IngressLoadBalancerIngress {
                ip: Some(ip),
                hostname: None,
                ports: None,
            } => ip.parse().ok(),
            IngressLoadBalancerIngress {
                ip: None,
                hostname: Some(name),
                ports: None,
            } => name.parse().ok(),
            _ => None,
        })
        .collect()
}

/// Whose an Ingress is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Claim {
    /// Ours.
    Ours,
    /// No longer ours, and this process saw it happen.
    Released,
    /// Not ours as long as this process knows it. Its status may be written by another controller that has the same
    /// address, so it is not touched.
    #[default]
    Foreign,
}

/// What this process publishes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Published {
    /// The addresses; `None` while they are unknown.
    pub(crate) now: Option<BTreeSet<Address>>,
    /// Every address that was published since the start.
    pub(crate) ever: BTreeSet<Address>,
}

/// The addresses that have to be written to an Ingress which holds `current`; `None` if it is right as it is.
pub(crate) fn status(
    claim: Claim,
    current: Option<&BTreeSet<Address>>,
    published: &Published,
) -> Option<BTreeSet<Address>> {
    match claim {
        Claim::Ours => {
            let now = published.now.as_ref()?;
            (current != Some(now)).then(|| now.clone())
        }
        Claim::Released => {
            let current = current?;
            let ours = !current.is_empty() && current.is_subset(&published.ever);
            ours.then(BTreeSet::new)
        }
        Claim::Foreign => None,
    }
}

/// The merge patch that writes these addresses, if nobody has changed the Ingress since `version`.
pub(crate) fn status_patch(version: &str, addresses: &BTreeSet<Address>) -> Value {
    let entries: Vec<Value> = addresses
        .iter()
        .map(|address| match address {
            Address::Ip(ip) => json!({"ip": ip.to_string()}),
            Address::Name(name) => json!({"hostname": name}),
        })
        .collect();
    let entries = if entries.is_empty() {
        Value::Null
    } else {
        Value::Array(entries)
    };
    json!({
        "metadata": {"resourceVersion": version},
        "status": {"loadBalancer": {"ingress": entries}},
    })
}

/// Something that the owner of an object should know.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Note {
    /// The `reason` of the Event, in CamelCase.
    pub(crate) reason: &'static str,
    /// The text.
    pub(crate) message: String,
}

/// Notes about one object at most; `/debug/routes` lists every problem.
const NOTES: usize = 10;

/// The API server takes no longer text in an Event.
const LONGEST_MESSAGE: usize = 1024;

impl Note {
    fn new(reason: &'static str, message: &str) -> Self {
        let end = (0..=LONGEST_MESSAGE.min(message.len()))
            .rev()
            .find(|end| message.is_char_boundary(*end))
            .unwrap_or_default();
        Self {
            reason,
            message: message.get(..end).unwrap_or_default().to_owned(),
        }
    }
}

/// The notes about an object: its problems, and its entries that the table could not take.
pub(crate) fn notes(
    object: &ObjectRef,
    problems: &[Problem],
    rejects: &[Reject],
) -> BTreeSet<Note> {
    let problems = problems
        .iter()
        .map(|problem| Note::new(problem.reason.as_str(), &problem.message));
    let rejects = rejects.iter().filter_map(|reject| {
        let Origin { object: of, field } = &reject.origin;
        (**of == *object).then(|| Note::new("Rejected", &format!("{field}: {}", reject.reason)))
    });
    let mut all: Vec<Note> = problems.chain(rejects).collect();
    if all.len() > NOTES {
        let rest = all.len() - (NOTES - 1);
        all.truncate(NOTES - 1);
        let text = format!("{rest} more problems are listed by /debug/routes and `lockgate check`");
        all.push(Note::new("MoreProblems", &text));
    }
    all.into_iter().collect()
}

/// From when to when a certificate or a revocation list is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Validity {
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
}

/// A warning starts this long before the end, in seconds.
const SOON: i64 = 14 * 24 * 60 * 60;

/// What has to be said about a validity, with the time that it is about.
enum Term {
    /// It has ended.
    Over(String),
    /// It has not begun.
    Ahead(String),
    /// It ends soon.
    Ending(String),
}

/// Whether something has to be said at this time.
///
/// Soon is 14 days, or a sixth of the whole life if that is less: certificates that live for days are renewed late.
fn term(validity: Validity, now: Timestamp) -> Option<Term> {
    let Validity {
        not_before,
        not_after,
    } = validity;
    let seconds = now.as_second();
    let at = |second: i64| {
        Timestamp::from_second(second).map_or_else(|_| second.to_string(), |at| at.to_string())
    };
    let soon = SOON.min(not_after.saturating_sub(not_before) / 6);
    if seconds >= not_after {
        Some(Term::Over(at(not_after)))
    } else if seconds < not_before {
        Some(Term::Ahead(at(not_before)))
    } else if not_after.saturating_sub(seconds) <= soon {
        Some(Term::Ending(at(not_after)))
    } else {
        None
    }
}

/// The note about a certificate that has expired, is not valid yet, or expires soon.
pub(crate) fn expiry(secret: &NamespacedName, validity: Validity, now: Timestamp) -> Option<Note> {
    let (reason, text) = match term(validity, now)? {
        Term::Over(end) => (
            "CertificateExpired",
            format!("expired at {end}; it is still served and clients refuse it"),
        ),
        Term::Ahead(start) => (
            "CertificateNotYetValid",
            format!("is not valid before {start}; clients refuse it until then"),
        ),
        Term::Ending(end) => (
            "CertificateExpiring",
            format!("expires at {end}; renew it before then"),
        ),
    };
    let text = format!("spec.tls: the certificate in Secret {secret} {text}");
    Some(Note::new(reason, &text))
}

/// The note about revocation lists of which one has expired, is not valid yet, or expires soon.
pub(crate) fn revocation(lists: &RevocationTerm, now: Timestamp) -> Option<Note> {
    let &RevocationTerm {
        ref secret,
        not_before,
        not_after,
    } = lists;
    let validity = Validity {
        not_before,
        not_after,
    };
    let (reason, text) = match term(validity, now)? {
        Term::Over(end) => (
            "RevocationListExpired",
            format!(
                "expired at {end}; every client with a certificate gets 400 until there is a new one"
            ),
        ),
        Term::Ahead(start) => (
            "RevocationListNotYetValid",
            format!(
                "is not valid before {start}; every client with a certificate gets 400 until then"
            ),
        ),
        Term::Ending(end) => (
            "RevocationListExpiring",
            format!("expires at {end}; every client with a certificate gets 400 from then on"),
        ),
    };
    let text = format!(
        "metadata.annotations: `auth-tls-secret`: a revocation list (`ca.crl`) in Secret {secret} {text}"
    );
    Some(Note::new(reason, &text))
}

#[cfg(test)]
mod tests;
