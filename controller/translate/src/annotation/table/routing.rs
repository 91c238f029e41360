//! Routing, rewrites, redirects.

use model::HostPattern;

use super::super::{Annotation, Group, Risk, Scope, Value};
use crate::report::quoted;
use crate::value;

/// Routing, rewrites, redirects.
pub(super) static ROUTING: &[Annotation] = &[
    Annotation::different("rewrite-target", Value::Path, |read, text| value::path_with_groups(text).map(|v| read.routing().rewrite = Some(v)), "the path is rewritten in its encoded form and brought into normal form afterwards; a URL cannot be a target").scope(Scope::Host).risk(Risk::Medium).about(Group::Routing, "Replaces the path that goes to the backend; groups of the path are `$1` to `$9`. Switches the host to regular expressions."),
    Annotation::different("use-regex", Value::Boolean, |read, text| value::boolean(text).map(|v| read.routing().use_regex = v), "expressions of linear time: no look-around, no back-references; they see the path in its encoded form").alike(|text| value::boolean(text) == Ok(false)).by_default("false").scope(Scope::Host).about(Group::Routing, "The paths are regular expressions. Switches the host to regular expressions."),
    Annotation::honoured("ssl-redirect", Value::Boolean, |read, text| value::boolean(text).map(|v| read.ssl_redirect = Some(v))).by_default("true").about(Group::Routing, "Sends plain HTTP to https where the host has a certificate."),
    Annotation::honoured("force-ssl-redirect", Value::Boolean, |read, text| value::boolean(text).map(|v| read.force_ssl_redirect = Some(v))).by_default("false").risk(Risk::Medium).about(Group::Routing, "Sends plain HTTP to https, certificate or not."),
    Annotation::honoured("app-root", Value::Path, |read, text| value::absolute_path(text).map(|v| read.routing().app_root = Some(v))).scope(Scope::Host).risk(Risk::Medium).about(Group::Routing, "Sends `/` to this path with 302."),
    Annotation::honoured("permanent-redirect", Value::Url, |read, text| value::url(text).map(|v| read.routing().permanent = Some(v))).risk(Risk::Medium).about(Group::Routing, "Redirects to this URL with 301, and asks no backend."),
    Annotation::different("permanent-redirect-code", Value::Number(300, 308), |read, text| redirect_code(text).map(|v| read.routing().permanent_code = Some(v)), "301, 302, 303, 307 and 308; the others are no redirects").alike_if_readable().by_default("301").about(Group::Routing, "The status of `permanent-redirect`."),
    Annotation::honoured("temporal-redirect", Value::Url, |read, text| value::url(text).map(|v| read.routing().temporal = Some(v))).risk(Risk::Medium).about(Group::Routing, "Redirects to this URL with 302; wins over `permanent-redirect`."),
    Annotation::different("temporal-redirect-code", Value::Number(300, 307), |read, text| redirect_code(text).map(|v| read.routing().temporal_code = Some(v)), "301, 302, 303, 307 and 308; the others are no redirects").alike_if_readable().by_default("302").about(Group::Routing, "The status of `temporal-redirect`."),
    Annotation::honoured("from-to-www-redirect", Value::Boolean, |read, text| value::boolean(text).map(|v| read.routing().www = v)).by_default("false").scope(Scope::Host).about(Group::Routing, "Redirects the name with `www.` to the one without, or the other way round, whichever the rules do not have."),
    Annotation::different("server-alias", Value::Hosts, |read, text| aliases(text).map(|v| read.routing().aliases = v), "names and `*.` wildcards, no regular expressions").alike_if_readable().scope(Scope::Host).risk(Risk::High).about(Group::Routing, "More names for the hosts of the Ingress."),
    Annotation::different("preserve-trailing-slash", Value::Boolean, |_, text| value::boolean(text).map(|_| ()), "it is always kept").alike(|text| value::boolean(text) == Ok(true)).by_default("false").risk(Risk::Medium).about(Group::Routing, "Keeps the slash at the end of the path when redirecting to https."),
    Annotation::ignored("use-port-in-redirects", Value::Boolean, "the gateway does not know the port that clients see").by_default("false").about(Group::Routing, "Puts the port of https into redirects."),
    Annotation::ignored("relative-redirects", Value::Boolean, "redirects name scheme and host").by_default("false").about(Group::Routing, "Redirects without scheme and host."),
    Annotation::honoured("x-forwarded-prefix", Value::Path, |read, text| value::path_with_groups(text).map(|v| read.routing().prefix = Some(v))).risk(Risk::Medium).about(Group::Routing, "Sends this as `X-Forwarded-Prefix` where `rewrite-target` rewrites; groups of the path are `$1` to `$9`."),
    Annotation::different("upstream-vhost", Value::Host, |read, text| value::printable(text).map(|v| read.routing().upstream_host = Some(v)), "a closed set of variables").alike(|text| !text.contains('$')).about(Group::Routing, "The `Host` that the backend sees."),
];

fn redirect_code(text: &str) -> Result<u16, String> {
    match text.trim() {
        "301" => Ok(301),
        "302" => Ok(302),
        "303" => Ok(303),
        "307" => Ok(307),
        "308" => Ok(308),
        _ => Err("it is none of 301, 302, 303, 307 and 308".to_owned()),
    }
}

fn aliases(text: &str) -> Result<Vec<HostPattern>, String> {
    value::list(text)
        .map(|name| match HostPattern::parse(name) {
            Ok(HostPattern::Any) => Err("`*` is not a name".to_owned()),
            Ok(_) if name.starts_with("**") => Err(format!("{} is not a host name", quoted(name))),
            Ok(pattern) => Ok(pattern),
            Err(_) if name.starts_with('~') => {
                Err("a regular expression cannot be an alias; list the names".to_owned())
            }
            Err(fault) => Err(format!("{} is not a host name: {fault}", quoted(name))),
        })
        .collect()
}
