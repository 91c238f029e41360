//! Which header fields go to the backend and to the client.

use std::fmt::Write as _;
use std::net::IpAddr;

use http::header::{AUTHORIZATION, COOKIE, FORWARDED, HOST, STRICT_TRANSPORT_SECURITY};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};
use table::CompiledFilter;

use super::fields::Fields;
use super::forwarding::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT};
use super::original::{Headers, Original};
use super::{session, stand_in};
use crate::context::{RequestContext, Shown};
use crate::filters;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// What is dropped where the peer is not trusted: an application could take it for our word.
const SPOOFABLE: [&str; 5] = [
    "x-forwarded-",
    "x-original-",
    "x-auth-request-",
    "ssl-client-",
    "x-real-ip",
];

/// Chooses the identity of the request: the client's, if it is one, else `random` in hexadecimal.
pub(crate) fn request_id(headers: Headers<'_>, random: impl FnOnce() -> u128) -> HeaderValue {
    let is_one = |value: &HeaderValue| {
        let bytes = value.as_bytes();
        (1..=128).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    };
    let given = headers.value(&X_REQUEST_ID).filter(is_one);
    given.unwrap_or_else(|| hexadecimal(random()))
}

/// 32 digits.
fn hexadecimal(number: u128) -> HeaderValue {
    let mut text = [0; 32];
    for (place, shift) in text.chunks_exact_mut(8).zip([96, 64, 32, 0]) {
        let part = u32::try_from(number >> shift & u128::from(u32::MAX)).unwrap_or(0);
        place.copy_from_slice(&digits(part));
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Eight digits at once, one in each byte of a number.
fn digits(number: u32) -> [u8; 8] {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut bytes = u64::from(number.swap_bytes());
    bytes = (bytes | bytes << 16) & 0x0000_ffff_0000_ffff;
    bytes = (bytes | bytes << 8) & 0x00ff_00ff_00ff_00ff;
    let halves = (bytes >> 4 & 0x000f_000f_000f_000f) | (bytes & 0x000f_000f_000f_000f) << 8;
    // What is over nine carries into the upper half of its byte.
    let letters = (halves + 6 * ONES) >> 4 & ONES;
    let after_nine = u64::from(b'a' - b'0' - 10);
    (halves + u64::from(b'0') * ONES + after_nine * letters).to_le_bytes()
}

/// The target that goes upstream, where it is not the one that came.
pub(crate) fn target(context: &RequestContext, uri: &Uri) -> Option<Uri> {
    let path = context.path.as_deref()?;
    let text = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    // A path in normal form is always a legal one, and the query was legal before.
    parts.path_and_query = Some(PathAndQuery::try_from(text).ok()?);
    Uri::from_parts(parts).ok()
}

/// Changes the header fields of a request for the backend. Hop-by-hop fields are gone already: how they are told
/// apart depends on the protocol, which is the engine's business.
///
/// `original` is the request as the client sent it.
pub(crate) fn to_backend(
    context: &RequestContext,
    original: Original<'_>,
    fields: &mut impl Fields,
) {
    let client = context.client;
    drop_untrusted(fields, client.trusted);
    join_cookies(original.version, original.headers, fields);

    // The text of the connection's own address is made once.
    let address = if client.address == context.connection.client.ip() {
        context.connection.client_text()
    } else {
        value(Ip(client.address))
    };
    let before = original.headers.joined(&X_FORWARDED_FOR);
    fields.set(
        "X-Forwarded-For",
        forwarded_for(context, before.as_ref(), &address),
    );
    if let Some(before) = before {
        fields.set("X-Original-Forwarded-For", before);
    }
    fields.set("X-Real-IP", address);

    let scheme = HeaderValue::from_static(if client.https { "https" } else { "http" });
    fields.set("X-Forwarded-Proto", scheme.clone());
    fields.set("X-Forwarded-Scheme", scheme.clone());
    fields.set("X-Scheme", scheme);

    let host = authority(original);
    let port = trusted_value(client.trusted, original, &X_FORWARDED_PORT)
        .filter(|value| value.as_bytes().iter().all(u8::is_ascii_digit))
        .unwrap_or_else(|| port(host.as_ref(), client.https));
    if let Some(host) = trusted_value(client.trusted, original, &X_FORWARDED_HOST).or(host) {
        fields.set("X-Forwarded-Host", host);
    }
    fields.set("X-Forwarded-Port", port);
    if let Some(id) = &context.request_id {
        fields.set("X-Request-ID", id.clone());
    }
    if let Some(prefix) = &context.prefix {
        fields.set("X-Forwarded-Prefix", prefix.clone());
    }
    if let Some(route) = &context.route {
        for filter in &route.filters {
            match filter {
                CompiledFilter::RequestHeaders(change) => {
                    filters::header_change::apply(change, fields);
                }
                CompiledFilter::ClientCertificate(wanted) => {
                    filters::client_certificate::tell(wanted, context, fields);
                }
                CompiledFilter::Access(access) => {
                    if access.basic.is_some() {
                        // It was meant for the gateway.
                        fields.remove(&AUTHORIZATION);
                    }
                    if let Some(external) = &access.external {
                        filters::external::to_backend(external, context, fields);
                    }
                }
                // An error page is not for the host of the backend.
                CompiledFilter::UpstreamHost(_)
                    if context.stand_in.is_some_and(|stand_in| stand_in.for_page) => {}
                CompiledFilter::UpstreamHost(template) => {
                    let host = filters::variables::render(template, context, original);
                    if let Ok(host) = HeaderValue::try_from(host) {
                        fields.set("Host", host);
                    }
                }
                CompiledFilter::Deny(_)
                | CompiledFilter::PathRules(_)
                | CompiledFilter::Pace(_)
                | CompiledFilter::BackendTls(_)
                | CompiledFilter::Hsts(_)
                | CompiledFilter::HttpsRedirect { .. }
                | CompiledFilter::ResponseHeaders(_)
                | CompiledFilter::Cors(_)
                | CompiledFilter::Rewrite(_)
                | CompiledFilter::ResponseRewrite(_) => {}
            }
        }
        if let Some(stand_in) = context.stand_in {
            stand_in::explain(stand_in, context, route, original, fields);
        }
    }
}

/// The client, behind those for whom a trusted peer speaks where that is asked for.
fn forwarded_for(
    context: &RequestContext,
    before: Option<&HeaderValue>,
    address: &HeaderValue,
) -> HeaderValue {
    let extended = match before {
        Some(before) if context.client.trusted && context.table.trust().append_forwarded_for => {
            let peer = context.connection.client.ip().to_canonical();
            extend(before, peer)
        }
        _ => None,
    };
    extended.unwrap_or_else(|| address.clone())
}

/// Says in a question about a request who the client is.
pub(crate) fn identify(context: &RequestContext, original: Original<'_>, fields: &mut HeaderMap) {
    let address = value(Ip(context.client.address));
    let before = original.headers.joined(&X_FORWARDED_FOR);
    fields.insert(
        X_FORWARDED_FOR,
        forwarded_for(context, before.as_ref(), &address),
    );
    fields.insert(X_REAL_IP, address);
    if let Some(id) = &context.request_id {
        fields.insert(X_REQUEST_ID, id.clone());
    }
}

/// Changes the header fields of a response for the client; of one that Lockgate makes itself, too. What the access log
/// shows of them is kept.
pub(crate) fn to_client(context: &mut RequestContext, fields: &mut impl Fields) {
    let format = context.table.log_format();
    let format = format.filter(|format| format.reads_responses() && !context.is_unlogged());
    let Some(format) = format.cloned() else {
        change_for_client(context, fields);
        return;
    };
    let values = |names: &[HeaderName], fields: &HeaderMap| {
        let fields = Headers::Map(fields);
        let values = names.iter().map(|name| fields.joined(name));
        values.collect::<Box<[_]>>()
    };
    let upstream = match context.own_status {
        None => values(format.upstream(), fields.map()),
        Some(_) => Box::default(),
    };
    change_for_client(context, fields);
    let fields = fields.map();
    context.shown = Some(Box::new(Shown {
        upstream,
        sent: values(format.sent(), fields),
        header_bytes: size(fields),
    }));
}

/// The size of a header section as text, with a status line and without what an engine adds.
fn size(fields: &HeaderMap) -> usize {
    const FRAME: usize = "HTTP/1.1 200 OK\r\n\r\n".len();
    const MARKS: usize = ": \r\n".len();
    let lines = fields
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + MARKS);
    FRAME + lines.sum::<usize>()
}

fn change_for_client(context: &RequestContext, fields: &mut impl Fields) {
    let Some(route) = &context.route else {
        return;
    };
    if context.own_status.is_none() {
        session::tell(context, fields);
    }
    for filter in &route.filters {
        match filter {
            CompiledFilter::Hsts(value) if context.client.https => {
                fields.replace(&STRICT_TRANSPORT_SECURITY, value.clone());
            }
            CompiledFilter::ResponseHeaders(change) => {
                filters::header_change::apply(change, fields);
            }
            CompiledFilter::Cors(cors) => filters::cors::apply(context, cors, fields),
            // What Lockgate says itself points to where it is meant to.
            CompiledFilter::ResponseRewrite(change) if context.own_status.is_none() => {
                filters::response_rewrite::apply(change, fields);
            }
            CompiledFilter::Access(access) => {
                if let Some(external) = &access.external {
                    filters::external::to_client(external, context, fields);
                }
            }
            CompiledFilter::Hsts(_)
            | CompiledFilter::ClientCertificate(_)
            | CompiledFilter::Deny(_)
            | CompiledFilter::PathRules(_)
            | CompiledFilter::Pace(_)
            | CompiledFilter::BackendTls(_)
            | CompiledFilter::HttpsRedirect { .. }
            | CompiledFilter::RequestHeaders(_)
            | CompiledFilter::Rewrite(_)
            | CompiledFilter::UpstreamHost(_)
            | CompiledFilter::ResponseRewrite(_) => {}
        }
    }
}

/// Drops what a client may not say about itself, `Proxy` (CVE-2016-5385), and every name with an underscore: many
/// applications see `X_Real_IP` and `X-Real-IP` as the same variable.
pub(crate) fn drop_untrusted(fields: &mut impl Fields, trusted: bool) {
    let doomed = fields.names_that(|name| {
        name.contains(&b'_')
            || name.eq_ignore_ascii_case(b"proxy")
            || !trusted && is_spoofable(name)
    });
    for name in &doomed {
        fields.remove(name);
    }
}

/// `name` may be in any spelling.
fn is_spoofable(name: &[u8]) -> bool {
    // Most names differ in the first byte, and those with an X in the third one.
    let third = |name: &[u8]| name.get(2).map(|byte| byte | 0x20);
    let own = third(name);
    let begins = |with: &str| {
        let with = with.as_bytes();
        own == third(with)
            && name
                .get(..with.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(with))
    };
    match name.first() {
        Some(b'x' | b'X') => {
            name.eq_ignore_ascii_case(b"x-scheme") || SPOOFABLE.iter().any(|name| begins(name))
        }
        Some(b's' | b'S') => begins("ssl-client-"),
        Some(b'f' | b'F') => name.eq_ignore_ascii_case(FORWARDED.as_str().as_bytes()),
        _ => false,
    }
}

/// HTTP/2 lets a client split its cookies over several fields; HTTP/1.1 does not (RFC 9113, 8.2.3).
pub(crate) fn join_cookies(version: Version, original: Headers<'_>, fields: &mut impl Fields) {
    if version != Version::HTTP_2 {
        return;
    }
    if let Some((_, true)) = original.first(&COOKIE) {
        let joined = original.all(&COOKIE).join(&b"; "[..]);
        if let Ok(joined) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
            fields.replace(&COOKIE, joined);
        }
    }
}

fn extend(before: &HeaderValue, address: IpAddr) -> Option<HeaderValue> {
    let mut bytes = before.as_bytes().to_vec();
    bytes.extend_from_slice(b", ");
    bytes.extend_from_slice(address.to_string().as_bytes());
    HeaderValue::from_maybe_shared(bytes::Bytes::from(bytes)).ok()
}

fn trusted_value(trusted: bool, original: Original<'_>, name: &HeaderName) -> Option<HeaderValue> {
    if trusted {
        original.headers.value(name)
    } else {
        None
    }
}

fn authority(original: Original<'_>) -> Option<HeaderValue> {
    if let Some(host) = original.headers.value(&HOST) {
        return Some(host);
    }
    let authority = original.uri.authority()?;
    HeaderValue::from_str(authority.as_str()).ok()
}

/// The port that the client sees: what its URL says, else the scheme's own. The port of our socket would tell nothing,
/// since a Service nearly always stands before it.
fn port(host: Option<&HeaderValue>, https: bool) -> HeaderValue {
    let given = host.and_then(|host| {
        let bytes = host.as_bytes();
        let at = bytes.iter().rposition(|byte| *byte == b':')?;
        let digits = bytes.get(at + 1..)?;
        let legal = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        legal
            .then(|| HeaderValue::from_bytes(digits).ok())
            .flatten()
    });
    given.unwrap_or_else(|| HeaderValue::from_static(if https { "443" } else { "80" }))
}

/// An address as text.
pub(crate) struct Ip(pub(crate) IpAddr);

impl std::fmt::Display for Ip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

pub(crate) fn value(text: impl std::fmt::Display) -> HeaderValue {
    let mut buffer = bytes::BytesMut::with_capacity(40);
    // Writing into memory does not fail, and neither addresses nor numbers have forbidden bytes.
    let _ = write!(buffer, "{text}");
    HeaderValue::from_maybe_shared(buffer.freeze()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn what_a_client_may_not_say_is_dropped() {
        for (name, untrusted, trusted) in [
            ("x-forwarded-for", false, true),
            ("x-forwarded-anything", false, true),
            ("x-real-ip", false, true),
            ("x-original-url", false, true),
            ("x-scheme", false, true),
            ("x-auth-request-user", false, true),
            ("ssl-client-verify", false, true),
            ("forwarded", false, true),
            ("x_forwarded_for", false, false),
            ("x-real_ip", false, false),
            ("ssl_client_verify", false, false),
            ("some_header", false, false),
            ("proxy", false, false),
            ("x-request-id", true, true),
            ("x-custom", true, true),
            ("ssl", true, true),
            ("authorization", true, true),
        ] {
            for (peer_is_trusted, kept) in [(false, untrusted), (true, trusted)] {
                let mut map = HeaderMap::new();
                map.insert(HeaderName::from_static(name), HeaderValue::from_static("v"));
                drop_untrusted(&mut map, peer_is_trusted);
                assert_eq!(map.contains_key(name), kept, "{name} {peer_is_trusted}");
            }
        }
    }

    #[test]
    fn crumbs_of_http2_are_joined() {
        let mut map = HeaderMap::new();
        for crumb in ["a=1", "b=2", "c=3"] {
            map.append(COOKIE, HeaderValue::from_static(crumb));
        }
        let original = map.clone();
        join_cookies(Version::HTTP_11, (&original).into(), &mut map);
        assert_eq!(map.get_all(COOKIE).iter().count(), 3);
        join_cookies(Version::HTTP_2, (&original).into(), &mut map);
        let values: Vec<_> = map.get_all(COOKIE).iter().collect();
        assert_eq!(values, ["a=1; b=2; c=3"]);
    }

    #[test]
    fn an_identity_is_kept_when_it_is_one() {
        let long = "a".repeat(129);
        for (given, kept) in [
            (Some("4bf92f3577b34da6"), true),
            (Some("a b"), false),
            (Some(""), false),
            (Some(long.as_str()), false),
            (None, false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(given) = given {
                headers.insert(X_REQUEST_ID, HeaderValue::from_str(given).unwrap());
            }
            let id = request_id(Headers::Map(&headers), || 0xabc);
            let made = "00000000000000000000000000000abc";
            assert_eq!(id, if kept { given.unwrap() } else { made }, "{given:?}");
        }
    }

    #[test]
    fn a_number_has_32_digits() {
        for number in [
            0,
            1,
            u128::MAX,
            0x0123_4567_89ab_cdef_0f1e_2d3c_4b5a_6978,
            0x9a9a_a9a9_0a0b_0c0d_90a0_b0c0_d0e0_f0ff,
        ] {
            assert_eq!(hexadecimal(number), format!("{number:032x}"));
        }
    }

    #[test]
    fn the_port_is_the_one_of_the_url() {
        for (host, https, want) in [
            ("a.test", false, "80"),
            ("a.test", true, "443"),
            ("a.test:8443", true, "8443"),
            ("[::1]", false, "80"),
            ("[::1]:81", false, "81"),
            ("a.test:", true, "443"),
        ] {
            let (parts, ()) = Request::builder()
                .header(HOST, host)
                .body(())
                .unwrap()
                .into_parts();
            assert_eq!(
                port(authority(Original::of(&parts)).as_ref(), https),
                want,
                "{host}"
            );
        }
    }
}
