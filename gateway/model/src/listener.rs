//! Where connections arrive.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Name of a listener. The Ingress API has two: [`ListenerName::http`] and [`ListenerName::https`].
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct ListenerName(Box<str>);

impl ListenerName {
    /// A listener of this name.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The listener for plain HTTP.
    pub fn http() -> Self {
        Self::new("http")
    }

    /// The listener that terminates TLS.
    pub fn https() -> Self {
        Self::new("https")
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ListenerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenerProtocol {
    /// HTTP/1.x, and HTTP/2 with prior knowledge, without TLS.
    Http,
    /// TLS, then HTTP/1.x or HTTP/2 as ALPN decides.
    Https,
}

/// A place where connections arrive.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// What it speaks.
    pub protocol: ListenerProtocol,
}

/// Which listeners a route is attached to.
#[derive(Clone, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenerSelector {
    /// Every listener.
    #[default]
    All,
    /// These ones.
    Only(BTreeSet<ListenerName>),
}

impl ListenerSelector {
    /// Is it the default?
    pub fn is_all(&self) -> bool {
        *self == Self::All
    }
}
