//! Which route a request belongs to.

use std::borrow::Cow;
use std::net::Ipv6Addr;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, HOST};
use model::{HostName, normalise_path};
use table::{CompiledAction, CompiledFilter, CompiledRoute, Lookup, Table, TlsEntry};

use super::answer::Answer;
use super::forwarding;
use super::original::{Headers, Original, text};
use crate::connection::TlsFacts;
use crate::context::RequestContext;
use crate::error::Reason;
use crate::filters;

/// A request as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a> {
    /// Method, URI, version, header fields.
    pub(crate) request: Original<'a>,
    /// The request target, byte by byte; an absolute one shows here.
    pub(crate) target: &'a [u8],
}

/// What to do with a request.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Send it to a backend of the route in the context.
    Forward,
    /// Answer it.
    Answer(Box<Answer>),
}

/// Refuses a header section that is larger than allowed.
pub(crate) fn within_limits(context: &mut RequestContext, head: Head<'_>) -> Result<(), Reason> {
    let limits = &context.connection.limits;
    let headers = head.request.headers;
    // Name, colon, space, value, line end: as it stands in HTTP/1.1, and close to the measure of HTTP/2.
    let fields = headers.size() + 4 * headers.len();
    context.header_bytes = head.request.method.as_str().len()
        + head.target.len()
        + " HTTP/1.1\r\n\r\n ".len()
        + fields;
    if headers.len() > limits.max_headers || context.header_bytes > limits.max_header_bytes {
        return Err(Reason::HeaderTooLarge);
    }
    Ok(())
}

/// Finds the route and runs what can answer before a backend is asked.
pub(crate) fn route(context: &mut RequestContext, head: Head<'_>) -> Verdict {
    match find(context, head) {
        Ok(verdict) => verdict,
        Err(reason) => Verdict::Answer(Box::new(Answer::page(reason))),
    }
}

fn find(context: &mut RequestContext, head: Head<'_>) -> Result<Verdict, Reason> {
    let request = head.request;
    forwarding::identify(context, request.headers);
    if *request.method == http::Method::CONNECT {
        return Err(Reason::BadMethod);
    }
    // In HTTP/1 that has been looked at before there was a request.
    if request.version == http::Version::HTTP_2 && request.headers.all(&CONTENT_LENGTH).len() > 1 {
        return Err(Reason::BadRequest);
    }
    let authority = authority(head)?;
    let host = normal_host(authority).ok_or(Reason::BadHost)?;
    if !head.target.is_ascii() && std::str::from_utf8(head.target).is_err() {
        return Err(Reason::BadPath);
    }
    let path = normalise_path(request.uri.path()).map_err(|_| Reason::BadPath)?;
    check_policy(context, &host)?;
    let table = Arc::clone(&context.table);
    let route = table
        .listener(&context.connection.listener)
        .and_then(|listener| {
            table.lookup(&Lookup {
                listener,
                host: &host,
                path: &path,
                query: request.uri.query(),
                method: request.method,
                headers: &request.headers,
            })
        })
        .or_else(|| table.fallback())
        .ok_or(Reason::NoRoute)?;
    context.route = Some(Arc::clone(route));
    let answer = filters::on_request(context, route, request, &host, &path)
        .or_else(|| answer_of(route, context, request, authority, &path));
    if let Some(answer) = answer {
        return Ok(Verdict::Answer(Box::new(answer)));
    }
    for filter in &route.filters {
        let rewritten = if let CompiledFilter::Rewrite(rewrite) = filter {
            filters::rewrite::apply(rewrite, &path)?
        } else if let CompiledFilter::PathRules(rules) = filter {
            filters::path_rules::apply(rules, &path)?.map(|path| (path, None))
        } else {
            None
        };
        if let Some((path, prefix)) = rewritten {
            context.path = Some(path);
            context.prefix = prefix;
            return Ok(Verdict::Forward);
        }
    }
    if let Cow::Owned(path) = path {
        context.path = Some(path);
    }
    Ok(Verdict::Forward)
}

fn answer_of(
    route: &CompiledRoute,
    context: &RequestContext,
    request: Original<'_>,
    authority: &str,
    path: &str,
) -> Option<Answer> {
    match &route.action {
        CompiledAction::Forward(_) => None,
        CompiledAction::Redirect(redirect) => Some(filters::redirect::answer(
            redirect,
            context.client.https,
            authority,
            path,
            request.uri.query(),
        )),
        CompiledAction::Respond { status, reason } => Some(Answer::with_status(
            *status,
            Reason::Route(Arc::clone(reason)),
        )),
    }
}

/// A request must not reach a host through a connection that was made under another TLS policy, for example because a
/// client reuses an HTTP/2 connection for a second name of the certificate (RFC 9110, 15.5.20).
fn check_policy(context: &RequestContext, host: &str) -> Result<(), Reason> {
    let Some(tls) = &context.connection.tls else {
        return Ok(());
    };
    if context.table.passed_on(host).is_some() {
        // Its owner wants nobody to read on the way.
        return Err(Reason::Misdirected);
    }
    match context.table.tls(Some(host)) {
        Some(entry) if entry.policy == tls.policy || is_renewed(entry, tls, &context.table) => {
            Ok(())
        }
        Some(_) | None => Err(Reason::Misdirected),
    }
}

/// Is this what the client would be asked now, and what it has been asked under another list of authorities? Its
/// certificate is judged anew then; a connection for another name would bring nothing else to light.
fn is_renewed(entry: &Arc<TlsEntry>, tls: &TlsFacts, table: &Table) -> bool {
    let own = table.tls(tls.server_name.as_deref());
    entry.transport == tls.transport
        && tls.presented.is_some()
        && own.is_some_and(|own| Arc::ptr_eq(own, entry))
}

/// The authority that the request is for: that of an absolute target, of HTTP/2's `:authority`, or the `Host` field.
/// Where more than one is given, they have to be equal.
fn authority(head: Head<'_>) -> Result<&str, Reason> {
    let host = single_host(head.request.headers)?;
    let target = absolute_authority(head.target)?.or_else(|| {
        head.request
            .uri
            .authority()
            .map(http::uri::Authority::as_str)
    });
    match (target, host) {
        (Some(target), Some(host)) if target.eq_ignore_ascii_case(host) => Ok(target),
        (Some(_), Some(_)) | (None, None) => Err(Reason::BadHost),
        (Some(only), None) | (None, Some(only)) => Ok(only),
    }
}

fn single_host(headers: Headers<'_>) -> Result<Option<&str>, Reason> {
    match headers.first(&HOST) {
        None => Ok(None),
        Some((value, false)) => text(value).map(Some).ok_or(Reason::BadHost),
        Some((_, true)) => Err(Reason::BadHost),
    }
}

/// The authority of `scheme://authority/...`; nothing for the other forms of a target.
pub(crate) fn absolute_authority(target: &[u8]) -> Result<Option<&str>, Reason> {
    if target.first().is_none_or(|byte| *byte == b'/') {
        return Ok(None);
    }
    let Some(at) = target.windows(3).position(|three| three == b"://") else {
        return Ok(None);
    };
    let (scheme, rest) = target.split_at(at);
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return Err(Reason::BadPath);
    }
    let rest = rest.get(3..).unwrap_or_default();
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#'))
        .unwrap_or(rest.len());
    let authority = rest.get(..end).unwrap_or_default();
    std::str::from_utf8(authority)
        .map(Some)
        .map_err(|_| Reason::BadHost)
}

/// The host of an authority in normal form: lower case, without port and trailing dot. Borrowed when nothing had to
/// change.
pub(crate) fn normal_host(authority: &str) -> Option<Cow<'_, str>> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        let port_is_legal = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return port_is_legal.then(|| Cow::Owned(format!("[{address}]")));
    }
    // Byte by byte: a port is short, and most names have none.
    let colon = authority.bytes().rposition(|byte| byte == b':');
    let name = match colon.and_then(|at| authority.split_at_checked(at)) {
        Some((name, port)) if port.get(1..).is_some_and(is_port) => name,
        Some(_) => return None,
        None => authority,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if is_normal_name(name) {
        return Some(Cow::Borrowed(name));
    }
    HostName::parse(name).ok().map(|name| {
        let name: String = name.into();
        Cow::Owned(name)
    })
}

/// Digits, or nothing (RFC 3986, 3.2.3).
fn is_port(text: &str) -> bool {
    text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// May say no to a name that is in normal form, never yes to one that is not.
fn is_normal_name(name: &str) -> bool {
    let mut label = 0usize;
    let mut last = b'.';
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'_' => label += 1,
            b'-' if label > 0 => label += 1,
            b'.' if label > 0 && last != b'-' => label = 0,
            _ => return false,
        }
        if label > 63 {
            return false;
        }
        last = byte;
    }
    label > 0 && last != b'-' && name.len() <= 253
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn a_host_has_one_spelling() {
        for (given, want, why) in [
            ("shop.test", Some("shop.test"), ""),
            ("Shop.TEST", Some("shop.test"), "case is ignored"),
            ("shop.test:8080", Some("shop.test"), "the port is ignored"),
            ("shop.test:", Some("shop.test"), "an empty port is legal"),
            ("shop.test.", Some("shop.test"), "the root is implied"),
            ("shop.test.:443", Some("shop.test"), ""),
            ("a_b.test", Some("a_b.test"), "zones have underscores"),
            ("10.0.0.1:80", Some("10.0.0.1"), "an address is a name here"),
            ("[::1]:80", Some("[::1]"), ""),
            ("[0:0::1]", Some("[::1]"), "one spelling for IPv6 too"),
            ("[::1", None, ""),
            ("[::1]x", None, ""),
            ("", None, "empty"),
            (":80", None, "only a port"),
            ("a..b", None, "an empty label"),
            ("-a.test", None, ""),
            ("a-.test", None, ""),
            ("a b.test", None, ""),
            ("a.test:http", None, "a port has digits"),
            ("a.test:1:2", None, "one port"),
            ("user@a.test", None, "userinfo"),
            ("a/b", None, ""),
            ("*.a.test", None, "a wildcard is not a host"),
        ] {
            assert_eq!(normal_host(given).as_deref(), want, "{given}: {why}");
        }
        assert!(matches!(normal_host("a.test:80"), Some(Cow::Borrowed(_))));
        assert_eq!(normal_host(&"a".repeat(64)), None, "a label of 64 bytes");
        assert_eq!(
            normal_host(&"a.".repeat(127)).as_deref().map(str::len),
            Some(253)
        );
        assert_eq!(normal_host(&"a.".repeat(128)), None, "254 bytes");
    }

    #[test]
    fn target_and_host_have_to_agree() {
        for (target, host, want) in [
            ("/a", Some("a.test"), Ok("a.test")),
            ("/a", None, Err(Reason::BadHost)),
            ("http://a.test/a", Some("a.test"), Ok("a.test")),
            ("http://a.test/a", None, Ok("a.test")),
            ("HTTP://a.test?x", Some("A.test"), Ok("a.test")),
            ("http://a.test/a", Some("b.test"), Err(Reason::BadHost)),
            ("ftp://a.test/a", Some("a.test"), Err(Reason::BadPath)),
            ("/http://b.test/", Some("a.test"), Ok("a.test")),
            ("*", Some("a.test"), Ok("a.test")),
        ] {
            let mut request = Request::builder().uri("/");
            if let Some(host) = host {
                request = request.header(HOST, host);
            }
            let (parts, ()) = request.body(()).unwrap().into_parts();
            let head = Head {
                request: Original::of(&parts),
                target: target.as_bytes(),
            };
            assert_eq!(authority(head), want, "{target} {host:?}");
        }
    }

    #[test]
    fn two_host_fields_are_refused() {
        let (parts, ()) = Request::builder()
            .header(HOST, "a.test")
            .header(HOST, "a.test")
            .body(())
            .unwrap()
            .into_parts();
        let head = Head {
            request: Original::of(&parts),
            target: b"/",
        };
        assert_eq!(authority(head), Err(Reason::BadHost));
    }
}
