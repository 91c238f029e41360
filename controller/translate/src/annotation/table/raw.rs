//! Mirrors, firewalls, raw configuration.

use super::super::{Annotation, Group, Risk, Scope, Value};

/// Why nothing of `ModSecurity` can be honoured.
const NO_FIREWALL: &str =
    "there is no ModSecurity in here; put a firewall before or behind Lockgate";
/// Why there is no second backend for a request.
const NOT_COPIED: &str =
    "requests are not copied: each goes to one backend; a canary shows a new version real traffic";
/// Why no snippet can be.
const NOT_EXECUTED: &str = "raw configuration is never executed";

/// Mirrors, firewalls, raw configuration.
pub(super) static RAW: &[Annotation] = &[
    Annotation::ignored("mirror-target", Value::Url, NOT_COPIED)
        .scope(Scope::Ingress)
        .risk(Risk::High)
        .about(Group::Raw, "Sends a copy of each request here."),
    Annotation::ignored("mirror-host", Value::Host, NOT_COPIED)
        .scope(Scope::Ingress)
        .risk(Risk::High)
        .about(Group::Raw, "The `Host` of the copy."),
    Annotation::ignored("mirror-request-body", Value::Switch, NOT_COPIED)
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
    Annotation::refused(
        "configuration-snippet",
        Value::Text("configuration of nginx"),
        NOT_EXECUTED,
    )
    .risk(Risk::Critical)
    .guarding()
    .waived_by("accept-without-snippets")
    .about(Group::Raw, "Raw configuration of nginx for the paths."),
    Annotation::refused(
        "server-snippet",
        Value::Text("configuration of nginx"),
        NOT_EXECUTED,
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
