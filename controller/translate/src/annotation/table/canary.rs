//! Shares of traffic for a new version.

use super::super::{Annotation, Group, Risk, Scope, Value};
use crate::value;

/// Shares of traffic for a new version.
pub(super) static CANARY: &[Annotation] = &[
    Annotation::different(
        "canary",
        Value::Boolean,
        |read, text| {
            // An unreadable value is nearer to `true`: whoever writes it does not mean a normal Ingress.
            read.canary().enabled = value::boolean(text).unwrap_or(true);
            Ok(())
        },
        "several canaries of one path add up; a canary of another namespace gets no requests",
    )
    .alike(|text| value::boolean(text) == Ok(false))
    .by_default("false")
    .scope(Scope::Ingress)
    .about(
        Group::Canary,
        "The Ingress is an alternative for the same hosts and paths of another one.",
    ),
    Annotation::honoured("canary-weight", Value::Number(0, u32::MAX), |read, text| {
        value::number(text, 0, u32::MAX).map(|v| read.canary().weight = v)
    })
    .by_default("0")
    .scope(Scope::Ingress)
    .about(Group::Canary, "The share of requests that it gets."),
    Annotation::honoured(
        "canary-weight-total",
        Value::Number(1, u32::MAX),
        |read, text| value::number(text, 0, u32::MAX).map(|v| read.canary().total = Some(v)),
    )
    .by_default("100")
    .scope(Scope::Ingress)
    .about(Group::Canary, "What `canary-weight` is a share of."),
    Annotation::honoured("canary-by-header", Value::Name, |read, text| {
        value::name(text).map(|v| read.canary().header = Some(v))
    })
    .scope(Scope::Ingress)
    .risk(Risk::Medium)
    .about(
        Group::Canary,
        "A header that decides: `always` and `never`.",
    ),
    Annotation::honoured(
        "canary-by-header-value",
        Value::Text("text"),
        |read, text| value::printable(text).map(|v| read.canary().header_value = Some(v)),
    )
    .scope(Scope::Ingress)
    .risk(Risk::Medium)
    .about(
        Group::Canary,
        "The value of that header which leads here, instead of `always`.",
    ),
    Annotation::different(
        "canary-by-header-pattern",
        Value::Regex,
        |read, text| value::printable(text).map(|v| read.canary().header_pattern = Some(v)),
        "expressions of linear time: no look-around, no back-references",
    )
    .alike_if_readable()
    .scope(Scope::Ingress)
    .risk(Risk::Medium)
    .about(Group::Canary, "A pattern for that value."),
    Annotation::honoured("canary-by-cookie", Value::Name, |read, text| {
        value::name(text).map(|v| read.canary().cookie = Some(v))
    })
    .scope(Scope::Ingress)
    .risk(Risk::Medium)
    .about(
        Group::Canary,
        "A cookie that decides: `always` and `never`.",
    ),
];
