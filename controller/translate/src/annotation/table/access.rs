//! Addresses and rates.

use super::super::{Annotation, Group, PENDING, Risk, Value};

/// Addresses and rates.
pub(super) static ACCESS: &[Annotation] = &[
    Annotation::refused("whitelist-source-range", Value::Networks, PENDING)
        .risk(Risk::Medium)
        .guarding()
        .about(Group::Access, "The old name of `allowlist-source-range`."),
    Annotation::refused("allowlist-source-range", Value::Networks, PENDING)
        .risk(Risk::Medium)
        .guarding()
        .about(
            Group::Access,
            "Only clients from here may pass; others get 403.",
        ),
    Annotation::refused("denylist-source-range", Value::Networks, PENDING)
        .risk(Risk::Medium)
        .guarding()
        .about(
            Group::Access,
            "Clients from here get 403; looked at before the allow list.",
        ),
    Annotation::refused("limit-rps", Value::Number(0, u32::MAX), PENDING)
        .by_default("0")
        .guarding()
        .unless(&["0"])
        .about(
            Group::Access,
            "Requests per second of one client; 0 is no limit.",
        ),
    Annotation::refused("limit-rpm", Value::Number(0, u32::MAX), PENDING)
        .by_default("0")
        .guarding()
        .unless(&["0"])
        .about(
            Group::Access,
            "Requests per minute of one client; 0 is no limit.",
        ),
    Annotation::refused("limit-connections", Value::Number(0, u32::MAX), PENDING)
        .by_default("0")
        .guarding()
        .unless(&["0"])
        .about(
            Group::Access,
            "Requests of one client at the same time; 0 is no limit.",
        ),
    Annotation::refused(
        "limit-burst-multiplier",
        Value::Number(1, u32::MAX),
        PENDING,
    )
    .by_default("5")
    .guarding()
    .about(Group::Access, "How many times the limit may come at once."),
    Annotation::refused("limit-allowlist", Value::Networks, PENDING)
        .guarding()
        .about(Group::Access, "Clients that are not limited."),
    Annotation::ignored("limit-rate", Value::Number(0, u32::MAX), PENDING)
        .by_default("0")
        .about(
            Group::Access,
            "Kilobytes per second of a response; 0 is no limit.",
        ),
    Annotation::ignored("limit-rate-after", Value::Number(0, u32::MAX), PENDING)
        .by_default("0")
        .about(
            Group::Access,
            "Kilobytes of a response that go before `limit-rate` acts.",
        ),
];
