//! What an Ingress asks for on connections to its backends.

use model::{BackendTlsLimits, TlsVersion};

use super::auth::close;
use super::reference;
use crate::annotation::{Annotations, BackendTlsValues};
use crate::object::kinds;
use crate::report::Reason;
use crate::{NamespacedName, Problem, Snapshot};

/// So many authorities the library follows by itself.
const LONGEST_CHAIN: u32 = 6;

/// TLS towards backends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct BackendTlsPart {
    pub(crate) secret: Option<NamespacedName>,
    pub(crate) verify: bool,
    pub(crate) name: Option<Box<str>>,
    pub(crate) limits: Option<Box<BackendTlsLimits>>,
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
    let (reason, closed) = match secret {
        None if values.verify => (
            Reason::InvalidAnnotation,
            "`proxy-ssl-verify` needs `proxy-ssl-secret`, with the authority in `ca.crt`"
                .to_owned(),
        ),
        Some(Err(why)) => (Reason::ReferenceRefused, why),
        secret => {
            let secret = secret.and_then(Result::ok);
            let limits = limits(values);
            let asked = secret.is_some() || values.name.is_some() || limits.is_some();
            return asked.then(|| BackendTlsPart {
                secret,
                verify: values.verify,
                name: values.name.clone(),
                limits: limits.map(Box::new),
            });
        }
    };
    close(annotations, reason, &closed, problems);
    None
}

/// How much less is spoken than the library speaks; `None` if that is nothing.
fn limits(values: &BackendTlsValues) -> Option<BackendTlsLimits> {
    let version = match values.versions {
        Some((true, false)) => Some(TlsVersion::V1_2),
        Some((false, true)) => Some(TlsVersion::V1_3),
        Some(_) | None => None,
    };
    let cipher_suites = match version {
        // The list says nothing about them.
        Some(TlsVersion::V1_3) => Vec::new(),
        Some(TlsVersion::V1_2) | None => {
            let suites = values.cipher_suites.iter();
            suites.copied().map(str::to_owned).collect()
        }
    };
    let depth = values
        .depth
        .filter(|depth| values.verify && *depth < LONGEST_CHAIN);
    let narrowed = version.is_some() || !cipher_suites.is_empty() || depth.is_some();
    narrowed.then_some(BackendTlsLimits {
        version,
        cipher_suites,
        depth,
        http2: values.http2,
    })
}
