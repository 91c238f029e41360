//! The ConfigMaps with headers that an Ingress names.

use crate::NamespacedName;
use crate::annotation::Annotations;

/// ConfigMaps with headers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct HeaderConfigMaps {
    /// For responses.
    pub(crate) custom: Option<Box<NamespacedName>>,
    /// For questions about requests.
    pub(crate) asked: Option<Box<NamespacedName>>,
}

impl HeaderConfigMaps {
    /// Those of these annotations.
    pub(crate) fn read(annotations: &Annotations, namespace: &str) -> Self {
        if annotations.is_canary() {
            // It has what the Ingress has that it belongs to.
            return Self::default();
        }
        let named = |name: Option<&(Option<Box<str>>, Box<str>)>| {
            name.map(|(of, name)| {
                Box::new(NamespacedName::new(
                    of.as_deref().unwrap_or(namespace),
                    name,
                ))
            })
        };
        let traffic = annotations.traffic.as_deref();
        let access = annotations.access.as_deref();
        Self {
            custom: named(traffic.and_then(|traffic| traffic.headers.as_ref())),
            asked: named(access.and_then(|access| access.external.headers.as_ref())),
        }
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &NamespacedName> {
        let Self { custom, asked } = self;
        custom.iter().chain(asked).map(|name| &**name)
    }
}
