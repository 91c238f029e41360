//! One request as one line.

use std::fmt::{Display, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{HOST, REFERER, USER_AGENT};
use http::{HeaderMap, HeaderName, StatusCode, Version};

use crate::context::{RequestContext, Try};
use crate::phases::forwarding::X_FORWARDED_FOR;
use crate::phases::log::Outcome;

/// What a line is made from.
pub(super) struct Facts<'a> {
    pub(super) context: &'a RequestContext,
    pub(super) outcome: &'a Outcome<'a>,
    pub(super) status: StatusCode,
    pub(super) elapsed: Duration,
}

impl Facts<'_> {
    fn headers(&self) -> &HeaderMap {
        &self.outcome.request.headers
    }

    fn header(&self, name: &HeaderName) -> Option<&[u8]> {
        self.headers().get(name).map(http::HeaderValue::as_bytes)
    }

    /// The host as the client wrote it.
    fn host(&self) -> Option<&[u8]> {
        let authority = self.outcome.request.uri.authority();
        self.header(&HOST)
            .or_else(|| authority.map(|authority| authority.as_str().as_bytes()))
    }

    fn last_try(&self) -> Option<&Try> {
        self.context.tries.last()
    }
}

/// Appends a JSON object and a line end. Fields that a request does not have are left out.
pub(super) fn json(out: &mut Vec<u8>, facts: &Facts<'_>, clock: &mut Clock) {
    let context = facts.context;
    let request = facts.outcome.request;
    let mut line = Object::open(out);
    line.raw("time", |out| {
        out.push(b'"');
        clock.rfc3339(out, context.started_at);
        out.push(b'"');
    });
    line.shown("remote_addr", context.client.address);
    if let Some(value) = facts.header(&X_FORWARDED_FOR) {
        line.bytes("x_forwarded_for", value);
    }
    let peer = context.connection.peer.ip().to_canonical();
    if peer != context.client.address {
        line.shown("peer_addr", peer);
    }
    if context.connection.proxied {
        line.shown("proxy_protocol_addr", context.connection.client.ip());
    }
    if let Some(id) = &context.request_id {
        line.bytes("request_id", id.as_bytes());
    }
    line.text("method", request.method.as_str());
    if let Some(host) = facts.host() {
        line.bytes("host", host);
    }
    let mut target = facts.outcome.target.splitn(2, |byte| *byte == b'?');
    line.bytes("path", target.next().unwrap_or_default());
    if let Some(query) = target.next() {
        line.bytes("query", query);
    }
    line.text("protocol", protocol(request.version));
    line.text(
        "scheme",
        if context.client.https {
            "https"
        } else {
            "http"
        },
    );
    if let Some(tls) = &context.connection.tls {
        line.text("tls_version", tls.version);
        line.text("tls_cipher", tls.cipher);
        if let Some(name) = &tls.server_name {
            line.text("sni", name);
        }
    }
    if let Some(certificate) = &context.certificate {
        line.bytes("ssl_client_verify", certificate.verdict.as_bytes());
        line.bytes("ssl_client_s_dn", certificate.subject());
    }
    line.number("status", facts.status.as_u16());
    line.number("bytes_sent", facts.outcome.sent);
    line.number(
        "bytes_received",
        context.header_bytes + facts.outcome.received,
    );
    line.number("request_time", Seconds(facts.elapsed));
    upstream_fields(&mut line, facts);
    if let Some(value) = facts.header(&USER_AGENT) {
        line.bytes("user_agent", value);
    }
    if let Some(value) = facts.header(&REFERER) {
        line.bytes("referer", value);
    }
    match &context.reason {
        Some(reason) => line.text("reason", reason.as_str()),
        None => line.text("reason", "upstream"),
    }
    line.close();
}

fn upstream_fields(line: &mut Object<'_>, facts: &Facts<'_>) {
    let context = facts.context;
    if let Some(last) = facts.last_try() {
        line.raw("upstream_addr", |out| {
            out.push(b'"');
            list(out, &context.tries, |out, attempt| {
                show(out, attempt.address());
            });
            out.push(b'"');
        });
        if let Some(status) = last.status {
            line.number("upstream_status", status.as_u16());
        }
        if let Some(connected) = last.connected.filter(|_| !last.reused) {
            line.number("upstream_connect_time", Seconds(connected));
        }
        if let Some(header) = last.header {
            line.number("upstream_header_time", Seconds(header));
        }
        if let Some(ended) = last.ended {
            line.number("upstream_response_time", Seconds(ended));
        }
        line.number("tries", context.tries.len());
    }
    if let Some(route) = &context.route {
        line.text("namespace", &route.origin.object.namespace);
        line.text("ingress", &route.origin.object.name);
    }
    if let Some(target) = &context.target {
        line.text("service", &target.backend.id.service);
        line.text("service_port", &target.backend.id.port);
    }
    if let Some(route) = &context.route {
        line.shown("rule_path", &route.path);
    }
}

/// Appends the default line of ingress-nginx, which many pipelines have a pattern for:
///
/// `$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"
/// $request_length $request_time [$proxy_upstream_name] [$proxy_alternative_upstream_name] $upstream_addr
/// $upstream_response_length $upstream_response_time $upstream_status $req_id`
pub(super) fn text(out: &mut Vec<u8>, facts: &Facts<'_>, clock: &mut Clock) {
    let context = facts.context;
    let request = facts.outcome.request;
    show(out, context.client.address);
    out.extend_from_slice(b" - - [");
    clock.local(out, context.started_at);
    out.extend_from_slice(b"] \"");
    escape_text(out, request.method.as_str().as_bytes());
    out.push(b' ');
    escape_text(out, facts.outcome.target);
    out.push(b' ');
    out.extend_from_slice(protocol(request.version).as_bytes());
    show(
        out,
        format_args!("\" {} {} \"", facts.status.as_u16(), facts.outcome.sent),
    );
    escape_text(out, facts.header(&REFERER).unwrap_or(b"-"));
    out.extend_from_slice(b"\" \"");
    escape_text(out, facts.header(&USER_AGENT).unwrap_or(b"-"));
    show(
        out,
        format_args!(
            "\" {} {} [",
            context.header_bytes + facts.outcome.received,
            Seconds(facts.elapsed)
        ),
    );
    if let Some(target) = &context.target {
        let id = &target.backend.id;
        show(
            out,
            format_args!("{}-{}-{}", id.namespace, id.service, id.port),
        );
    }
    out.extend_from_slice(b"] [] ");
    if context.tries.is_empty() {
        out.extend_from_slice(b"- - - -");
    } else {
        list(out, &context.tries, |out, attempt| {
            show(out, attempt.address());
        });
        show(out, format_args!(" {} ", facts.outcome.upstream_received));
        list(out, &context.tries, |out, attempt| {
            show(out, Seconds(attempt.ended.unwrap_or_default()));
        });
        out.push(b' ');
        list(out, &context.tries, |out, attempt| match attempt.status {
            Some(status) => show(out, status.as_u16()),
            None => out.push(b'-'),
        });
    }
    out.push(b' ');
    match &context.request_id {
        Some(id) => escape_text(out, id.as_bytes()),
        None => out.push(b'-'),
    }
    out.push(b'\n');
}

fn list<T>(out: &mut Vec<u8>, items: &[T], mut each: impl FnMut(&mut Vec<u8>, &T)) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b", ");
        }
        each(out, item);
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        _ => "HTTP/0.9",
    }
}

/// Seconds with milliseconds.
struct Seconds(Duration);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0.as_secs(), self.0.subsec_millis())
    }
}

fn show(out: &mut Vec<u8>, value: impl Display) {
    // Writing into memory does not fail.
    let _ = write!(Bytes(out), "{value}");
}

struct Bytes<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Bytes<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Writes a JSON object field by field.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    fn close(self) {
        self.out.extend_from_slice(b"}\n");
    }

    /// `name` has nothing to escape: it is one of ours.
    fn raw(&mut self, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        value(self.out);
    }

    fn text(&mut self, name: &str, value: &str) {
        self.bytes(name, value.as_bytes());
    }

    fn bytes(&mut self, name: &str, value: &[u8]) {
        self.raw(name, |out| {
            out.push(b'"');
            escape_json(out, value);
            out.push(b'"');
        });
    }

    fn shown(&mut self, name: &str, value: impl Display) {
        self.raw(name, |out| {
            out.push(b'"');
            let mut escaped = Escaped(out);
            let _ = write!(escaped, "{value}");
            out.push(b'"');
        });
    }

    fn number(&mut self, name: &str, value: impl Display) {
        self.raw(name, |out| show(out, value));
    }
}

struct Escaped<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        escape_json(self.0, text.as_bytes());
        Ok(())
    }
}

/// The inside of a JSON string. Bytes that are not UTF-8 become U+FFFD.
fn escape_json(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        let valid = chunk.valid().as_bytes();
        let mut rest = valid;
        while let Some(at) = rest.iter().position(|byte| needs_escape(*byte)) {
            let (clean, tail) = rest.split_at(at);
            out.extend_from_slice(clean);
            let Some((byte, tail)) = tail.split_first() else {
                break;
            };
            match byte {
                b'"' => out.extend_from_slice(b"\\\""),
                b'\\' => out.extend_from_slice(b"\\\\"),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                other => show(out, format_args!("\\u{other:04x}")),
            }
            rest = tail;
        }
        out.extend_from_slice(rest);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Control characters and what JSON gives a meaning; DEL as well, which some terminals act on.
fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || matches!(byte, b'"' | b'\\' | 0x7f)
}

/// As nginx escapes what it logs.
fn escape_text(out: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        if !(0x20..0x7f).contains(&byte) || matches!(byte, b'"' | b'\\') {
            show(out, format_args!("\\x{byte:02X}"));
        } else {
            out.push(byte);
        }
    }
}

/// Turns points in time into text. The part up to the second is kept, since it is nearly always the same.
#[derive(Debug, Default)]
pub(super) struct Clock {
    second: Option<i64>,
    rfc3339: Vec<u8>,
    local: Vec<u8>,
}

impl Clock {
    /// `2026-11-22T18:38:00.123Z`
    fn rfc3339(&mut self, out: &mut Vec<u8>, time: SystemTime) {
        let millis = self.set(time);
        out.extend_from_slice(&self.rfc3339);
        show(out, format_args!(".{millis:03}Z"));
    }

    /// `22/Nov/2026:18:38:00 +0000`
    fn local(&mut self, out: &mut Vec<u8>, time: SystemTime) {
        self.set(time);
        out.extend_from_slice(&self.local);
    }

    /// Prepares the texts and returns the milliseconds.
    fn set(&mut self, time: SystemTime) -> u32 {
        const MONTHS: [&str; 12] = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ];
        // A clock before 1970 is not set; there is nothing better to write.
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        if self.second != Some(second) {
            let (year, month, day) = civil(second.div_euclid(86_400));
            let of_day = second.rem_euclid(86_400);
            let (h, m, s) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
            self.rfc3339.clear();
            show(
                &mut self.rfc3339,
                format_args!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}"),
            );
            let name = usize::try_from(month - 1)
                .ok()
                .and_then(|index| MONTHS.get(index))
                .unwrap_or(&"Jan");
            self.local.clear();
            show(
                &mut self.local,
                format_args!("{day:02}/{name}/{year:04}:{h:02}:{m:02}:{s:02} +0000"),
            );
            self.second = Some(second);
        }
        since.subsec_millis()
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar. Years begin in March
/// here, so that the leap day is the last one.
fn civil(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = year + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_bytes_stay_inside_their_string() {
        for (given, want) in [
            (&b"plain"[..], "plain"),
            (b"a\"b\\c", "a\"b\\c"),
            (b"a\r\nb\tc", "a\r\nb\tc"),
            (b"\x00\x1f\x7f", "\0\u{1f}\u{7f}"),
            ("b\u{fc}cher \u{2028}".as_bytes(), "b\u{fc}cher \u{2028}"),
            (b"\xff\xfe\"", "\u{fffd}\u{fffd}\""),
            (b"", ""),
        ] {
            let mut out = Vec::new();
            let mut object = Object::open(&mut out);
            object.bytes("a", given);
            object.number("b", 1);
            object.close();
            assert_eq!(out.split(|byte| *byte == b'\n').count(), 2);
            let parsed: serde_json::Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(parsed["a"], want);
            assert_eq!(parsed["b"], 1);
        }
    }

    #[test]
    fn text_is_escaped_as_nginx_does() {
        let mut out = Vec::new();
        escape_text(&mut out, b"a\"b\\c\n\x7f\xff ");
        assert_eq!(out, br"a\x22b\x5Cc\x0A\x7F\xFF ");
    }

    #[test]
    fn points_in_time_have_their_date() {
        for (seconds, want, local) in [
            (0, "1970-01-01T00:00:00.000Z", "01/Jan/1970:00:00:00 +0000"),
            (
                951_782_400,
                "2000-02-29T00:00:00.000Z",
                "29/Feb/2000:00:00:00 +0000",
            ),
            (
                1_795_372_681,
                "2026-11-22T18:38:01.000Z",
                "22/Nov/2026:18:38:01 +0000",
            ),
            (
                4_107_542_399,
                "2100-02-28T23:59:59.000Z",
                "28/Feb/2100:23:59:59 +0000",
            ),
            (
                4_107_542_400,
                "2100-03-01T00:00:00.000Z",
                "01/Mar/2100:00:00:00 +0000",
            ),
        ] {
            let mut clock = Clock::default();
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            let mut out = Vec::new();
            clock.rfc3339(&mut out, time);
            assert_eq!(std::str::from_utf8(&out), Ok(want));
            out.clear();
            clock.local(&mut out, time);
            assert_eq!(std::str::from_utf8(&out), Ok(local));
        }
    }
}
