//! Users who stay at one endpoint.
//!
//! What a client holds is a number without meaning outside, followed by a mark of the backend. With balanced affinity
//! the number is drawn, and the endpoint is the one that it leads to by consistent hashing; with persistent affinity it
//! is a keyed digest of the endpoint's address. Numbers that lead nowhere lead to a new choice.

use std::fmt::Write as _;
use std::net::SocketAddr;

use ahash::AHashMap;
use model::BackendId;
use sha2::{Digest as _, Sha256};

/// What a client says about its session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Token {
    /// The number.
    pub(crate) number: u128,
    /// The mark of the backend.
    pub(crate) mark: u64,
}

impl Token {
    /// Reads a cookie. Whatever Lockgate would not have written is nothing.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let legal = text
            .iter()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'));
        if text.len() != 48 || !legal {
            return None;
        }
        let text = std::str::from_utf8(text).ok()?;
        let (number, mark) = text.split_at_checked(32)?;
        Some(Self {
            number: u128::from_str_radix(number, 16).ok()?,
            mark: u64::from_str_radix(mark, 16).ok()?,
        })
    }

    /// Appends the text of the cookie.
    pub(crate) fn write(self, text: &mut String) {
        // Writing into a String cannot fail.
        let _ = write!(text, "{:032x}{:016x}", self.number, self.mark);
    }
}

/// The session of one request.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// What the client came with, or has been given meanwhile.
    pub(crate) number: Option<u128>,
    /// The mark of the backend.
    pub(crate) mark: u64,
    /// The client is to be told.
    pub(crate) new: bool,
    /// The browser takes `SameSite=None` for something else.
    pub(crate) misreads_none: bool,
}

/// What is derived from the key of a backend. The key does not come back out of it.
pub(super) fn mark(seed: &str, backend: &BackendId) -> u64 {
    let digest = digest(seed, backend, None);
    u64::try_from(digest >> 64).unwrap_or(0)
}

/// The numbers of endpoints.
pub(super) fn numbers(
    seed: &str,
    backend: &BackendId,
    addresses: impl Iterator<Item = SocketAddr>,
) -> AHashMap<u128, usize> {
    addresses
        .enumerate()
        .map(|(index, address)| (digest(seed, backend, Some(address)), index))
        .collect()
}

/// The number of one endpoint.
pub(super) fn number(seed: &str, backend: &BackendId, address: SocketAddr) -> u128 {
    digest(seed, backend, Some(address))
}

/// The first half of a SHA-256: what follows cannot be appended to it.
fn digest(seed: &str, backend: &BackendId, address: Option<SocketAddr>) -> u128 {
    let mut hash = Sha256::new();
    let address = address.map(|address| address.to_string());
    for part in [
        seed,
        &backend.namespace,
        &backend.service,
        &backend.port,
        address.as_deref().unwrap_or_default(),
    ] {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    let bytes: [u8; 32] = hash.finalize().into();
    let half = bytes.first_chunk().copied().unwrap_or_default();
    u128::from_be_bytes(half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_was_written_or_nothing() {
        let token = Token {
            number: 0x0123_4567,
            mark: 9,
        };
        let mut text = String::new();
        token.write(&mut text);
        assert_eq!(text, "000000000000000000000000012345670000000000000009");
        assert_eq!(Token::parse(text.as_bytes()), Some(token));
        for bad in [
            &text[1..],
            "",
            "10.0.0.1:8080",
            &text.replace('7', "+"),
            &text.replace('7', "A"),
            &format!("{text}0"),
        ] {
            assert_eq!(Token::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn numbers_depend_on_the_key_and_the_backend() {
        let address = SocketAddr::from(([10, 0, 0, 1], 80));
        let of =
            |seed: &str, service: &str| number(seed, &BackendId::new("a", service, "80"), address);
        assert_eq!(of("k", "web"), of("k", "web"));
        assert_ne!(of("k", "web"), of("l", "web"));
        assert_ne!(of("k", "web"), of("k", "other"));
    }
}
