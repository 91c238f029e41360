//! Requests that are not served.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Requests that are answered with an error. All conditions have to hold; a rule without any holds for every request.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DenyRule {
    /// 400 to 599.
    pub status: u16,
    /// The method is one of these; empty for any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// The method is none of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except_methods: Vec<String>,
    /// The path, in the form in which routes are found or with its escapes taken off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<TextCondition>,
    /// Header fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderCondition>,
    /// The client is in one of these networks; empty for any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<IpNet>,
    /// The client is in none of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except_from: Vec<IpNet>,
}

/// What a text has to be.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TextCondition {
    /// Equal.
    Exact(String),
    /// It begins so, whatever follows.
    Prefix(String),
    /// This regular expression matches somewhere in it.
    Regex(String),
}

/// What a header field has to be. Of a repeated field, one of its values or all of them joined with `, ` are enough; one
/// that is not there is an empty text.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderCondition {
    /// Field name, any case.
    pub name: String,
    /// Its value.
    pub value: TextCondition,
    /// Holds where the value is another one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not: bool,
}
