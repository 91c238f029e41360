//! Mirrors, firewalls, raw configuration.

use super::super::{Annotation, Annotations, Group, Risk, Scope, Value};
use crate::policy::{self, Snippet};
use crate::{external, value};

/// Why nothing of `ModSecurity` can be honoured.
const NO_FIREWALL: &str =
    "there is no ModSecurity in here; put a firewall before or behind Lockgate";
/// Why no snippet can be.
const NOT_EXECUTED: &str = "raw configuration is never executed";
/// What is other with those that can be said in another way.
const TRANSLATED: &str = "never executed: headers, refused requests, timeouts, rewrites and redirects are translated, as a `RoutePolicy` says them; anything else closes the routes";
/// The same for whole hosts.
const TRANSLATED_SERVER: &str = "never executed: headers, refused requests and redirects are translated, for the routes of this Ingress; anything else closes the routes";

/// Takes what can be said in another way; nothing else may be in it.
fn snippet(read: &mut Annotations, text: &str, place: Snippet) -> Result<(), String> {
    let spec = policy::snippet(text, place)?;
    // All of it or nothing: whoever accepts to go without a snippet goes without every part of it.
    if let Some(fault) = policy::apply(&spec, &mut Annotations::default()).first() {
        return Err(fault.text.clone());
    }
    policy::apply(&spec, read);
    Ok(())
}

/// Mirrors, firewalls, raw configuration.
pub(super) static RAW: &[Annotation] = &[
    Annotation::different(
        "mirror-target",
        Value::Url,
        |read, text| external::mirror(text).map(|url| read.traffic().mirror = Some(url)),
        "copies go out when the request is over, from the Pingora engine; a worker sends 64 at a time, with bodies up to 256 KiB, and the rest is lost and counted; no variables in the host; loopback and link-local addresses get none",
    )
    .scope(Scope::Ingress)
    .risk(Risk::High)
    .otherwise("requests are not copied")
    .about(Group::Raw, "Sends a copy of each request here, whose answer nobody looks at."),
    Annotation::honoured("mirror-host", Value::Host, |read, text| {
        value::printable(text).map(|host| read.traffic().mirror_host = Some(host))
    })
    .scope(Scope::Ingress)
    .risk(Risk::High)
    .about(Group::Raw, "The `Host` of the copy; without it that of the URL."),
    Annotation::honoured("mirror-request-body", Value::Switch, |read, text| {
        let without = match text.trim() {
            "on" => false,
            "off" => true,
            _ => return Err("it is neither `on` nor `off`".to_owned()),
        };
        read.traffic().mirror_without_body = without;
        Ok(())
    })
    .by_default("on")
    .scope(Scope::Ingress)
    .about(Group::Raw, "Whether the copy has the body."),
    Annotation::refused("enable-modsecurity", Value::Boolean, NO_FIREWALL)
        .by_default("false")
        .guarding()
        .waived_by("accept-without-waf")
        .about(Group::Raw, "Inspects requests with ModSecurity."),
    Annotation::refused("enable-owasp-core-rules", Value::Boolean, NO_FIREWALL)
        .by_default("false")
        .guarding()
        .waived_by("accept-without-waf")
        .about(Group::Raw, "Inspects requests with the OWASP rules."),
    Annotation::ignored(
        "modsecurity-transaction-id",
        Value::Text("variable"),
        NO_FIREWALL,
    )
    .risk(Risk::High)
    .about(Group::Raw, "The identity of a request for ModSecurity."),
    Annotation::refused("modsecurity-snippet", Value::Text("rules"), NO_FIREWALL)
        .risk(Risk::Critical)
        .guarding()
        .waived_by("accept-without-waf")
        .about(Group::Raw, "Rules for ModSecurity."),
    Annotation::different(
        "configuration-snippet",
        Value::Text("configuration of nginx"),
        |read, text| snippet(read, text, Snippet::Location),
        TRANSLATED,
    )
    .risk(Risk::Critical)
    .guarding()
    .waived_by("accept-without-snippets")
    .about(Group::Raw, "Raw configuration of nginx for the paths."),
    Annotation::different(
        "server-snippet",
        Value::Text("configuration of nginx"),
        |read, text| snippet(read, text, Snippet::Server),
        TRANSLATED_SERVER,
    )
    .scope(Scope::Host)
    .risk(Risk::Critical)
    .guarding()
    .waived_by("accept-without-snippets")
    .about(Group::Raw, "Raw configuration of nginx for the hosts."),
    Annotation::refused(
        "stream-snippet",
        Value::Text("configuration of nginx"),
        NOT_EXECUTED,
    )
    .scope(Scope::Host)
    .risk(Risk::Critical)
    .guarding()
    .waived_by("accept-without-snippets")
    .about(Group::Raw, "Raw configuration of nginx for connections."),
];
