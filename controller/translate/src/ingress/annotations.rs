//! Annotations of an Ingress.
//!
//! Each annotation with the prefix of ingress-nginx gets a verdict that its owner can see:
//!
//! | verdict | which | what happens |
//! | --- | --- | --- |
//! | honoured | [`HONOURED`] | as ingress-nginx does; a value that cannot be read is reported and the default applies |
//! | closing | [`ACCESS_CONTROL`] | Lockgate does not have it yet and leaving it out would open what shall be closed: the routes of the Ingress answer 503 |
//! | withheld | `canary: "true"` | the Ingress is not served by itself, as it would take all requests instead of a share |
//! | ignored | all others | a warning |

use std::collections::BTreeMap;

use model::BackendProtocol;

use crate::Problem;
use crate::report::{Reason, quoted};
use crate::value;

/// The annotations that are honoured, without their prefix.
pub const HONOURED: [&str; 6] = [
    "backend-protocol",
    "force-ssl-redirect",
    "proxy-connect-timeout",
    "proxy-read-timeout",
    "proxy-send-timeout",
    "ssl-redirect",
];

/// Annotations that decide who may pass, without their prefix. A route that asks for one is closed.
pub const ACCESS_CONTROL: [&str; 9] = [
    "allowlist-source-range",
    "auth-secret",
    "auth-tls-match-cn",
    "auth-tls-secret",
    "auth-tls-verify-client",
    "auth-type",
    "auth-url",
    "denylist-source-range",
    "whitelist-source-range",
];

/// What the annotations of one Ingress say.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Annotations {
    pub(crate) ssl_redirect: Option<bool>,
    pub(crate) force_ssl_redirect: Option<bool>,
    pub(crate) protocol: Option<BackendProtocol>,
    pub(crate) connect_timeout: Option<u32>,
    pub(crate) read_timeout: Option<u32>,
    pub(crate) send_timeout: Option<u32>,
    /// Access control was asked for that there is not.
    pub(crate) closed: bool,
    /// Meant to get a share of another Ingress's requests.
    pub(crate) canary: bool,
}

/// Reads the annotations of an Ingress.
pub(crate) fn read(
    annotations: Option<&BTreeMap<String, String>>,
    problems: &mut Vec<Problem>,
) -> Annotations {
    let mut read = Annotations::default();
    for (name, text) in annotations.into_iter().flatten() {
        let Some(short) = name.strip_prefix(crds::NGINX_ANNOTATION_PREFIX) else {
            continue;
        };
        let field = format!("metadata.annotations[{name}]");
        let result = match short {
            "ssl-redirect" => value::boolean(text).map(|v| read.ssl_redirect = Some(v)),
            "force-ssl-redirect" => value::boolean(text).map(|v| read.force_ssl_redirect = Some(v)),
            "backend-protocol" => protocol(text).map(|v| read.protocol = Some(v)),
            "proxy-connect-timeout" => value::seconds(text).map(|v| read.connect_timeout = Some(v)),
            "proxy-read-timeout" => value::seconds(text).map(|v| read.read_timeout = Some(v)),
            "proxy-send-timeout" => value::seconds(text).map(|v| read.send_timeout = Some(v)),
            "canary" => {
                // An unreadable value is nearer to `true`: whoever writes it does not mean a normal Ingress.
                read.canary = value::boolean(text).unwrap_or(true);
                if read.canary {
                    problems.push(Problem::error(
                        Reason::UnsupportedAnnotation,
                        &field,
                        "canary Ingresses are not supported; the routes of this Ingress are not served",
                    ));
                }
                continue;
            }
            _ if ACCESS_CONTROL.contains(&short) => {
                if short == "auth-tls-verify-client" && text.trim() == "off" {
                    continue;
                }
                read.closed = true;
                problems.push(Problem::error(
                    Reason::UnsupportedAnnotation,
                    &field,
                    "this access control is not supported; the routes of this Ingress answer 503 rather than without it",
                ));
                continue;
            }
            _ => {
                problems.push(Problem::warning(
                    Reason::UnsupportedAnnotation,
                    &field,
                    "this annotation is not honoured; it has no effect",
                ));
                continue;
            }
        };
        if let Err(reason) = result {
            problems.push(Problem::error(
                Reason::InvalidAnnotation,
                &field,
                &format!(
                    "{} cannot be used: {reason}; the default applies",
                    quoted(text)
                ),
            ));
        }
    }
    read
}

fn protocol(text: &str) -> Result<BackendProtocol, String> {
    match text.trim().to_ascii_uppercase().as_str() {
        "HTTP" => Ok(BackendProtocol::Http1),
        "HTTPS" | "GRPCS" => Ok(BackendProtocol::Https),
        "GRPC" => Ok(BackendProtocol::H2c),
        "AUTO_HTTP" | "FCGI" => Err("this protocol is not supported".to_owned()),
        _ => Err("it is none of HTTP, HTTPS, GRPC and GRPCS".to_owned()),
    }
}
