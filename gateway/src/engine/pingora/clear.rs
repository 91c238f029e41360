//! Responses of HTTP/1 that end in one place for everybody.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};

/// Is it beyond doubt where this response ends (RFC 9112, 6.3), and has somebody asked for it? What is corrected by one
/// and passed on by another is how a response comes to the wrong client.
///
/// Pingora has taken `Content-Length` away where it stood beside `Transfer-Encoding`, which is not seen any more.
pub(super) fn is_clear(request: &RequestHeader, response: &ResponseHeader) -> bool {
    if response.version == Version::HTTP_2 {
        return true;
    }
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        return request.version == Version::HTTP_11 && request.headers.contains_key(UPGRADE);
    }
    let mut lengths = response.headers.get_all(CONTENT_LENGTH).iter();
    let mut codings = response.headers.get_all(TRANSFER_ENCODING).iter();
    match (lengths.next(), codings.next()) {
        (None, None) => true,
        (Some(length), None) => {
            let digits = length.as_bytes().iter().all(u8::is_ascii_digit);
            digits && lengths.next().is_none()
        }
        (None, Some(coding)) => {
            let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
            chunked && codings.next().is_none() && response.version == Version::HTTP_11
        }
        (Some(_), Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_in_two_places_is_not_clear() {
        for (version, status, fields, want, why) in [
            (Version::HTTP_11, 200, &[][..], true, "until the end"),
            (Version::HTTP_11, 200, &[("content-length", "3")], true, ""),
            (
                Version::HTTP_11,
                200,
                &[("content-length", "3, 3")],
                false,
                "a list",
            ),
            (
                Version::HTTP_11,
                200,
                &[("content-length", "3"), ("content-length", "3")],
                false,
                "twice",
            ),
            (
                Version::HTTP_11,
                200,
                &[("transfer-encoding", "chunked")],
                true,
                "",
            ),
            (
                Version::HTTP_11,
                200,
                &[("transfer-encoding", "Chunked")],
                true,
                "",
            ),
            (
                Version::HTTP_11,
                200,
                &[("transfer-encoding", "gzip")],
                false,
                "unknown",
            ),
            (
                Version::HTTP_11,
                200,
                &[("transfer-encoding", "gzip, chunked")],
                false,
                "not undone",
            ),
            (
                Version::HTTP_11,
                200,
                &[
                    ("transfer-encoding", "chunked"),
                    ("transfer-encoding", "chunked"),
                ],
                false,
                "twice",
            ),
            (
                Version::HTTP_11,
                200,
                &[("content-length", "3"), ("transfer-encoding", "chunked")],
                false,
                "both",
            ),
            (
                Version::HTTP_10,
                200,
                &[("transfer-encoding", "chunked")],
                false,
                "HTTP/1.0 has no chunks",
            ),
            (Version::HTTP_10, 200, &[("content-length", "3")], true, ""),
            (
                Version::HTTP_11,
                101,
                &[("upgrade", "x")],
                false,
                "nobody asked",
            ),
        ] {
            let request = RequestHeader::build("GET", b"/", None).unwrap();
            let mut response = ResponseHeader::build(status, None).unwrap();
            response.set_version(version);
            for (name, value) in fields {
                response.append_header(*name, *value).unwrap();
            }
            assert_eq!(is_clear(&request, &response), want, "{fields:?}: {why}");
        }
    }
}
