//! Routing, rewrites, redirects.

use super::super::{Annotation, Group, PENDING, Risk, Scope, Value};
use crate::value;

/// Routing, rewrites, redirects.
pub(super) static ROUTING: &[Annotation] = &[
    Annotation::ignored("rewrite-target", Value::Path, PENDING).scope(Scope::Host).risk(Risk::Medium).about(Group::Routing, "Replaces the path that goes to the backend; groups of the path are `$1` to `$9`. Switches the host to regular expressions."),
    Annotation::ignored("use-regex", Value::Boolean, PENDING).by_default("false").scope(Scope::Host).about(Group::Routing, "The paths are regular expressions. Switches the host to regular expressions."),
    Annotation::honoured("ssl-redirect", Value::Boolean, |read, text| value::boolean(text).map(|v| read.ssl_redirect = Some(v))).by_default("true").about(Group::Routing, "Sends plain HTTP to https where the host has a certificate."),
    Annotation::honoured("force-ssl-redirect", Value::Boolean, |read, text| value::boolean(text).map(|v| read.force_ssl_redirect = Some(v))).by_default("false").risk(Risk::Medium).about(Group::Routing, "Sends plain HTTP to https, certificate or not."),
    Annotation::ignored("app-root", Value::Path, PENDING).scope(Scope::Host).risk(Risk::Medium).about(Group::Routing, "Sends `/` to this path with 302."),
    Annotation::ignored("permanent-redirect", Value::Url, PENDING).risk(Risk::Medium).about(Group::Routing, "Redirects to this URL with 301, and asks no backend."),
    Annotation::ignored("permanent-redirect-code", Value::Number(300, 308), PENDING).by_default("301").about(Group::Routing, "The status of `permanent-redirect`."),
    Annotation::ignored("temporal-redirect", Value::Url, PENDING).risk(Risk::Medium).about(Group::Routing, "Redirects to this URL with 302; wins over `permanent-redirect`."),
    Annotation::ignored("temporal-redirect-code", Value::Number(300, 307), PENDING).by_default("302").about(Group::Routing, "The status of `temporal-redirect`."),
    Annotation::ignored("from-to-www-redirect", Value::Boolean, PENDING).by_default("false").scope(Scope::Host).about(Group::Routing, "Redirects the name with `www.` to the one without, or the other way round, whichever the rules do not have."),
    Annotation::ignored("server-alias", Value::Hosts, PENDING).scope(Scope::Host).risk(Risk::High).about(Group::Routing, "More names for the hosts of the Ingress."),
    Annotation::ignored("preserve-trailing-slash", Value::Boolean, PENDING).by_default("false").risk(Risk::Medium).about(Group::Routing, "Keeps the slash at the end of the path when redirecting to https."),
    Annotation::ignored("use-port-in-redirects", Value::Boolean, PENDING).by_default("false").about(Group::Routing, "Puts the port of https into redirects."),
    Annotation::ignored("relative-redirects", Value::Boolean, PENDING).by_default("false").about(Group::Routing, "Redirects without scheme and host."),
    Annotation::ignored("x-forwarded-prefix", Value::Path, PENDING).risk(Risk::Medium).about(Group::Routing, "Sends this as `X-Forwarded-Prefix` where `rewrite-target` rewrites; groups of the path are `$1` to `$9`."),
    Annotation::ignored("upstream-vhost", Value::Host, PENDING).about(Group::Routing, "The `Host` that the backend sees."),
];
