//! What the namespaces of a cluster may ask for.
#![expect(
    clippy::duplicated_attributes,
    reason = "every column has a type and a path of its own"
)]

use kube_core::CustomResourceExt;
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Condition;

/// What the Ingresses of some namespaces may ask for, and whose hosts are whose.
///
/// Where several policies are for a namespace, the annotations that all of them permit may be used, the smallest of
/// their limits counts, and the hosts of each may be claimed.
#[derive(
    Clone, CustomResource, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize,
)]
#[kube(
    group = "lockgate.dev",
    version = "v1alpha1",
    kind = "GatewayPolicy",
    plural = "gatewaypolicies",
    status = "GatewayPolicyStatus",
    derive = "PartialEq",
    derive = "Default",
    shortname = "gwpol",
    category = "lockgate",
    doc = "What the Ingresses of some namespaces may ask for, and whose hosts are whose.",
    printcolumn(name = "Namespaces", type_ = "string", json_path = ".spec.namespaces"),
    printcolumn(name = "Hosts", type_ = "string", json_path = ".spec.hosts"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Violated",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Violated\")].status"
    ),
    crates(kube_core = "::kube_core")
)]
#[serde(rename_all = "camelCase")]
pub struct GatewayPolicySpec {
    /// Names of namespaces; `*` stands for any text. None is every namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        inner(length(min = 1, max = 63), regex(pattern = r"^[-a-z0-9*]+$"))
    )]
    pub namespaces: Vec<String>,
    /// Hosts that belong to these namespaces: a name, `*.` and a name for everything below it, or `*` for all others.
    /// They may claim no other hosts, and others may not claim these. None leaves hosts to whoever claims them first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        inner(
            length(min = 1, max = 255),
            regex(pattern = r"^(\*|(\*\.)?[A-Za-z0-9_][-A-Za-z0-9_.]*)$")
        )
    )]
    pub hosts: Vec<String>,
    /// The highest risk of an annotation that may be used, as `docs/annotations.md` says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_risk: Option<RiskLevel>,
    /// Annotations (without prefix) that may be used although their risk is higher. Without `maxRisk`, no others may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 253)))]
    pub allow_annotations: Vec<String>,
    /// Annotations (without prefix) that may not be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 253)))]
    pub deny_annotations: Vec<String>,
    /// What values may not exceed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitPolicy>,
}

/// How much harm a hostile value of an annotation could do.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
pub enum RiskLevel {
    /// None beyond the route itself.
    Low,
    /// It sends requests or data elsewhere, or reads other objects.
    Medium,
    /// It acts on hosts of others, or opens what was closed.
    High,
    /// It is code.
    Critical,
}

/// What values may not exceed. A larger one counts as the limit.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitPolicy {
    /// Bytes of the body of a request, with `k`, `m` or `g` for larger units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[1-9][0-9]*[bkmgBKMG]?$"))]
    pub body_size: Option<String>,
    /// Seconds of each timeout towards backends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub timeout_seconds: Option<u32>,
    /// How many endpoints one request may be sent to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub tries: Option<u32>,
}

/// What became of a policy.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayPolicyStatus {
    /// `Accepted` says whether it can be used, `Violated` whether an Ingress asks for more than it permits.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

impl GatewayPolicy {
    /// The definition of the kind, for `config/crd`.
    pub fn definition() -> impl Serialize {
        Self::crd()
    }
}
