//! Objects that annotations name.

use crate::{NamespacedName, Snapshot};

/// The object that an annotation of an Ingress in `namespace` names, in the same namespace or in one that grants it, or
/// why it is not read.
pub(crate) fn object(
    (other, name): &(Option<Box<str>>, Box<str>),
    namespace: &str,
    kind: &str,
    annotation: &str,
    snapshot: &Snapshot,
) -> Result<NamespacedName, String> {
    let object = NamespacedName::new(other.as_deref().unwrap_or(namespace), name);
    if snapshot.may_refer(namespace, kind, &object) {
        return Ok(object);
    }
    Err(format!(
        "`{annotation}` names {kind} {object}, and a {kind} of another namespace is not read unless a ReferenceGrant there lets Ingresses of {namespace} name it"
    ))
}
