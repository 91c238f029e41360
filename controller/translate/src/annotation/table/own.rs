//! Lockgate's own.

use super::super::{Annotation, Group, Risk, Value};
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
];
