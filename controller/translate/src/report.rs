//! What the owners of the objects have to know: which Ingresses are ours, and what is wrong with them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use model::ObjectRef;
use serde::{Serialize, Serializer};

use crate::NamespacedName;
use crate::few::dense;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something that was asked for is not served as it was asked for.
    Error,
    /// Served, but probably not what its owner means.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// The kind of a problem; its text is the `reason` of a Kubernetes Event.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Reason {
    /// A host name that cannot be one.
    InvalidHost,
    /// A path that no request can have.
    InvalidPath,
    /// A `pathType` that does not exist.
    InvalidPathType,
    /// A backend that names nothing usable.
    InvalidBackend,
    /// A backend of kind `resource`.
    ResourceBackend,
    /// Neither rules nor a default backend.
    NothingToServe,
    /// The Service of a backend does not exist.
    ServiceNotFound,
    /// The Service of a backend has no such port.
    PortNotFound,
    /// The port was found by the Service's target port only.
    MatchedByTargetPort,
    /// The Service is of type `ExternalName` and its name cannot be used.
    ExternalNameRefused,
    /// An endpoint address that is refused, or is not an address.
    EndpointRefused,
    /// Another Ingress, or another path of the same one, has the same host, path and type.
    Conflict,
    /// Another Ingress makes the paths of the host regular expressions.
    RegexHost,
    /// A canary that belongs to nothing.
    CanaryWithoutMain,
    /// An Ingress of another namespace has the TLS settings of this host.
    TlsConflict,
    /// The Secret does not exist, or has not been delivered yet.
    SecretNotFound,
    /// The Secret does not hold a usable certificate and key.
    InvalidSecret,
    /// The certificate does not name this host.
    CertificateMismatch,
    /// The `RoutePolicy` that an Ingress names does not exist.
    PolicyNotFound,
    /// A policy cannot be used.
    InvalidPolicy,
    /// An annotation's value cannot be read.
    InvalidAnnotation,
    /// An annotation that nobody knows.
    UnknownAnnotation,
    /// An annotation that has no effect here.
    UnsupportedAnnotation,
    /// A setting's value cannot be read.
    InvalidSetting,
    /// A setting that has no effect here.
    UnsupportedSetting,
    /// A `GatewayPolicy` does not permit it.
    PolicyViolation,
    /// An object of another namespace that no `ReferenceGrant` lets an Ingress name.
    ReferenceRefused,
    /// A ConfigMap that an annotation names does not exist, or what is in it cannot be used.
    InvalidConfigMap,
    /// Too many problems to list.
    MoreProblems,
}

impl Reason {
    /// The reason in the spelling of Kubernetes Events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidHost => "InvalidHost",
            Self::InvalidPath => "InvalidPath",
            Self::InvalidPathType => "InvalidPathType",
            Self::InvalidBackend => "InvalidBackend",
            Self::ResourceBackend => "ResourceBackend",
            Self::NothingToServe => "NothingToServe",
            Self::ServiceNotFound => "ServiceNotFound",
            Self::PortNotFound => "PortNotFound",
            Self::MatchedByTargetPort => "MatchedByTargetPort",
            Self::ExternalNameRefused => "ExternalNameRefused",
            Self::EndpointRefused => "EndpointRefused",
            Self::Conflict => "Conflict",
            Self::RegexHost => "RegexHost",
            Self::CanaryWithoutMain => "CanaryWithoutMain",
            Self::TlsConflict => "TlsConflict",
            Self::SecretNotFound => "SecretNotFound",
            Self::InvalidSecret => "InvalidSecret",
            Self::CertificateMismatch => "CertificateMismatch",
            Self::PolicyNotFound => "PolicyNotFound",
            Self::InvalidPolicy => "InvalidPolicy",
            Self::InvalidAnnotation => "InvalidAnnotation",
            Self::UnknownAnnotation => "UnknownAnnotation",
            Self::UnsupportedAnnotation => "UnsupportedAnnotation",
            Self::InvalidSetting => "InvalidSetting",
            Self::UnsupportedSetting => "UnsupportedSetting",
            Self::PolicyViolation => "PolicyViolation",
            Self::ReferenceRefused => "ReferenceRefused",
            Self::InvalidConfigMap => "InvalidConfigMap",
            Self::MoreProblems => "MoreProblems",
        }
    }

    /// Is it solved by another object that comes or changes, without a change to the one that has the problem? The order in
    /// which objects are applied must not matter.
    pub fn awaits_others(self) -> bool {
        match self {
            Self::ServiceNotFound
            | Self::PortNotFound
            | Self::MatchedByTargetPort
            | Self::ExternalNameRefused
            | Self::EndpointRefused
            | Self::CanaryWithoutMain
            | Self::SecretNotFound
            | Self::InvalidSecret
            | Self::CertificateMismatch
            | Self::PolicyNotFound
            | Self::ReferenceRefused
            | Self::InvalidConfigMap => true,
            Self::InvalidHost
            | Self::InvalidPath
            | Self::InvalidPathType
            | Self::InvalidBackend
            | Self::ResourceBackend
            | Self::NothingToServe
            | Self::Conflict
            | Self::RegexHost
            | Self::TlsConflict
            | Self::InvalidPolicy
            | Self::InvalidAnnotation
            | Self::UnknownAnnotation
            | Self::UnsupportedAnnotation
            | Self::InvalidSetting
            | Self::UnsupportedSetting
            | Self::PolicyViolation
            | Self::MoreProblems => false,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that the owner of an object should change.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What kind of problem it is.
    pub reason: Reason,
    /// The field, for example `spec.rules[0].host`; empty for the whole object.
    pub field: Box<str>,
    /// Field, fault and consequence in words. Does not name the object that it is reported on.
    pub message: String,
}

impl Problem {
    pub(crate) fn new(severity: Severity, reason: Reason, field: &str, text: &str) -> Self {
        let message = if field.is_empty() {
            text.to_owned()
        } else {
            format!("{field}: {text}")
        };
        Self {
            severity,
            reason,
            field: field.into(),
            message,
        }
    }

    pub(crate) fn error(reason: Reason, field: &str, text: &str) -> Self {
        Self::new(Severity::Error, reason, field, text)
    }

    pub(crate) fn warning(reason: Reason, field: &str, text: &str) -> Self {
        Self::new(Severity::Warning, reason, field, text)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity, self.message)
    }
}

/// Shortens a text that came from outside, so that a message stays readable, and makes it printable on one line.
pub(crate) fn quoted(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut shown: String = text
        .chars()
        .take(LONGEST)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// How many problems of one object are listed.
const LISTED: usize = 50;

/// Which Ingresses are ours, and the problems of every object.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Report {
    #[serde(serialize_with = "references")]
    claimed: BTreeSet<ObjectRef>,
    #[serde(serialize_with = "by_reference")]
    unclaimed: BTreeMap<ObjectRef, &'static str>,
    #[serde(serialize_with = "by_reference")]
    problems: BTreeMap<ObjectRef, Vec<Problem>>,
    #[serde(
        serialize_with = "by_reference",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    revocation: BTreeMap<ObjectRef, RevocationTerm>,
}

/// The time of the revocation lists that an Ingress verifies certificates of clients with. Before and after it nobody
/// passes, as with nginx; whoever knows the time can tell the owner.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct RevocationTerm {
    /// The Secret that holds them.
    pub secret: NamespacedName,
    /// From when on each issuer has a list, in seconds since 1970.
    pub not_before: i64,
    /// Until when.
    pub not_after: i64,
}

impl Report {
    /// Is this Ingress ours?
    pub fn claims(&self, object: &ObjectRef) -> bool {
        self.claimed.contains(object)
    }

    /// The Ingresses that are ours.
    pub fn claimed(&self) -> impl Iterator<Item = &ObjectRef> {
        self.claimed.iter()
    }

    /// The Ingresses that are not ours, with the reason in words.
    pub fn unclaimed(&self) -> impl Iterator<Item = (&ObjectRef, &'static str)> {
        self.unclaimed.iter().map(|(object, why)| (object, *why))
    }

    /// All problems, in the order of their objects. At most 50 of one object are listed; the last one counts the rest.
    pub fn problems(&self) -> impl Iterator<Item = (&ObjectRef, &Problem)> {
        self.problems
            .iter()
            .flat_map(|(object, problems)| problems.iter().map(move |problem| (object, problem)))
    }

    /// The time of the revocation lists that an Ingress uses.
    pub fn revocation(&self, object: &ObjectRef) -> Option<&RevocationTerm> {
        self.revocation.get(object)
    }

    /// All such times.
    pub fn revocations(&self) -> impl Iterator<Item = (&ObjectRef, &RevocationTerm)> {
        self.revocation.iter()
    }

    /// Replaces the time of the revocation lists of an Ingress. True if that is news.
    pub(crate) fn set_revocation(
        &mut self,
        object: &ObjectRef,
        term: Option<RevocationTerm>,
    ) -> bool {
        if self.revocation.get(object) == term.as_ref() {
            return false;
        }
        match term {
            Some(term) => self.revocation.insert(object.clone(), term),
            None => self.revocation.remove(object),
        };
        true
    }

    /// The problems of one object.
    pub fn problems_of(&self, object: &ObjectRef) -> &[Problem] {
        self.problems.get(object).map_or(&[], Vec::as_slice)
    }

    /// Remembers whose an Ingress is. `Ok` is ours, `Err` says why not; `None` forgets it. True if that is news.
    pub(crate) fn set_claim(
        &mut self,
        object: &ObjectRef,
        claim: Option<Result<(), &'static str>>,
    ) -> bool {
        let before = self.claimed.contains(object);
        match claim {
            Some(Ok(())) => {
                self.claimed.insert(object.clone());
                self.unclaimed.remove(object);
            }
            Some(Err(why)) => {
                self.claimed.remove(object);
                self.unclaimed.insert(object.clone(), why);
            }
            None => {
                self.claimed.remove(object);
                self.unclaimed.remove(object);
            }
        }
        before != self.claimed.contains(object)
    }

    /// Makes the large tree anew.
    pub(crate) fn make_dense(&mut self) {
        dense(&mut self.claimed);
    }

    /// Replaces the problems of an object. True if they differ from those before.
    pub(crate) fn set_problems(&mut self, object: &ObjectRef, mut problems: Vec<Problem>) -> bool {
        if problems.len() > LISTED {
            let rest = problems.len() - LISTED + 1;
            problems.truncate(LISTED - 1);
            problems.push(Problem::warning(
                Reason::MoreProblems,
                "",
                &format!("{rest} more problems are not listed"),
            ));
        }
        if self.problems_of(object) == problems {
            return false;
        }
        if problems.is_empty() {
            self.problems.remove(object);
        } else {
            self.problems.insert(object.clone(), problems);
        }
        true
    }
}

fn references<S: Serializer>(
    objects: &BTreeSet<ObjectRef>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(objects.iter().map(ToString::to_string))
}

fn by_reference<S: Serializer, V: Serialize>(
    objects: &BTreeMap<ObjectRef, V>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(
        objects
            .iter()
            .map(|(object, value)| (object.to_string(), value)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_problems_is_bounded() {
        let mut report = Report::default();
        let object = ObjectRef::new("Ingress", "a", "b");
        let many = (0..100)
            .map(|i| Problem::error(Reason::InvalidHost, &format!("spec.rules[{i}].host"), "bad"))
            .collect();
        assert!(report.set_problems(&object, many));
        let listed = report.problems_of(&object);
        assert_eq!(listed.len(), 50);
        assert_eq!(listed[49].message, "51 more problems are not listed");
    }

    #[test]
    fn hostile_text_is_shown_short_and_on_one_line() {
        assert_eq!(quoted("a\n\u{1b}[2Jb"), "`a\\n\\u{1b}[2Jb`");
        assert!(quoted(&"x".repeat(70_000)).len() < 100);
    }
}
