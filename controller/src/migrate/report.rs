//! The report as a value.

use serde::Serialize;

/// What becomes of the Ingresses.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) summary: Summary,
    /// What to do, most important first.
    pub(super) steps: Vec<Step>,
    /// What is used, and on how many Ingresses.
    pub(super) annotations: Vec<Usage>,
    /// Blocked ones first.
    pub(super) ingresses: Vec<IngressReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) configmap: Option<ConfigMapReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) flags: Vec<Item>,
    /// Ingresses of other classes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) left_out: Vec<LeftOut>,
    /// What could not be looked at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) notes: Vec<String>,
}

/// What a manager reads.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Summary {
    pub(super) class: String,
    pub(super) ingresses: usize,
    pub(super) namespaces: usize,
    pub(super) hosts: usize,
    pub(super) ready: usize,
    pub(super) review: usize,
    pub(super) blocked: usize,
    pub(super) blocked_hosts: usize,
    pub(super) risk: Risk,
}

/// What a switch today would mean.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Risk {
    /// Some hosts would not answer.
    High,
    /// All would answer, some in another way.
    Medium,
    /// All would answer as before.
    Low,
}

/// Something to do.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Step {
    pub(super) what: String,
    pub(super) why: String,
    pub(super) ingresses: Vec<String>,
}

/// On how many Ingresses an annotation stands, and what becomes of it there.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Usage {
    pub(super) name: String,
    pub(super) ingresses: usize,
    pub(super) refused: usize,
    pub(super) ignored: usize,
    pub(super) different: usize,
    pub(super) honoured: usize,
}

impl Usage {
    /// The five numbers, nothing for zero.
    pub(super) fn cells(&self) -> [String; 5] {
        [
            self.ingresses,
            self.refused,
            self.ignored,
            self.different,
            self.honoured,
        ]
        .map(|count| match count {
            0 => String::new(),
            count => count.to_string(),
        })
    }
}

/// How ready an Ingress is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Readiness {
    /// Some of its routes would answer 503, or not be there.
    Blocked,
    /// It would be served, but not entirely as before.
    Review,
    /// It would be served as before.
    Ready,
}

/// One Ingress.
#[derive(Clone, Debug, Serialize)]
pub(super) struct IngressReport {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) readiness: Readiness,
    pub(super) hosts: Vec<String>,
    /// Its annotations, the worst first.
    pub(super) items: Vec<Item>,
    /// What is to be said beside them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) findings: Vec<String>,
}

impl IngressReport {
    pub(super) fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// What becomes of an annotation, a key or a flag.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// The routes answer 503 rather than without it.
    Refused,
    /// Nothing follows from it.
    Ignored,
    /// Nearly as before.
    Different,
    /// As before.
    Honoured,
}

impl Verdict {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Ignored => "ignored",
            Self::Different => "different",
            Self::Honoured => "honoured",
        }
    }
}

/// An annotation, a key or a flag.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub(super) struct Item {
    pub(super) verdict: Verdict,
    pub(super) name: String,
    /// The difference, or why; empty where nothing is to be said.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) text: String,
}

/// The `ConfigMap` of the controller.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ConfigMapReport {
    pub(super) name: String,
    pub(super) items: Vec<Item>,
}

/// An Ingress of another class.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LeftOut {
    pub(super) ingress: String,
    pub(super) why: String,
}
