//! Timeouts, bodies, buffers, retries.

use super::super::{Annotation, Group, PENDING, Risk, Value};
use crate::value;

/// Timeouts, bodies, buffers, retries.
pub(super) static TRANSFER: &[Annotation] = &[
    Annotation::ignored("proxy-body-size", Value::Size, PENDING)
        .by_default("1m")
        .risk(Risk::Medium)
        .about(
            Group::Transfer,
            "The largest request body; a larger one is answered with 413.",
        ),
    Annotation::honoured("proxy-read-timeout", Value::Seconds, |read, text| {
        value::seconds(text).map(|v| read.read_timeout = Some(v))
    })
    .by_default("60")
    .about(
        Group::Transfer,
        "Between two reads from the backend; then 504.",
    ),
    Annotation::honoured("proxy-send-timeout", Value::Seconds, |read, text| {
        value::seconds(text).map(|v| read.send_timeout = Some(v))
    })
    .by_default("60")
    .about(
        Group::Transfer,
        "Between two writes to the backend; then 504.",
    ),
    Annotation::honoured("proxy-connect-timeout", Value::Seconds, |read, text| {
        value::seconds(text).map(|v| read.connect_timeout = Some(v))
    })
    .by_default("5")
    .about(
        Group::Transfer,
        "For a connection to a pod; then another one, or 504.",
    ),
    Annotation::ignored(
        "proxy-buffer-size",
        Value::Size,
        "response headers up to the limits of the gateway are taken",
    )
    .by_default("4k")
    .about(Group::Transfer, "Room for the header of a response."),
    Annotation::ignored(
        "proxy-buffering",
        Value::Switch,
        "bodies are streamed at bounded memory",
    )
    .by_default("off")
    .about(
        Group::Transfer,
        "Keeps responses until the client has taken them.",
    ),
    Annotation::ignored(
        "proxy-buffers-number",
        Value::Number(1, u32::MAX),
        "bodies are streamed at bounded memory",
    )
    .by_default("4")
    .about(Group::Transfer, "How many buffers a response may take."),
    Annotation::ignored(
        "proxy-busy-buffers-size",
        Value::Size,
        "bodies are streamed at bounded memory",
    )
    .about(
        Group::Transfer,
        "How much of a response may wait for the client.",
    ),
    Annotation::ignored(
        "proxy-max-temp-file-size",
        Value::Size,
        "nothing is written to disk",
    )
    .by_default("1024m")
    .about(Group::Transfer, "How much of a response may lie on disk."),
    Annotation::ignored(
        "proxy-request-buffering",
        Value::Switch,
        "bodies are streamed at bounded memory",
    )
    .by_default("on")
    .about(
        Group::Transfer,
        "Keeps the request body until all of it is there.",
    ),
    Annotation::ignored(
        "client-body-buffer-size",
        Value::Size,
        "bodies are streamed at bounded memory",
    )
    .by_default("8k")
    .about(
        Group::Transfer,
        "How much of a request body is kept in memory.",
    ),
    Annotation::ignored(
        "proxy-next-upstream",
        Value::Text("words of nginx, by spaces"),
        PENDING,
    )
    .by_default("error timeout")
    .risk(Risk::Medium)
    .about(
        Group::Transfer,
        "Which failures are tried again on another pod.",
    ),
    Annotation::ignored(
        "proxy-next-upstream-tries",
        Value::Number(0, u32::MAX),
        PENDING,
    )
    .by_default("3")
    .about(
        Group::Transfer,
        "How many pods are tried; 0 is all of them.",
    ),
    Annotation::ignored(
        "proxy-next-upstream-timeout",
        Value::Number(0, u32::MAX),
        PENDING,
    )
    .by_default("0")
    .about(
        Group::Transfer,
        "Seconds after which no other pod is tried; 0 is no limit.",
    ),
    Annotation::ignored(
        "proxy-redirect-from",
        Value::Text("`off`, `default` or a URL"),
        PENDING,
    )
    .by_default("off")
    .risk(Risk::Medium)
    .about(
        Group::Transfer,
        "The beginning of `Location` and `Refresh` that is replaced.",
    ),
    Annotation::ignored("proxy-redirect-to", Value::Url, PENDING)
        .by_default("off")
        .risk(Risk::Medium)
        .about(Group::Transfer, "What stands there instead."),
    Annotation::ignored(
        "proxy-cookie-domain",
        Value::Text("`off`, or two domains"),
        PENDING,
    )
    .by_default("off")
    .risk(Risk::Medium)
    .about(Group::Transfer, "Replaces the domain of cookies."),
    Annotation::ignored(
        "proxy-cookie-path",
        Value::Text("`off`, or two paths"),
        PENDING,
    )
    .by_default("off")
    .risk(Risk::Medium)
    .about(Group::Transfer, "Replaces the path of cookies."),
    Annotation::ignored(
        "http2-push-preload",
        Value::Boolean,
        "browsers do not take HTTP/2 push any more",
    )
    .by_default("false")
    .about(Group::Transfer, "Pushes what `Link: rel=preload` names."),
];
