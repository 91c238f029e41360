//! What an Ingress asks for on connections to its backends.

use super::reference;
use crate::annotation::Annotations;
use crate::object::kinds;
use crate::report::Reason;
use crate::{NamespacedName, Problem, Snapshot};

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
    snapshot: &Snapshot,
    problems: &mut Vec<Problem>,
) -> Option<BackendTlsPart> {
    let values = annotations.backend_tls.as_deref()?;
    let secret = values.secret.as_ref().map(|named| {
        reference::object(
            named,
            namespace,
            kinds::SECRET,
            "proxy-ssl-secret",
            snapshot,
        )
    });
    let closed = match secret {
        None if values.verify => {
            "`proxy-ssl-verify` needs `proxy-ssl-secret`, with the authority in `ca.crt`".to_owned()
        }
        Some(Err(why)) => why,
        secret => {
            let secret = secret.and_then(Result::ok);
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
