//! What an Ingress makes of certificates of clients.

use super::auth::close;
use super::reference;
use crate::annotation::{Annotations, Verify};
use crate::object::kinds;
use crate::report::Reason;
use crate::{NamespacedName, Problem, Snapshot};

/// How many authorities may stand between a certificate and the one that it is traced back to.
const DEPTH: u32 = 1;

/// Certificates of clients.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ClientPart {
    /// The Secret with the authorities; `None` where it cannot be known which, so that nobody passes.
    pub(crate) secret: Option<NamespacedName>,
    pub(crate) verify: Verify,
    pub(crate) depth: u32,
    pub(crate) pass: bool,
    pub(crate) error_page: Option<String>,
    pub(crate) subject: Option<String>,
}

impl ClientPart {
    /// Is a client that passes here one that passes there?
    pub(crate) fn implies(&self, other: &Self) -> bool {
        let same_authority = other.verify == Verify::Off || self.secret == other.secret;
        same_authority
            && self.verify >= other.verify
            && self.depth <= other.depth
            && (other.subject.is_none() || self.subject == other.subject)
    }
}

/// Reads the annotations together. What is asked for by halves closes the routes.
pub(crate) fn read(
    annotations: &mut Annotations,
    namespace: &str,
    snapshot: &Snapshot,
    problems: &mut Vec<Problem>,
) -> Option<ClientPart> {
    if annotations.is_canary() {
        // The Ingress that it belongs to guards it.
        return None;
    }
    let values = annotations.clients.as_deref()?;
    let part = |secret| ClientPart {
        secret,
        verify: values.verify.unwrap_or_default(),
        depth: match values.depth {
            None | Some(0) => DEPTH,
            Some(depth) => depth,
        },
        pass: values.pass,
        error_page: values.error_page.clone(),
        subject: values.subject.clone(),
    };
    if values.broken {
        // Reported where it was read.
        return Some(part(None));
    }
    let secret = values.secret.as_ref().map(|named| {
        reference::object(named, namespace, kinds::SECRET, "auth-tls-secret", snapshot)
    });
    let (part, reason, closed) = match secret {
        Some(Ok(secret)) => return Some(part(Some(secret))),
        Some(Err(why)) => (part(None), Reason::ReferenceRefused, why),
        None => {
            let off = matches!(values.verify, Some(Verify::Off));
            let half = values.subject.is_some()
                || !off
                    && (values.verify.is_some()
                        || values.depth.is_some()
                        || values.pass
                        || values.error_page.is_some());
            if !half {
                return None;
            }
            // Whoever says how to verify wants something to be verified.
            let text = "annotations of certificates of clients need `auth-tls-secret`";
            (part(None), Reason::InvalidAnnotation, text.to_owned())
        }
    };
    close(annotations, reason, &closed, problems);
    Some(part)
}
