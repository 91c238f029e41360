//! What an Ingress asks for to know its users.

use crate::annotation::Annotations;
use crate::report::Reason;
use crate::secret::UsersForm;
use crate::{NamespacedName, Problem};

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
    problems: &mut Vec<Problem>,
) -> Option<BasicPart> {
    let values = annotations.access.as_deref()?;
    let closed = match (&values.secret, values.basic) {
        (None, false) => return None,
        (None, true) => "`auth-type` needs `auth-secret`".to_owned(),
        (Some((Some(other), name)), _) if **other != *namespace => format!(
            "`auth-secret` names Secret {other}/{name}, and a Secret of another namespace is not read"
        ),
        // Without `auth-type`, too: whoever names a Secret with passwords wants them to be asked for.
        (Some((_, name)), _) => {
            return Some(BasicPart {
                secret: NamespacedName::new(namespace, name),
                form: values.form,
                realm: values.realm.clone(),
            });
        }
    };
    annotations.closed.get_or_insert("invalid-annotation");
    problems.push(Problem::error(
        Reason::InvalidAnnotation,
        "metadata.annotations",
        &format!("{closed}; the routes of this Ingress answer 503 rather than without it"),
    ));
    None
}
