//! What an Ingress asks for on connections to its backends.

use crate::annotation::Annotations;
use crate::report::Reason;
use crate::{NamespacedName, Problem};

/// TLS towards backends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct BackendTlsPart {
    pub(crate) secret: Option<NamespacedName>,
    pub(crate) verify: bool,
    pub(crate) name: Option<Box<str>>,
}

/// Reads the annotations together. What cannot be verified as it is asked for closes the routes.
pub(crate) fn read(
    annotations: &mut Annotations,
    namespace: &str,
    problems: &mut Vec<Problem>,
) -> Option<BackendTlsPart> {
    let values = annotations.backend_tls.as_deref()?;
    let closed = match &values.secret {
        None if values.verify => {
            "`proxy-ssl-verify` needs `proxy-ssl-secret`, with the authority in `ca.crt`".to_owned()
        }
        Some((Some(other), name)) if **other != *namespace => format!(
            "`proxy-ssl-secret` names Secret {other}/{name}, and a Secret of another namespace is not read"
        ),
        secret => {
            let secret = secret
                .as_ref()
                .map(|(_, name)| NamespacedName::new(namespace, name));
            let asked = secret.is_some() || values.name.is_some();
            return asked.then(|| BackendTlsPart {
                secret,
                verify: values.verify,
                name: values.name.clone(),
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
