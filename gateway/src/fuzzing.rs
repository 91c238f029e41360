//! What fuzzing calls of the inside. Only there with the feature `fuzzing`, which no program has.

use crate::engine::framing::{Framing, Next};
use crate::front::{proxy_protocol, server_name};
use crate::phases::route;

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
