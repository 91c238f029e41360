//! One request as a line in a format of nginx.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, Version};
use model::{LogEscape, LogFormat, LogVariable};
use table::{CompiledLogFormat, CompiledLogPart};

use super::clock::Clock;
use super::line::{Facts, protocol};
use super::tries;
use super::write::{
    escape_control, escape_json, escape_text, show, write_ip, write_number, write_seconds,
};
use crate::asked::{Asked, Named};
use crate::connection::TlsFacts;
use crate::phases::forwarding::X_FORWARDED_FOR;
use crate::phases::route::normal_host;

/// The default format of ingress-nginx.
pub(super) static DEFAULT: LazyLock<CompiledLogFormat> =
    LazyLock::new(|| CompiledLogFormat::new(Arc::new(LogFormat::ingress_nginx())));

/// Appends a line and its end.
pub(super) fn line(
    out: &mut Vec<u8>,
    facts: &Facts<'_>,
    clock: &mut Clock,
    format: &CompiledLogFormat,
) {
    let mut line = Line {
        out,
        facts,
        escape: format.escape(),
    };
    for part in format.parts() {
        match part {
            CompiledLogPart::Text(text) => line.out.extend_from_slice(text),
            CompiledLogPart::Variable(variable) => line.variable(variable, clock),
            CompiledLogPart::Header(name) => line.header(name),
            CompiledLogPart::Sent(place) => {
                let shown = facts.context.shown.as_ref();
                line.kept(shown.and_then(|shown| shown.sent.get(*place)?.as_ref()));
            }
            CompiledLogPart::Upstream(place) => {
                let shown = facts.context.shown.as_ref();
                line.kept(shown.and_then(|shown| shown.upstream.get(*place)?.as_ref()));
            }
            CompiledLogPart::Unknown => line.out.push(b'-'),
        }
    }
    line.out.push(b'\n');
}

struct Line<'a, 'b> {
    out: &'a mut Vec<u8>,
    facts: &'a Facts<'b>,
    escape: LogEscape,
}

impl Line<'_, '_> {
    /// Something that the request does not have.
    fn missing(&mut self) {
        match self.escape {
            LogEscape::Default => self.out.push(b'-'),
            LogEscape::Json | LogEscape::None => {}
        }
    }

    /// Something that somebody else may have written.
    fn bytes(&mut self, bytes: &[u8]) {
        match self.escape {
            LogEscape::Default => escape_text(self.out, bytes),
            LogEscape::Json => escape_json(self.out, bytes),
            LogEscape::None => escape_control(self.out, bytes),
        }
    }

    fn known(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bytes(bytes),
            None => self.missing(),
        }
    }

    fn kept(&mut self, value: Option<&HeaderValue>) {
        self.known(value.map(HeaderValue::as_bytes));
    }

    /// A word of ours.
    fn word(&mut self, word: &str) {
        self.out.extend_from_slice(word.as_bytes());
    }

    fn number(&mut self, number: usize) {
        write_number(self.out, number);
    }

    /// A backend.
    fn named(&mut self, backend: Named<'_>) {
        for (index, part) in backend.parts().into_iter().enumerate() {
            if index > 0 {
                self.word("-");
            }
            self.word(part);
        }
    }

    /// All values of a field of the request.
    fn header(&mut self, name: &HeaderName) {
        let values = self.facts.outcome.request.headers.all(name);
        if values.is_empty() {
            self.missing();
        }
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                self.word(", ");
            }
            self.bytes(value);
        }
    }

    fn variable(&mut self, variable: &LogVariable, clock: &mut Clock) {
        let facts = self.facts;
        let context = facts.context;
        match variable {
            LogVariable::Request
            | LogVariable::RequestMethod
            | LogVariable::RequestUri
            | LogVariable::Uri
            | LogVariable::Args
            | LogVariable::IsArgs
            | LogVariable::ServerProtocol
            | LogVariable::RequestLength
            | LogVariable::RequestId
            | LogVariable::Host
            | LogVariable::HttpHost
            | LogVariable::Header(_)
            | LogVariable::Arg(_)
            | LogVariable::Cookie(_) => self.of_request(variable),
            LogVariable::TimeLocal
            | LogVariable::TimeIso8601
            | LogVariable::Msec
            | LogVariable::RequestTime => self.time(variable, clock),
            LogVariable::RemoteAddr => write_ip(self.out, context.client.address),
            LogVariable::RemoteUser => {
                let user = remote_user(facts.outcome.request.headers.get(&AUTHORIZATION));
                self.known(user.as_deref());
            }
            LogVariable::ProxyAddForwardedFor => {
                if let Some(before) = facts.header(&X_FORWARDED_FOR) {
                    self.bytes(before);
                    self.word(", ");
                }
                write_ip(self.out, context.client.address);
            }
            LogVariable::RemotePort
            | LogVariable::ServerAddr
            | LogVariable::ServerPort
            | LogVariable::Hostname
            | LogVariable::Pid
            | LogVariable::Scheme
            | LogVariable::PassScheme
            | LogVariable::Https
            | LogVariable::Http2
            | LogVariable::Pipe
            | LogVariable::Connection
            | LogVariable::ConnectionRequests
            | LogVariable::ProxyProtocolAddr
            | LogVariable::ProxyProtocolPort => self.of_connection(variable),
            LogVariable::SslProtocol
            | LogVariable::SslCipher
            | LogVariable::SslServerName
            | LogVariable::SslClientVerify
            | LogVariable::SslClientSubject
            | LogVariable::SslClientIssuer => match &context.connection.tls {
                Some(tls) => self.of_tls(variable, tls),
                None => self.missing(),
            },
            LogVariable::Status => self.number(facts.status.as_u16().into()),
            LogVariable::BodyBytesSent => self.number(facts.outcome.sent),
            LogVariable::BytesSent => {
                let shown = context.shown.as_ref();
                let header = shown.map_or(0, |shown| shown.header_bytes);
                self.number(header + facts.outcome.sent);
            }
            LogVariable::UpstreamName
            | LogVariable::AlternativeUpstreamName
            | LogVariable::ServerName
            | LogVariable::Namespace
            | LogVariable::IngressName
            | LogVariable::ServiceName
            | LogVariable::ServicePort
            | LogVariable::LocationPath => self.of_route(variable),
            LogVariable::UpstreamAddr
            | LogVariable::UpstreamStatus
            | LogVariable::UpstreamResponseLength
            | LogVariable::UpstreamResponseTime
            | LogVariable::UpstreamConnectTime
            | LogVariable::UpstreamHeaderTime => {
                if context.tries.is_empty() {
                    self.missing();
                } else {
                    tries::write(self.out, facts, variable);
                }
            }
            LogVariable::UpstreamCacheStatus
            | LogVariable::SentHeader(_)
            | LogVariable::UpstreamHeader(_) => self.missing(),
        }
    }

    fn of_request(&mut self, variable: &LogVariable) {
        let facts = self.facts;
        let request = facts.outcome.request;
        let target = facts.outcome.target;
        let (path, query) = match target.iter().position(|byte| *byte == b'?') {
            Some(at) => {
                let (path, query) = target.split_at(at);
                (path, query.get(1..))
            }
            None => (target, None),
        };
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the others are elsewhere, and the caller names them all"
        )]
        match variable {
            LogVariable::Request => {
                self.bytes(request.method.as_str().as_bytes());
                self.word(" ");
                self.bytes(target);
                self.word(" ");
                self.word(protocol(request.version));
            }
            LogVariable::RequestMethod => self.bytes(request.method.as_str().as_bytes()),
            LogVariable::RequestUri => self.bytes(target),
            LogVariable::Uri => {
                let normal = facts.context.path.as_deref().map(str::as_bytes);
                let path = normal.unwrap_or(path);
                let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
                if path.contains(&b'%') {
                    self.bytes(&decoded(path));
                } else {
                    self.bytes(path);
                }
            }
            LogVariable::Args => self.known(query.filter(|query| !query.is_empty())),
            LogVariable::IsArgs => {
                if query.is_some_and(|query| !query.is_empty()) {
                    self.word("?");
                }
            }
            LogVariable::ServerProtocol => self.word(protocol(request.version)),
            LogVariable::RequestLength => {
                self.number(facts.context.header_bytes + facts.outcome.received);
            }
            LogVariable::RequestId => self.kept(facts.context.request_id.as_ref()),
            LogVariable::HttpHost => self.known(facts.host()),
            LogVariable::Host => {
                let host = facts.host().and_then(|host| std::str::from_utf8(host).ok());
                let host = host.and_then(normal_host);
                self.known(host.as_deref().map(str::as_bytes));
            }
            LogVariable::Arg(name) => {
                let mut pairs = query.unwrap_or_default().split(|byte| *byte == b'&');
                let value = pairs.find_map(|pair| {
                    let (key, value) = pair.split_at_checked(name.len())?;
                    let value = value.strip_prefix(b"=")?;
                    key.eq_ignore_ascii_case(name.as_bytes()).then_some(value)
                });
                self.known(value);
            }
            LogVariable::Cookie(name) => self.known(table::cookie(request.headers.map(), name)),
            _ => self.missing(),
        }
    }

    /// A line tells when it was written.
    fn time(&mut self, variable: &LogVariable, clock: &mut Clock) {
        let facts = self.facts;
        let now = facts.context.started_at + facts.elapsed;
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the others are elsewhere, and the caller names them all"
        )]
        match variable {
            LogVariable::TimeLocal => clock.local(self.out, now),
            LogVariable::TimeIso8601 => clock.iso8601(self.out, now),
            LogVariable::Msec => msec(self.out, now),
            LogVariable::RequestTime => write_seconds(self.out, facts.elapsed),
            _ => self.missing(),
        }
    }

    fn of_connection(&mut self, variable: &LogVariable) {
        let context = self.facts.context;
        let connection = &context.connection;
        let scheme = |https: bool| if https { "https" } else { "http" };
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the others are elsewhere, and the caller names them all"
        )]
        match variable {
            LogVariable::RemotePort => self.number(connection.client.port().into()),
            LogVariable::ServerAddr => write_ip(self.out, connection.local.ip().to_canonical()),
            LogVariable::ServerPort => self.number(connection.local.port().into()),
            LogVariable::Hostname => self.bytes(HOSTNAME.as_bytes()),
            LogVariable::Pid => show(self.out, std::process::id()),
            LogVariable::Scheme => self.word(scheme(connection.tls.is_some())),
            LogVariable::PassScheme => self.word(scheme(context.client.https)),
            LogVariable::Https => self.word(if connection.tls.is_some() { "on" } else { "" }),
            LogVariable::Http2 => {
                let is_2 = self.facts.outcome.request.version == Version::HTTP_2;
                self.word(match (is_2, connection.tls.is_some()) {
                    (true, true) => "h2",
                    (true, false) => "h2c",
                    (false, _) => "",
                });
            }
            LogVariable::Pipe => self.word("."),
            LogVariable::Connection => show(self.out, connection.logged.number()),
            LogVariable::ConnectionRequests => show(self.out, connection.logged.requests()),
            LogVariable::ProxyProtocolAddr if connection.proxied => {
                write_ip(self.out, connection.client.ip());
            }
            LogVariable::ProxyProtocolPort if connection.proxied => {
                self.number(connection.client.port().into());
            }
            _ => self.missing(),
        }
    }

    fn of_tls(&mut self, variable: &LogVariable, tls: &TlsFacts) {
        let certificate = self.facts.context.certificate.as_ref();
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the others are elsewhere, and the caller names them all"
        )]
        match variable {
            LogVariable::SslProtocol => self.word(tls.version),
            LogVariable::SslCipher => self.word(openssl_name(tls.cipher)),
            LogVariable::SslServerName => {
                self.known(tls.server_name.as_deref().map(str::as_bytes));
            }
            LogVariable::SslClientVerify => match certificate {
                Some(certificate) => self.bytes(certificate.verdict.as_bytes()),
                None => self.word("NONE"),
            },
            LogVariable::SslClientSubject | LogVariable::SslClientIssuer => {
                let names = certificate.and_then(|certificate| certificate.names.as_ref());
                self.kept(names.map(|names| match variable {
                    LogVariable::SslClientIssuer => &names.issuer,
                    _ => &names.subject,
                }));
            }
            _ => self.missing(),
        }
    }

    fn of_route(&mut self, variable: &LogVariable) {
        let context = self.facts.context;
        let route = context.route.as_ref();
        let asked = Asked::by(context);
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the others are elsewhere, and the caller names them all"
        )]
        match variable {
            LogVariable::UpstreamName => match asked.main {
                Some(main) => self.named(main),
                None if route.is_none() => self.word("upstream-default-backend"),
                // A route that answers by itself.
                None => self.word("-"),
            },
            LogVariable::AlternativeUpstreamName => {
                if let Some(canary) = asked.canary {
                    self.named(canary);
                }
            }
            LogVariable::ServerName => match route {
                Some(route) => show(self.out, &route.host),
                None => self.word("_"),
            },
            LogVariable::Namespace => {
                self.bytes(route.map_or(&[], |route| route.origin.object.namespace.as_bytes()));
            }
            LogVariable::IngressName => {
                self.bytes(route.map_or(&[], |route| route.origin.object.name.as_bytes()));
            }
            LogVariable::ServiceName => {
                self.bytes(asked.main.map_or(&[], |main| main.service().as_bytes()));
            }
            LogVariable::ServicePort => {
                self.bytes(asked.main.map_or(&[], |main| main.port().as_bytes()));
            }
            LogVariable::LocationPath => match route {
                Some(route) => self.bytes(route.path.marked().1.as_bytes()),
                None => self.missing(),
            },
            _ => self.missing(),
        }
    }
}

static HOSTNAME: LazyLock<String> = LazyLock::new(|| {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
});

/// Seconds since 1970 with milliseconds.
fn msec(out: &mut Vec<u8>, time: SystemTime) {
    // A clock before 1970 is not set.
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    write_seconds(out, since);
}

/// A path with its escapes decoded, as nginx shows it. What is no escape stays.
fn decoded(path: &[u8]) -> Cow<'_, [u8]> {
    table::decoded_path(path).map_or(Cow::Borrowed(path), Cow::Owned)
}

/// What OpenSSL calls a cipher suite. Those of TLS 1.3 have one name.
fn openssl_name(iana: &'static str) -> &'static str {
    match iana {
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => "ECDHE-RSA-CHACHA20-POLY1305",
        other => other,
    }
}

/// The name that a client gives with `Basic`, whether anybody asks for it or not.
fn remote_user(header: Option<&[u8]>) -> Option<Vec<u8>> {
    let text = header?;
    let (scheme, rest) = text.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let mut pair = STANDARD_NO_PAD_OR_PAD.decode(rest.trim_ascii()).ok()?;
    let end = pair.iter().position(|byte| *byte == b':')?;
    pair.truncate(end);
    (!pair.is_empty()).then_some(pair)
}

/// With or without padding, as nginx reads it.
const STANDARD_NO_PAD_OR_PAD: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_once() {
        for (path, want) in [
            ("/a%20b", "/a b"),
            ("/a%2520", "/a%20"),
            ("/%zz%4", "/%zz%4"),
            ("/%2f%C3%A9", "/\u{2f}\u{e9}"),
        ] {
            assert_eq!(&*decoded(path.as_bytes()), want.as_bytes(), "{path}");
        }
    }

    #[test]
    fn the_user_is_who_the_client_says() {
        for (header, want) in [
            ("Basic YWxpY2U6c2VjcmV0", Some("alice")),
            ("basic  YWxpY2U6cw==", Some("alice")),
            ("Basic YWxpY2U6cw", Some("alice")),
            ("Basic OnNlY3JldA==", None),
            ("Basic YWxpY2U=", None),
            ("Basic !", None),
            ("Bearer YWxpY2U6c2VjcmV0", None),
            ("Basic", None),
        ] {
            let header = HeaderValue::from_static(header);
            let user =
                remote_user(Some(header.as_bytes())).map(|user| String::from_utf8(user).unwrap());
            assert_eq!(user.as_deref(), want, "{header:?}");
        }
    }
}
