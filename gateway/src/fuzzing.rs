//! What fuzzing calls of the inside. Only there with the feature `fuzzing`, which no program has.

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Version};
use model::ResponseRewrite;

use crate::engine::framing::{Framing, Next};
use crate::filters::response_rewrite;
use crate::front::{proxy_protocol, server_name};
use crate::phases::{headers, route};
use crate::upstream::Token;

/// The host of an authority in normal form.
pub fn host(authority: &str) -> Option<String> {
    route::normal_host(authority).map(std::borrow::Cow::into_owned)
}

/// How long a PROXY header is; nothing where there is more to come.
///
/// # Errors
/// Why it is none, as in metrics.
pub fn proxy_header(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    match proxy_protocol::parse(bytes) {
        Ok(found) => Ok(found.map(|(_, length)| length)),
        Err(error) => Err(error.reason()),
    }
}

/// The server name in a `ClientHello` that comes in these pieces, empty where it has none; nothing where there is more to
/// come.
pub fn client_hello(pieces: &[&[u8]]) -> Option<String> {
    server_name::of_pieces(pieces)
}

/// The value of a cookie in these fields, and in what a backend gets of them.
pub fn cookie(fields: &[HeaderValue], name: &str) -> [Option<Vec<u8>>; 2] {
    let mut map = HeaderMap::new();
    for field in fields {
        map.append(COOKIE, field.clone());
    }
    let value = |map: &HeaderMap| table::cookie(map, name).map(<[u8]>::to_vec);
    let before = value(&map);
    let mut joined = map.clone();
    headers::join_cookies(Version::HTTP_2, (&map).into(), &mut joined);
    [before, value(&joined)]
}

/// What Lockgate would have written for the session in the value of a cookie, if it is one.
pub fn session(value: &[u8]) -> Option<String> {
    let mut text = String::new();
    Token::parse(value)?.write(&mut text);
    Some(text)
}

/// What becomes of a cookie of a backend whose domain and path are replaced.
pub fn rewritten_cookie(cookie: HeaderValue, change: &ResponseRewrite) -> Vec<HeaderValue> {
    let mut map = HeaderMap::new();
    map.append(SET_COOKIE, cookie);
    response_rewrite::apply(change, &mut map);
    map.get_all(SET_COOKIE).iter().cloned().collect()
}

/// Where the requests of a connection end that comes in pieces of `size`.
pub fn framing(bytes: &[u8], size: usize) -> Vec<usize> {
    let (mut framing, mut ends) = (Framing::new(), Vec::new());
    let (mut at, mut come) = (0, 0);
    loop {
        let held = bytes.get(at..come).unwrap_or_default();
        let more = match framing.next() {
            Next::Section => match framing.section(held) {
                Ok(Some(length)) => {
                    at += length;
                    false
                }
                Ok(None) => true,
                Err(_) => return ends,
            },
            Next::Content => {
                at += framing.content(held);
                framing.next() == Next::Content
            }
            Next::Nothing => {
                ends.push(at);
                framing.again();
                false
            }
            Next::Anything | Next::End => return ends,
        };
        if more {
            if come == bytes.len() {
                return ends;
            }
            come = bytes.len().min(come + size.max(1));
        }
    }
}
