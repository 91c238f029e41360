//! `spec.tls` of an Ingress.

use std::collections::BTreeSet;

use k8s_openapi::api::networking::v1::IngressTLS;
use model::HostPattern;

use super::read_host;
use crate::NamespacedName;
use crate::Problem;

/// One entry of `spec.tls`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct TlsEntry {
    /// The hosts that it is for.
    pub(crate) hosts: BTreeSet<HostPattern>,
    /// Further names for some of them, which have it unless somebody else has TLS settings for them.
    pub(crate) aliases: BTreeSet<HostPattern>,
    /// The Secret with the certificate; `None` leaves it to the default certificate.
    pub(crate) secret: Option<NamespacedName>,
    /// Where it stands.
    pub(crate) field: Box<str>,
}

/// Reads one entry.
///
/// Without hosts it is for all hosts of the Ingress's rules, and for every name if there are none.
pub(crate) fn read(
    entry: &IngressTLS,
    index: usize,
    namespace: &str,
    rule_hosts: &BTreeSet<HostPattern>,
    problems: &mut Vec<Problem>,
) -> TlsEntry {
    let IngressTLS { hosts, secret_name } = entry;
    let field = format!("spec.tls[{index}]");
    let listed = hosts.as_deref().unwrap_or_default();
    let mut patterns = BTreeSet::new();
    for (position, text) in listed.iter().enumerate() {
        let at = format!("{field}.hosts[{position}]");
        match read_host(text, &at, "this host gets no TLS settings") {
            Ok(pattern) => {
                patterns.insert(pattern);
            }
            Err(problem) => problems.push(problem),
        }
    }
    if listed.is_empty() {
        patterns.clone_from(rule_hosts);
        if patterns.is_empty() {
            patterns.insert(HostPattern::Any);
        }
    }
    TlsEntry {
        hosts: patterns,
        aliases: BTreeSet::new(),
        secret: secret_name
            .as_deref()
            .filter(|name| !name.is_empty())
            .map(|name| NamespacedName::new(namespace, name)),
        field: field.into(),
    }
}
