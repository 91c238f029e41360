//! What an Ingress asks for to know its users.

use std::sync::Arc;

use model::ExternalAuth;

use super::reference;
use crate::annotation::Annotations;
use crate::object::kinds;
use crate::report::Reason;
use crate::secret::UsersForm;
use crate::settings::Settings;
use crate::{NamespacedName, Problem, Snapshot};

/// Users by name and password.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct BasicPart {
    pub(crate) secret: NamespacedName,
    pub(crate) form: UsersForm,
    pub(crate) realm: Option<String>,
}

/// Reads the annotations together. What is asked for by halves closes the routes.
pub(crate) fn basic(
    annotations: &mut Annotations,
    namespace: &str,
    snapshot: &Snapshot,
    problems: &mut Vec<Problem>,
) -> Option<BasicPart> {
    let values = annotations.access.as_deref()?;
    let (reason, closed) = match (&values.secret, values.basic) {
        (None, false) => return None,
        (None, true) => (
            Reason::InvalidAnnotation,
            "`auth-type` needs `auth-secret`".to_owned(),
        ),
        // Without `auth-type`, too: whoever names a Secret with passwords wants them to be asked for.
        (Some(named), _) => {
            match reference::object(named, namespace, kinds::SECRET, "auth-secret", snapshot) {
                Ok(secret) => {
                    return Some(BasicPart {
                        secret,
                        form: values.form,
                        realm: values.realm.clone(),
                    });
                }
                Err(why) => (Reason::ReferenceRefused, why),
            }
        }
    };
    close(annotations, reason, &closed, problems);
    None
}

/// Another server that is asked about requests.
pub(crate) fn external(
    annotations: &mut Annotations,
    settings: &Settings,
    problems: &mut Vec<Problem>,
) -> Option<Arc<ExternalAuth>> {
    if annotations.is_canary() {
        // The Ingress that it belongs to guards it.
        return None;
    }
    let values = &annotations.access.as_deref()?.external;
    let together = values.together(settings);
    if values.is_half() && annotations.closed.is_none() {
        // Whoever says how to ask wants somebody to be asked.
        let text = "annotations of external authentication need `auth-url`";
        close(annotations, Reason::InvalidAnnotation, text, problems);
    }
    together
}

pub(super) fn close(
    annotations: &mut Annotations,
    reason: Reason,
    why: &str,
    problems: &mut Vec<Problem>,
) {
    annotations.closed.get_or_insert("invalid-annotation");
    problems.push(Problem::error(
        reason,
        "metadata.annotations",
        &format!("{why}; the routes of this Ingress answer 503 rather than without it"),
    ));
}
