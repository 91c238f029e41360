//! Which object an entry came from, for logs and blame.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Name;

/// An object of the cluster or of the manifests folder.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectRef {
    /// Kind, for example `Ingress`.
    pub kind: Name,
    /// Namespace; empty for objects of the whole cluster.
    pub namespace: Name,
    /// Name.
    pub name: Name,
}

impl ObjectRef {
    /// The object of this kind, namespace and name.
    pub fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self {
            kind: kind.into(),
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// A field of an object. Its parts are shared: there is one of these for each route, and each route is known to several.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The object.
    pub object: Arc<ObjectRef>,
    /// The field in it, for example `spec.rules[0].http.paths[1]`; empty for the whole object.
    #[serde(default)]
    pub field: Arc<str>,
}

impl Origin {
    /// This field of this object.
    pub fn new(object: ObjectRef, field: &str) -> Self {
        Self {
            object: Arc::new(object),
            field: field.into(),
        }
    }

    /// The same, of what others have already.
    pub fn shared(object: &Arc<ObjectRef>, field: &Arc<str>) -> Self {
        Self {
            object: Arc::clone(object),
            field: Arc::clone(field),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.object.fmt(f)?;
        if self.field.is_empty() {
            Ok(())
        } else {
            write!(f, " {}", self.field)
        }
    }
}
