//! Sessions and balancing.

use model::{AffinityMode, SameSite};

use super::super::{Annotation, Group, Risk, Scope, Value};
use crate::value;

/// Sessions and balancing.
pub(super) static AFFINITY: &[Annotation] = &[
    Annotation::different(
        "affinity",
        Value::OneOf(&["cookie"]),
        |read, text| affinity(text).map(|()| read.sessions().cookie = true),
        "of two Ingresses with one Service, those without it balance as usual; the cookie names no address, and a value that Lockgate has not given out leads to a new choice",
    )
    .scope(Scope::Backend)
    .about(Group::Affinity, "Keeps a user at one pod by a cookie."),
    Annotation::honoured(
        "affinity-mode",
        Value::OneOf(&["balanced", "persistent"]),
        |read, text| mode(text).map(|v| read.sessions().mode = v),
    )
    .by_default("balanced")
    .scope(Scope::Backend)
    .risk(Risk::Medium)
    .about(Group::Affinity, "Whether sessions move when pods come."),
    Annotation::honoured(
        "affinity-canary-behavior",
        Value::OneOf(&["sticky", "legacy"]),
        |read, text| canary_behavior(text).map(|v| read.sessions().without_canaries = v),
    )
    .by_default("sticky")
    .scope(Scope::Ingress)
    .about(
        Group::Affinity,
        "Whether a user stays with the canary or the main version.",
    ),
    Annotation::honoured("session-cookie-name", Value::Name, |read, text| {
        value::name(text).map(|v| read.sessions().name = Some(v))
    })
    .by_default("INGRESSCOOKIE")
    .scope(Scope::Backend)
    .risk(Risk::Medium)
    .about(Group::Affinity, "The name of that cookie."),
    Annotation::honoured(
        "session-cookie-expires",
        Value::Number(0, u32::MAX),
        |read, text| value::number(text, 0, u32::MAX).map(|v| read.sessions().expires = Some(v)),
    )
    .scope(Scope::Backend)
    .risk(Risk::Medium)
    .about(Group::Affinity, "Seconds until it expires, as `Expires`."),
    Annotation::honoured(
        "session-cookie-max-age",
        Value::Number(0, u32::MAX),
        |read, text| value::number(text, 0, u32::MAX).map(|v| read.sessions().max_age = Some(v)),
    )
    .scope(Scope::Backend)
    .risk(Risk::Medium)
    .about(Group::Affinity, "Seconds until it expires, as `Max-Age`."),
    Annotation::different(
        "session-cookie-path",
        Value::Path,
        |read, text| cookie_path(text).map(|v| read.sessions().path = Some(v)),
        "where paths are regular expressions and there is no such annotation, it is `/`",
    )
    .scope(Scope::Backend)
    .risk(Risk::Medium)
    .about(Group::Affinity, "Its path; else that of the rule."),
    Annotation::honoured("session-cookie-domain", Value::Host, |read, text| {
        cookie_domain(text).map(|v| read.sessions().domain = Some(v))
    })
    .scope(Scope::Backend)
    .risk(Risk::Medium)
    .about(Group::Affinity, "Its domain."),
    Annotation::honoured(
        "session-cookie-samesite",
        Value::OneOf(&["None", "Lax", "Strict"]),
        |read, text| same_site(text).map(|v| read.sessions().same_site = Some(v)),
    )
    .scope(Scope::Backend)
    .about(Group::Affinity, "Its `SameSite`."),
    Annotation::honoured(
        "session-cookie-conditional-samesite-none",
        Value::Boolean,
        |read, text| value::boolean(text).map(|v| read.sessions().same_site_by_browser = v),
    )
    .by_default("false")
    .scope(Scope::Backend)
    .about(
        Group::Affinity,
        "Leaves `SameSite=None` out for browsers that misread it.",
    ),
    Annotation::honoured("session-cookie-secure", Value::Boolean, |read, text| {
        value::boolean(text).map(|v| read.sessions().secure = v)
    })
    .scope(Scope::Backend)
    .about(
        Group::Affinity,
        "Marks it as secure over plain HTTP, too; over https it always is.",
    ),
    Annotation::honoured(
        "session-cookie-change-on-failure",
        Value::Boolean,
        |read, text| value::boolean(text).map(|v| read.sessions().change_on_failure = v),
    )
    .by_default("false")
    .scope(Scope::Backend)
    .about(Group::Affinity, "Moves the user when the pod fails."),
    Annotation::different(
        "upstream-hash-by",
        Value::Text("text with variables"),
        |read, text| value::printable(text).map(|v| read.sessions().hash_by = Some(v)),
        "a closed set of variables; where the pod of a key fails, the next one gets its requests",
    )
    .scope(Scope::Backend)
    .risk(Risk::High)
    .about(Group::Affinity, "Chooses the pod by this key."),
    Annotation::different(
        "upstream-hash-by-subset",
        Value::Boolean,
        |read, text| value::boolean(text).map(|v| read.sessions().subset = v),
        "groups overlap, so that a pod that comes or goes concerns few of them",
    )
    .by_default("false")
    .scope(Scope::Backend)
    .about(Group::Affinity, "Chooses a group of pods by that key."),
    Annotation::honoured(
        "upstream-hash-by-subset-size",
        Value::Number(1, u32::MAX),
        |read, text| {
            value::number(text, 1, u32::MAX).map(|v| read.sessions().subset_size = Some(v))
        },
    )
    .by_default("3")
    .scope(Scope::Backend)
    .about(Group::Affinity, "How large these groups are."),
    Annotation::honoured("hash-balance-factor", Value::Text("0, or percent from 101 to 10000"), |read, text| {
        value::bound(text).map(|v| read.sessions().bound = v)
    })
    .by_default("0")
    .scope(Scope::Backend)
    .ours()
    .about(
        Group::Own,
        "How busy the pod of a key (`upstream-hash-by`) may be, in percent of the average, before others get the next requests of its keys; 0 is no limit.",
    ),
    Annotation::different(
        "load-balance",
        Value::OneOf(&[
            "round_robin",
            "ewma",
            "least_request",
            "least_conn",
            "random",
            "chash",
            "chashsubset",
            "sticky_balanced",
            "sticky_persistent",
        ]),
        |read, text| value::balance(text).map(|v| read.traffic().balance = v),
        "`ewma` also counts the requests that a pod is working on, and rises at once; `least_request` (or `least_conn`) and `random` are Lockgate's; `affinity` and `upstream-hash-by` decide whether the last four apply",
    ).alike(|text| text != "ewma")
    .by_default("round_robin")
    .scope(Scope::Backend)
    .about(Group::Affinity, "How a pod is chosen."),
    Annotation::honoured("slow-start", Value::Text("time such as `30s` or `2m`"), |read, text| {
        value::duration(text, 0).map(|v| read.traffic().slow_start = v)
    })
    .by_default("0")
    .scope(Scope::Backend)
    .ours()
    .about(
        Group::Own,
        "How long a new pod gets fewer requests than the others: a tenth of its share at first, and more with each second.",
    ),
];

fn affinity(text: &str) -> Result<(), String> {
    if text.trim().eq_ignore_ascii_case("cookie") {
        return Ok(());
    }
    Err("it is not `cookie`".to_owned())
}

fn mode(text: &str) -> Result<AffinityMode, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "balanced" => Ok(AffinityMode::Balanced),
        "persistent" => Ok(AffinityMode::Persistent),
        _ => Err("it is neither `balanced` nor `persistent`".to_owned()),
    }
}

fn canary_behavior(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "sticky" => Ok(false),
        "legacy" => Ok(true),
        _ => Err("it is neither `sticky` nor `legacy`".to_owned()),
    }
}

fn same_site(text: &str) -> Result<SameSite, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "none" => Ok(SameSite::None),
        "lax" => Ok(SameSite::Lax),
        "strict" => Ok(SameSite::Strict),
        _ => Err("it is none of `None`, `Lax` and `Strict`".to_owned()),
    }
}

fn cookie_path(text: &str) -> Result<String, String> {
    let path = value::absolute_path(text)?;
    if path.contains(';') {
        return Err("a `;` would end it".to_owned());
    }
    Ok(path)
}

fn cookie_domain(text: &str) -> Result<String, String> {
    let domain = text.trim();
    let legal = domain
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    if legal && !domain.is_empty() {
        return Ok(domain.to_owned());
    }
    Err("it is not a domain".to_owned())
}
