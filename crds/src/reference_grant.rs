//! Who may name objects of another namespace. The kind belongs to the Gateway API; Lockgate only reads it.

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Lets objects of other namespaces refer to objects of this one (Gateway API, `ReferenceGrant`).
#[derive(
    Clone, CustomResource, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize,
)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1beta1",
    kind = "ReferenceGrant",
    namespaced,
    derive = "PartialEq",
    derive = "Default",
    doc = "Lets objects of other namespaces refer to objects of this one.",
    crates(kube_core = "::kube_core")
)]
#[serde(rename_all = "camelCase")]
pub struct ReferenceGrantSpec {
    /// What may refer.
    #[serde(default)]
    pub from: Vec<ReferenceFrom>,
    /// What may be referred to.
    #[serde(default)]
    pub to: Vec<ReferenceTo>,
}

/// Objects of one kind in one namespace.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReferenceFrom {
    /// Their API group.
    #[serde(default)]
    pub group: String,
    /// Their kind.
    #[serde(default)]
    pub kind: String,
    /// Where they are.
    #[serde(default)]
    pub namespace: String,
}

/// Objects of one kind in the namespace of the grant, or one of them.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReferenceTo {
    /// Their API group; empty for the core group.
    #[serde(default)]
    pub group: String,
    /// Their kind.
    #[serde(default)]
    pub kind: String,
    /// The only one that may be referred to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}
