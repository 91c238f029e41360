//! Lockgate's own.

use model::Deadlines;

use super::super::{Annotation, Group, Risk, Scope, Value};
use crate::annotation::Annotations;
use crate::health;
use crate::value;

/// Lockgate's own.
pub(super) static OWN: &[Annotation] = &[
    Annotation::honoured(
        crds::ROUTE_POLICY_ANNOTATION,
        Value::Text("name of a `RoutePolicy`"),
        |read, text| match value::object(text)? {
            (None, name) => {
                read.policy_name = Some(name);
                Ok(())
            }
            (Some(_), _) => Err("it names a policy of another namespace".to_owned()),
        },
    )
    .risk(Risk::Medium)
    .guarding()
    .ours()
    .about(
        Group::Own,
        "The `RoutePolicy` of the same namespace that says what else the routes do.",
    ),
    Annotation::honoured("accept-without-waf", Value::Boolean, |_, text| {
        value::boolean(text).map(|_| ())
    })
    .by_default("false")
    .risk(Risk::High)
    .ours()
    .about(
        Group::Own,
        "Serves the routes although a firewall was asked for that is not there.",
    ),
    Annotation::honoured("accept-without-snippets", Value::Boolean, |_, text| {
        value::boolean(text).map(|_| ())
    })
    .by_default("false")
    .risk(Risk::High)
    .ours()
    .about(
        Group::Own,
        "Serves the routes although they have snippets, which are not executed.",
    ),
    Annotation::honoured(
        "request-timeout",
        Value::Text("time such as `500ms`, `2s` or `1m`"),
        |read, text| value::milliseconds(text, 1).map(|v| deadlines(read).request_ms = v),
    )
    .ours()
    .about(
        Group::Own,
        "From the request to the end of its response, over all tries; then 504, or the end of the connection where the response has begun.",
    ),
    Annotation::honoured(
        "try-timeout",
        Value::Text("time such as `500ms`, `2s` or `1m`"),
        |read, text| value::milliseconds(text, 1).map(|v| deadlines(read).try_ms = v),
    )
    .ours()
    .about(
        Group::Own,
        "How long a pod that has the whole request may take to begin its response; then another one, where `proxy-next-upstream` says `timeout`, or 504.",
    ),
    Annotation::honoured(
        "outlier-detection",
        Value::Text("`off`, or `key=value` by semicolons; see [health.md](health.md)"),
        |read, text| health::outliers(text).map(|v| read.health().outliers = Some(v)),
    )
    .by_default("failures=5")
    .scope(Scope::Backend)
    .ours()
    .about(
        Group::Own,
        "When an endpoint that fails is left alone for a while.",
    ),
    Annotation::honoured(
        "health-check",
        Value::Text("`http:/path`, `grpc`, `grpc:service` or `tcp`, and `key=value` by semicolons; see [health.md](health.md)"),
        |read, text| health::check(text).map(|v| read.health().check = Some(v)),
    )
    .scope(Scope::Backend)
    .ours()
    .about(
        Group::Own,
        "Asks every pod of the Services from time to time whether it is well; one that is not is left alone.",
    ),
    Annotation::honoured(
        "max-requests",
        Value::Number(0, u32::MAX),
        |read, text| value::number(text, 0, u32::MAX).map(|v| read.health().max_requests = Some(v)),
    )
    .by_default("0")
    .scope(Scope::Backend)
    .ours()
    .about(
        Group::Own,
        "Requests at the same time that one replica sends to a Service; more get 503. 0 is no limit.",
    ),
    Annotation::honoured(
        "max-pending-requests",
        Value::Number(0, u32::MAX),
        |read, text| value::number(text, 0, u32::MAX).map(|v| read.health().max_pending = Some(v)),
    )
    .by_default("0")
    .scope(Scope::Backend)
    .ours()
    .about(
        Group::Own,
        "How many of them may be waiting for a connection to be made; more get 503. 0 is no limit.",
    ),
    Annotation::honoured(
        "max-requests-per-endpoint",
        Value::Number(0, u32::MAX),
        |read, text| {
            value::number(text, 0, u32::MAX).map(|v| read.health().max_per_endpoint = Some(v))
        },
    )
    .by_default("0")
    .scope(Scope::Backend)
    .ours()
    .about(
        Group::Own,
        "Requests at the same time that one replica sends to a pod; more go to others, or get 503. 0 is no limit.",
    ),
];

fn deadlines(read: &mut Annotations) -> &mut Deadlines {
    read.traffic().deadlines.get_or_insert_default()
}
