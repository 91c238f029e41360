//! What makes a request of HTTP/2 a unary call of gRPC.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderValue, Method, Request};

use super::{Answer, Body};

/// A message of one field with number 1 and this many bytes, behind the prefix that says how long it is.
pub fn grpc_message(size: usize) -> Bytes {
    let mut message = BytesMut::new();
    if size > 0 {
        message.put_u8(0x0a);
        let mut length = size;
        while length >= 0x80 {
            message.put_u8(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
            length >>= 7;
        }
        message.put_u8(u8::try_from(length).unwrap_or_default());
        message.put_bytes(b'x', size);
    }
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put(message);
    framed.freeze()
}

/// Method and fields of a call.
pub fn make_grpc(request: &mut Request<Body>) {
    *request.method_mut() = Method::POST;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
}

/// A call has gone well when its status is 0; an answer without a body has it in its header.
pub fn judge_grpc(answer: &Answer) -> Result<(), String> {
    let status = answer
        .trailers
        .get("grpc-status")
        .or_else(|| answer.headers.get("grpc-status"));
    match status {
        Some(status) if status == "0" => Ok(()),
        Some(status) => Err(format!("grpc-status {status:?}")),
        None => Err("no grpc-status".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_how_long_it_is() {
        assert_eq!(grpc_message(0).as_ref(), [0; 5]);
        assert_eq!(grpc_message(2).as_ref(), b"\0\0\0\0\x04\x0a\x02xx");
        let long = grpc_message(300);
        assert_eq!(&long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 2]);
        assert_eq!(long.len(), 5 + 303);
    }
}
