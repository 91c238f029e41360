//! Addresses and rates.

use super::super::{Annotation, Group, Risk, Value};
use crate::value;

const ANY: Value = Value::Number(0, u32::MAX);

fn number(text: &str) -> Result<u32, String> {
    value::number(text, 0, u32::MAX)
}

/// Addresses and rates.
pub(super) static ACCESS: &[Annotation] = &[
    Annotation::honoured("whitelist-source-range", Value::Networks, |read, text| {
        // With ingress-nginx, too, only this name may stand without a value.
        if !text.is_empty() {
            read.access().whitelist = Some(value::networks(text)?);
        }
        Ok(())
    })
    .risk(Risk::Medium)
    .guarding()
    .about(
        Group::Access,
        "The old name of `allowlist-source-range`, which counts where both stand.",
    ),
    Annotation::honoured("allowlist-source-range", Value::Networks, |read, text| {
        read.access().allow = Some(value::networks(text)?);
        Ok(())
    })
    .risk(Risk::Medium)
    .guarding()
    .about(
        Group::Access,
        "Only clients from here may pass; others get 403.",
    ),
    Annotation::different(
        "denylist-source-range",
        Value::Networks,
        |read, text| {
            read.access().deny = Some(value::networks(text)?);
            Ok(())
        },
        "`satisfy: any` lets nobody past it",
    )
    .risk(Risk::Medium)
    .guarding()
    .about(
        Group::Access,
        "Clients from here get 403; looked at before the allow list.",
    ),
    Annotation::different(
        "limit-rps",
        ANY,
        |read, text| number(text).map(|n| read.access().per_second = n),
        PER_NETWORK,
    )
    .alike(|text| text == "0")
    .by_default("0")
    .guarding()
    .about(
        Group::Access,
        "Requests per second of one client; 0 is no limit.",
    ),
    Annotation::different(
        "limit-rpm",
        ANY,
        |read, text| number(text).map(|n| read.access().per_minute = n),
        PER_NETWORK,
    )
    .alike(|text| text == "0")
    .by_default("0")
    .guarding()
    .about(
        Group::Access,
        "Requests per minute of one client; 0 is no limit.",
    ),
    Annotation::different(
        "limit-connections",
        ANY,
        |read, text| number(text).map(|n| read.access().concurrent = n),
        PER_NETWORK,
    )
    .alike(|text| text == "0")
    .by_default("0")
    .guarding()
    .about(
        Group::Access,
        "Requests of one client at the same time; 0 is no limit.",
    ),
    Annotation::honoured(
        "limit-burst-multiplier",
        Value::Number(1, u32::MAX),
        |read, text| value::number(text, 1, u32::MAX).map(|n| read.access().burst = Some(n)),
    )
    .by_default("5")
    .guarding()
    .about(Group::Access, "How many times the limit may come at once."),
    Annotation::honoured("limit-allowlist", Value::Networks, |read, text| {
        value::networks(text).map(|networks| read.access().unlimited = networks)
    })
    .guarding()
    .about(
        Group::Access,
        "Clients that are not limited; also as `limit-whitelist`.",
    ),
    Annotation::different(
        "limit-rate",
        ANY,
        |read, text| number(text).map(|n| read.access().pace = Some(n)),
        "it does not need `proxy-buffering`",
    )
    .alike(|text| text == "0")
    .by_default("0")
    .about(
        Group::Access,
        "Kilobytes per second of a response; 0 is no limit.",
    ),
    Annotation::honoured("limit-rate-after", ANY, |read, text| {
        number(text).map(|n| read.access().pace_after = Some(n))
    })
    .by_default("0")
    .about(
        Group::Access,
        "Kilobytes of a response that go before `limit-rate` acts.",
    ),
];

/// What is other than with ingress-nginx.
const PER_NETWORK: &str =
    "a client of IPv6 is its /64 network; a negative value is none and closes the route";
