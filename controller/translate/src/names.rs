//! Names of namespaced objects.

use std::fmt;
use std::str::FromStr;

use model::{Name, ObjectRef};
use serde::{Serialize, Serializer};
use thiserror::Error;

/// Name and namespace of an object. Written `namespace/name`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NamespacedName {
    /// The namespace.
    pub namespace: Name,
    /// The name.
    pub name: Name,
}

/// A text that is not `namespace/name`.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("`{0}` is not of the form namespace/name")]
pub struct InvalidName(String);

impl NamespacedName {
    /// The object of this name in this namespace.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The same as the object of a kind.
    pub fn reference(&self, kind: &str) -> ObjectRef {
        ObjectRef::new(kind, &self.namespace, &self.name)
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for NamespacedName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text.split_once('/') {
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
            {
                Ok(Self::new(namespace, name))
            }
            _ => Err(InvalidName(text.to_owned())),
        }
    }
}

impl Serialize for NamespacedName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_exactly_two_parts() {
        assert_eq!("a/b".parse(), Ok(NamespacedName::new("a", "b")));
        for bad in ["", "a", "/", "a/", "/b", "a/b/c"] {
            assert!(bad.parse::<NamespacedName>().is_err(), "{bad}");
        }
        assert_eq!(NamespacedName::new("a", "b").to_string(), "a/b");
    }
}
