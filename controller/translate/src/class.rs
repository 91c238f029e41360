//! Is this Ingress ours?
//!
//! | the Ingress | ours if |
//! | --- | --- |
//! | `spec.ingressClassName` | an IngressClass of this name exists and its `spec.controller` is our controller name |
//! | else the annotation `kubernetes.io/ingress.class` | it equals our class name; no IngressClass has to exist |
//! | neither | class-less Ingresses are watched, or (without admission) the default IngressClass is ours |
//!
//! The field wins over the annotation. Of several default classes the newest one counts, then the first by name, as in
//! the API server's admission. Classes that come, change and go take effect at once.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

use crate::Settings;

/// The class that an Ingress names.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum NamedClass {
    /// By `spec.ingressClassName`.
    Field(Box<str>),
    /// By the legacy annotation.
    Annotation(Box<str>),
    /// By nothing.
    None,
}

/// The class that an Ingress names.
pub(crate) fn named_class(ingress: &Ingress) -> NamedClass {
    let field = ingress
        .spec
        .as_ref()
        .and_then(|spec| spec.ingress_class_name.as_deref());
    let annotation = ingress
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(crds::CLASS_ANNOTATION));
    match (field, annotation) {
        (Some(name), _) => NamedClass::Field(name.into()),
        (None, Some(name)) => NamedClass::Annotation(name.as_str().into()),
        (None, None) => NamedClass::None,
    }
}

/// Is an Ingress that names this class ours? `Err` says why not.
pub(crate) fn claim(
    class: &NamedClass,
    classes: &BTreeMap<Box<str>, Arc<IngressClass>>,
    settings: &Settings,
) -> Result<(), &'static str> {
    match class {
        NamedClass::Field(name) => match classes.get(name) {
            None => Err("its IngressClass does not exist"),
            Some(class) if is_ours(class, settings) => Ok(()),
            Some(_) => Err("its IngressClass belongs to another controller"),
        },
        NamedClass::Annotation(name) if **name == *settings.ingress_class => Ok(()),
        NamedClass::Annotation(_) => {
            Err("its annotation kubernetes.io/ingress.class names another class")
        }
        NamedClass::None if settings.watch_without_class => Ok(()),
        NamedClass::None if !settings.adopt_default_class => Err("it names no class"),
        NamedClass::None => match default_class(classes) {
            None => Err("it names no class, and no IngressClass is the default"),
            Some(class) if is_ours(class, settings) => Ok(()),
            Some(_) => {
                Err("it names no class, and the default IngressClass belongs to another controller")
            }
        },
    }
}

fn is_ours(class: &IngressClass, settings: &Settings) -> bool {
    class
        .spec
        .as_ref()
        .and_then(|spec| spec.controller.as_deref())
        == Some(settings.controller_name.as_str())
}

fn default_class(classes: &BTreeMap<Box<str>, Arc<IngressClass>>) -> Option<&Arc<IngressClass>> {
    classes
        .iter()
        .filter(|(_, class)| {
            class
                .metadata
                .annotations
                .as_ref()
                .and_then(|annotations| annotations.get(crds::DEFAULT_CLASS_ANNOTATION))
                .is_some_and(|value| value == "true")
        })
        .min_by_key(|(name, class)| {
            (
                Reverse(
                    class
                        .metadata
                        .creation_timestamp
                        .as_ref()
                        .map(|time| time.0),
                ),
                *name,
            )
        })
        .map(|(_, class)| class)
}
