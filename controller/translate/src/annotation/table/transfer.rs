//! Timeouts, bodies, buffers, retries.

use model::Retry;

use super::super::{Annotation, Group, Risk, Value};
use crate::report::quoted;
use crate::value;

/// Timeouts, bodies, buffers, retries.
pub(super) static TRANSFER: &[Annotation] = &[
    Annotation::honoured("proxy-body-size", Value::Size, |read, text| {
        value::size(text).map(|v| read.body_limit = Some(v))
    })
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
    Annotation::different(
        "proxy-buffer-size",
        Value::Size,
        |_, text| value::size(text).map(drop),
        "header sections of responses up to 256 KiB are taken, whatever it says",
    )
    .alike(|text| value::size(text).is_ok_and(|size| size <= 256 << 10))
    .by_default("4k")
    .about(Group::Transfer, "Room for the header of a response."),
    Annotation::different(
        "proxy-buffering",
        Value::Switch,
        |_, text| switch(text).map(drop),
        "`on` is as `off`: a response goes on as it comes, and a client that takes it slowly slows the pod down",
    )
    .alike(|text| text == "off")
    .by_default("off")
    .about(
        Group::Transfer,
        "Keeps responses until the client has taken them.",
    ),
    Annotation::different(
        "proxy-buffers-number",
        Value::Number(1, u32::MAX),
        |_, text| value::number(text, 1, u32::MAX).map(drop),
        "responses of any length go on as they come, at bounded memory, whatever it says",
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
    Annotation::different(
        "proxy-request-buffering",
        Value::Switch,
        |read, text| switch(text).map(|v| read.traffic().collects = Some(v)),
        "with `on`, a body of a stated length up to 64 KiB is there before a pod is asked; any other, and without the annotation every one, goes on as it comes, no slower than `client-body-timeout` and `--min-client-rate` allow",
    )
    .alike(|text| text == "off")
    .by_default("on")
    .about(
        Group::Transfer,
        "Keeps the request body until all of it is there.",
    ),
    Annotation::different(
        "client-body-buffer-size",
        Value::Size,
        |_, text| value::size(text).map(drop),
        "64 KiB of a body are kept, for another try, whatever it says",
    )
    .by_default("8k")
    .about(
        Group::Transfer,
        "How much of a request body is kept in memory.",
    ),
    Annotation::different(
        "proxy-next-upstream",
        Value::Text("words of nginx, by spaces"),
        |read, text| conditions(text).map(|v| read.traffic().retry = Some(v)),
        "without the annotation, a request that a pod may have seen is not sent twice; at most a fifth of the requests to a backend, and ten per second, are",
    )
    .by_default("error timeout")
    .risk(Risk::Medium)
    .about(
        Group::Transfer,
        "Which failures are tried again on another pod.",
    ),
    Annotation::different(
        "proxy-next-upstream-tries",
        Value::Number(0, u32::MAX),
        |read, text| value::number(text, 0, u32::MAX).map(|v| read.traffic().tries = Some(v)),
        "8 at most",
    ).alike(|text| value::number(text, 1, 8).is_ok())
    .by_default("3")
    .about(
        Group::Transfer,
        "How many pods are tried; 0 is all of them.",
    ),
    Annotation::honoured(
        "proxy-next-upstream-timeout",
        Value::Number(0, u32::MAX),
        |read, text| {
            value::number(text, 0, u32::MAX).map(|v| read.traffic().tries_timeout = Some(v))
        },
    )
    .by_default("0")
    .about(
        Group::Transfer,
        "Seconds after which no other pod is tried; 0 is no limit.",
    ),
    Annotation::honoured(
        "proxy-redirect-from",
        Value::Text("`off`, `default` or a URL"),
        |read, text| redirect_from(text).map(|v| read.traffic().redirect_from = v),
    )
    .by_default("off")
    .risk(Risk::Medium)
    .about(
        Group::Transfer,
        "The beginning of `Location` and `Refresh` that is replaced.",
    ),
    Annotation::honoured("proxy-redirect-to", Value::Url, |read, text| {
        redirect_to(text).map(|v| read.traffic().redirect_to = v)
    })
    .by_default("off")
    .risk(Risk::Medium)
    .about(Group::Transfer, "What stands there instead."),
    Annotation::different(
        "proxy-cookie-domain",
        Value::Text("`off`, or two domains"),
        |read, text| pair(text).map(|v| read.traffic().cookie_domain = v),
        "no regular expressions",
    ).alike_if_readable()
    .by_default("off")
    .risk(Risk::Medium)
    .about(Group::Transfer, "Replaces the domain of cookies."),
    Annotation::different(
        "proxy-cookie-path",
        Value::Text("`off`, or two paths"),
        |read, text| pair(text).map(|v| read.traffic().cookie_path = v),
        "no regular expressions",
    ).alike_if_readable()
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

/// What is either `on` or `off`.
pub(crate) fn switch(text: &str) -> Result<bool, String> {
    match text.trim() {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("it is neither `on` nor `off`".to_owned()),
    }
}

/// When another endpoint is tried.
pub(crate) fn conditions(text: &str) -> Result<Retry, String> {
    let mut retry = Retry {
        error: false,
        timeout: false,
        ..Retry::default()
    };
    for word in text.split_whitespace() {
        match word {
            "off" => {}
            "error" => retry.error = true,
            "timeout" => retry.timeout = true,
            "invalid_header" => retry.invalid = true,
            "non_idempotent" => retry.non_idempotent = true,
            "http_500" => retry.statuses.push(500),
            "http_502" => retry.statuses.push(502),
            "http_503" => retry.statuses.push(503),
            "http_504" => retry.statuses.push(504),
            "http_403" => retry.statuses.push(403),
            "http_404" => retry.statuses.push(404),
            "http_429" => retry.statuses.push(429),
            _ => return Err(format!("{} is no condition", quoted(word))),
        }
    }
    if text.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.split_whitespace().any(|word| word == "off") {
        retry = Retry {
            error: false,
            timeout: false,
            ..Retry::default()
        };
    }
    Ok(retry)
}

/// `default` replaces the address of the backend, which no backend knows here.
fn redirect_from(text: &str) -> Result<Option<String>, String> {
    match text.trim() {
        "off" | "default" => Ok(None),
        text if text.starts_with('~') => Err("regular expressions cannot be used".to_owned()),
        text => value::printable(text).map(Some),
    }
}

fn redirect_to(text: &str) -> Result<Option<String>, String> {
    match text.trim() {
        "off" | "default" => Ok(None),
        text => value::printable(text).map(Some),
    }
}

fn pair(text: &str) -> Result<Option<(String, String)>, String> {
    let mut words = text.split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some("off"), None, None) => Ok(None),
        (Some(from), Some(_), None) if from.starts_with('~') => {
            Err("regular expressions cannot be used".to_owned())
        }
        (Some(from), Some(to), None) if !to.contains(';') => {
            Ok(Some((value::printable(from)?, value::printable(to)?)))
        }
        _ => Err("it is neither `off` nor two words".to_owned()),
    }
}
