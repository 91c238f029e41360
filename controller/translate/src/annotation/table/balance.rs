//! Sessions and balancing.

use model::Balance;

use super::super::{Annotation, Group, PENDING, Risk, Scope, Value};

/// Sessions and balancing.
pub(super) static AFFINITY: &[Annotation] = &[
    Annotation::ignored("affinity", Value::OneOf(&["cookie"]), PENDING)
        .scope(Scope::Backend)
        .about(Group::Affinity, "Keeps a user at one pod by a cookie."),
    Annotation::ignored(
        "affinity-mode",
        Value::OneOf(&["balanced", "persistent"]),
        PENDING,
    )
    .by_default("balanced")
    .scope(Scope::Backend)
    .risk(Risk::Medium)
    .about(Group::Affinity, "Whether sessions move when pods come."),
    Annotation::ignored(
        "affinity-canary-behavior",
        Value::OneOf(&["sticky", "legacy"]),
        PENDING,
    )
    .by_default("sticky")
    .scope(Scope::Ingress)
    .about(
        Group::Affinity,
        "Whether a user stays with the canary or the main version.",
    ),
    Annotation::ignored("session-cookie-name", Value::Name, PENDING)
        .by_default("INGRESSCOOKIE")
        .scope(Scope::Backend)
        .risk(Risk::Medium)
        .about(Group::Affinity, "The name of that cookie."),
    Annotation::ignored(
        "session-cookie-expires",
        Value::Number(0, u32::MAX),
        PENDING,
    )
    .scope(Scope::Backend)
    .risk(Risk::Medium)
    .about(Group::Affinity, "Seconds until it expires, as `Expires`."),
    Annotation::ignored(
        "session-cookie-max-age",
        Value::Number(0, u32::MAX),
        PENDING,
    )
    .scope(Scope::Backend)
    .risk(Risk::Medium)
    .about(Group::Affinity, "Seconds until it expires, as `Max-Age`."),
    Annotation::ignored("session-cookie-path", Value::Path, PENDING)
        .scope(Scope::Backend)
        .risk(Risk::Medium)
        .about(Group::Affinity, "Its path."),
    Annotation::ignored("session-cookie-domain", Value::Host, PENDING)
        .scope(Scope::Backend)
        .risk(Risk::Medium)
        .about(Group::Affinity, "Its domain."),
    Annotation::ignored(
        "session-cookie-samesite",
        Value::OneOf(&["None", "Lax", "Strict"]),
        PENDING,
    )
    .scope(Scope::Backend)
    .about(Group::Affinity, "Its `SameSite`."),
    Annotation::ignored(
        "session-cookie-conditional-samesite-none",
        Value::Boolean,
        PENDING,
    )
    .by_default("false")
    .scope(Scope::Backend)
    .about(
        Group::Affinity,
        "Leaves `SameSite=None` out for browsers that misread it.",
    ),
    Annotation::ignored("session-cookie-secure", Value::Boolean, PENDING)
        .scope(Scope::Backend)
        .about(Group::Affinity, "Marks it as secure over plain HTTP, too."),
    Annotation::ignored("session-cookie-change-on-failure", Value::Boolean, PENDING)
        .by_default("false")
        .scope(Scope::Backend)
        .about(Group::Affinity, "Moves the user when the pod fails."),
    Annotation::ignored(
        "upstream-hash-by",
        Value::Text("text with variables"),
        PENDING,
    )
    .scope(Scope::Backend)
    .risk(Risk::High)
    .about(Group::Affinity, "Chooses the pod by this key."),
    Annotation::ignored("upstream-hash-by-subset", Value::Boolean, PENDING)
        .by_default("false")
        .scope(Scope::Backend)
        .about(Group::Affinity, "Chooses a group of pods by that key."),
    Annotation::ignored(
        "upstream-hash-by-subset-size",
        Value::Number(1, u32::MAX),
        PENDING,
    )
    .by_default("3")
    .scope(Scope::Backend)
    .about(Group::Affinity, "How large these groups are."),
    Annotation::different(
        "load-balance",
        Value::OneOf(&["round_robin", "ewma"]),
        |read, text| balance(text).map(|v| read.traffic().balance = Some(v)),
        "`round_robin` and `ewma`; `ewma` also counts the requests that a pod is working on",
    )
    .by_default("round_robin")
    .scope(Scope::Backend)
    .about(Group::Affinity, "How a pod is chosen."),
];

fn balance(text: &str) -> Result<Balance, String> {
    match text.trim() {
        "round_robin" => Ok(Balance::RoundRobin),
        "ewma" => Ok(Balance::Ewma),
        _ => Err("it is neither `round_robin` nor `ewma`".to_owned()),
    }
}
