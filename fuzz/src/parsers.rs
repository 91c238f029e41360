//! What reads bytes without a connection.

use gateway::fuzzing;
use http::HeaderValue;
use model::{HostName, HostPattern, ResponseRewrite, normalise_path};

/// Names of hosts: in manifests, in requests, in a `ClientHello`.
pub(crate) fn hosts(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(name) = HostName::parse(text) {
        let again = HostName::parse(name.as_str());
        assert_eq!(again.as_ref(), Ok(&name), "a name in normal form stays");
        assert_eq!(
            fuzzing::host(name.as_str()).as_deref(),
            Some(name.as_str()),
            "a request can ask for it"
        );
    }
    if let Ok(pattern) = HostPattern::parse(text) {
        let again = HostPattern::parse(&pattern.to_string());
        assert_eq!(again.as_ref(), Ok(&pattern));
    }
    if let Some(host) = fuzzing::host(text) {
        assert_eq!(fuzzing::host(&host).as_ref(), Some(&host), "one spelling");
        assert!(
            !host
                .bytes()
                .any(|byte| byte.is_ascii_uppercase() || byte <= b' ')
        );
    }
}

/// Paths of requests.
pub(crate) fn paths(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(path) = normalise_path(text) else {
        return;
    };
    assert!(path.starts_with('/'), "{path:?}");
    let again = normalise_path(&path);
    assert_eq!(again.as_deref(), Ok(&*path), "a path in normal form stays");
    let bad = |byte: u8| !byte.is_ascii_graphic() || matches!(byte, b'\\' | b'#' | b'?');
    assert!(!path.bytes().any(bad), "{path:?}");
    for segment in path.split('/') {
        assert!(!matches!(segment, "." | ".."), "{path:?}");
    }
    assert!(!path.contains("//"), "{path:?}");
}

/// Cookies of clients, one field a line, and the same bytes as a cookie of a backend.
pub(crate) fn cookies(bytes: &[u8]) {
    let lines = bytes.split(|byte| *byte == b'\n').take(16);
    let fields: Vec<HeaderValue> = lines
        .filter_map(|line| HeaderValue::from_bytes(line).ok())
        .collect();
    let [before, after] = fuzzing::cookie(&fields, "route");
    assert_eq!(before, after, "a backend sees the same one");
    if let Some(value) = before
        && let Some(session) = fuzzing::session(&value)
    {
        assert_eq!(session.as_bytes(), value, "one spelling");
    }
    let change = ResponseRewrite {
        location: None,
        cookie_domain: Some(("in.test".to_owned(), "out.test".to_owned())),
        cookie_path: Some(("/in".to_owned(), "/out".to_owned())),
    };
    for cookie in fields {
        let parts = |cookie: &HeaderValue| {
            let parts = cookie.as_bytes().split(|byte| *byte == b';');
            parts.map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        let before = parts(&cookie);
        let after = fuzzing::rewritten_cookie(cookie, &change);
        let [after] = after.as_slice() else {
            panic!("one cookie has become {}", after.len());
        };
        let after = parts(after);
        assert_eq!(after.len(), before.len(), "no attribute comes or goes");
        assert_eq!(after.first(), before.first(), "name and value stay");
    }
}

/// What a load balancer sends first.
pub(crate) fn proxy_header(bytes: &[u8]) {
    let whole = fuzzing::proxy_header(bytes);
    if let Ok(Some(length)) = whole {
        assert!(length <= bytes.len());
        // More bytes change nothing, fewer are not enough.
        let more = [bytes, b"x"].concat();
        assert_eq!(fuzzing::proxy_header(&more), whole);
        let less = &bytes[..length.saturating_sub(1)];
        assert_eq!(fuzzing::proxy_header(less), Ok(None));
    }
}

/// What a client of TLS sends first.
pub(crate) fn client_hello(bytes: &[u8]) {
    let whole = fuzzing::client_hello(&[bytes]);
    let (one, other) = bytes.split_at(bytes.len() / 2);
    let pieces = fuzzing::client_hello(&[one, other]);
    if one.len() < 48 * 1024 {
        assert_eq!(whole, pieces, "however it is cut");
    }
}

/// Where requests of HTTP/1 end.
pub(crate) fn framing(bytes: &[u8]) {
    let whole = fuzzing::framing(bytes, bytes.len());
    assert_eq!(whole, fuzzing::framing(bytes, 1), "however it is cut");
    assert!(whole.is_sorted() && whole.iter().all(|end| *end <= bytes.len()));
}
