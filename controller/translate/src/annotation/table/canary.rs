//! Shares of traffic for a new version.

use super::super::{Annotation, Group, PENDING, Risk, Scope, Value};
use crate::value;

/// Shares of traffic for a new version.
pub(super) static CANARY: &[Annotation] = &[
    Annotation::different(
        "canary",
        Value::Boolean,
        |read, text| {
            // An unreadable value is nearer to `true`: whoever writes it does not mean a normal Ingress.
            read.canary = value::boolean(text).unwrap_or(true);
            Ok(())
        },
        "the Ingress is not served yet",
    )
    .by_default("false")
    .scope(Scope::Ingress)
    .about(
        Group::Canary,
        "The Ingress is an alternative for the same hosts and paths of another one.",
    ),
    Annotation::ignored("canary-weight", Value::Number(0, u32::MAX), PENDING)
        .by_default("0")
        .scope(Scope::Ingress)
        .about(Group::Canary, "The share of requests that it gets."),
    Annotation::ignored("canary-weight-total", Value::Number(1, u32::MAX), PENDING)
        .by_default("100")
        .scope(Scope::Ingress)
        .about(Group::Canary, "What `canary-weight` is a share of."),
    Annotation::ignored("canary-by-header", Value::Name, PENDING)
        .scope(Scope::Ingress)
        .risk(Risk::Medium)
        .about(
            Group::Canary,
            "A header that decides: `always` and `never`.",
        ),
    Annotation::ignored("canary-by-header-value", Value::Text("text"), PENDING)
        .scope(Scope::Ingress)
        .risk(Risk::Medium)
        .about(
            Group::Canary,
            "The value of that header which leads here, instead of `always`.",
        ),
    Annotation::ignored("canary-by-header-pattern", Value::Regex, PENDING)
        .scope(Scope::Ingress)
        .risk(Risk::Medium)
        .about(Group::Canary, "A pattern for that value."),
    Annotation::ignored("canary-by-cookie", Value::Name, PENDING)
        .scope(Scope::Ingress)
        .risk(Risk::Medium)
        .about(
            Group::Canary,
            "A cookie that decides: `always` and `never`.",
        ),
];
