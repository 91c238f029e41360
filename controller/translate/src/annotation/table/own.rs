//! Lockgate's own.

use super::super::{Annotation, Group, Risk, Value};
use crate::value;

/// Lockgate's own.
pub(super) static OWN: &[Annotation] = &[
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
