//! Which protocols a connection may be switched to.

use http::header::{HeaderName, UPGRADE};
use pingora::http::RequestHeader;
use pingora::proxy::Session;

const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// A connection never becomes one of HTTP/2 on the way: from then on nobody would look at the requests on it, and a client
/// could ask the backend for what its routes do not allow. RFC 9113, 3.1 has taken this upgrade out.
pub(super) fn stay(session: &mut Session) {
    if asks_for_http2(session.req_header()) {
        let request = session.req_header_mut();
        request.remove_header(&UPGRADE);
        request.remove_header(&HTTP2_SETTINGS);
    }
}

fn asks_for_http2(request: &RequestHeader) -> bool {
    let mut protocols = request.headers.get_all(UPGRADE).iter().flat_map(|value| {
        let words = value.as_bytes().split(|byte| *byte == b',');
        words.map(<[u8]>::trim_ascii)
    });
    protocols.any(|protocol| {
        let name = protocol.split(|byte| *byte == b'/').next();
        let name = name.unwrap_or_default();
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        // `h2`, `h2c`, `h2c-14`, `HTTP/2.0`; websocket and others are none of them.
        is(b"http")
            || name
                .get(..2)
                .is_some_and(|start| start.eq_ignore_ascii_case(b"h2"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_http2_is_known() {
        for (values, want) in [
            (&["h2c"][..], true),
            (&["H2C"], true),
            (&["h2"], true),
            (&["h2c-14"], true),
            (&["HTTP/2.0"], true),
            (&["http/3"], true),
            (&["websocket, h2c"], true),
            (&["websocket", "h2c"], true),
            (&["websocket,\th2c "], true),
            (&["websocket"], false),
            (&["TLS/1.0"], false),
            (&["connect-h2"], false),
            (&[], false),
        ] {
            let mut request = RequestHeader::build("GET", b"/", None).unwrap();
            for value in values {
                request.append_header("upgrade", *value).unwrap();
            }
            assert_eq!(asks_for_http2(&request), want, "{values:?}");
        }
    }
}
