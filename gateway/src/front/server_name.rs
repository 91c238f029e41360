//! The server name of a `ClientHello`, read without taking it off the connection.
//!
//! Whoever answers the handshake may speak versions of TLS that we do not, so this looks at nothing but the name. What
//! it cannot read has no name; the handshake itself then says what is wrong.

use std::io;

use bytes::BytesMut;
use model::HostName;

use crate::front::conn::Socket;

/// Record type `handshake` (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// Handshake type `client_hello` (RFC 8446, section 4).
const CLIENT_HELLO: u8 = 1;

/// What a record may hold (RFC 8446, section 5.1).
const MAX_RECORD: usize = 1 << 14;

/// What rustls takes as one handshake message. Ours must not be larger, or it would be kept in vain.
const MAX_MESSAGE: usize = 0xffff;

/// With the headers of records: as much as is kept of a client that puts every byte into a record of its own.
const MAX_BYTES: usize = 96 * 1024;

/// Waits for the whole `ClientHello` and returns its server name in normal form. All bytes are left on the socket.
///
/// With Encrypted Client Hello this is the name outside, which is all that there is to see.
pub(super) async fn peek(socket: &mut Socket) -> io::Result<Option<HostName>> {
    let mut bytes = BytesMut::new();
    let mut hello = Hello::default();
    loop {
        if socket.read_more(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(Found(name)) = hello.read(&bytes) {
            socket.unread(bytes);
            return Ok(name);
        }
    }
}

/// For fuzzing: what is found in a message that comes in these pieces.
#[cfg(feature = "fuzzing")]
pub(crate) fn of_pieces(pieces: &[&[u8]]) -> Option<String> {
    let (mut hello, mut bytes) = (Hello::default(), Vec::new());
    let mut found = None;
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        bytes.extend_from_slice(piece);
        found = hello.read(&bytes);
        if found.is_some() {
            break;
        }
    }
    let Found(name) = found?;
    Some(name.map_or_else(String::new, |name| name.as_str().to_owned()))
}

/// The name in a `ClientHello`, if it has one.
#[derive(Debug, Eq, PartialEq)]
struct Found(Option<HostName>);

/// What has been read of a `ClientHello` so far.
#[derive(Debug, Default)]
struct Hello {
    /// Where the next record begins.
    next: usize,
    /// The handshake message, put together.
    message: Vec<u8>,
}

impl Hello {
    /// Reads the complete records of `bytes`, which begin with those that it was given before. `None` asks for more.
    fn read(&mut self, bytes: &[u8]) -> Option<Found> {
        loop {
            let mut rest = Reader(bytes.get(self.next..).unwrap_or_default());
            let kind = rest.u8()?;
            if kind != HANDSHAKE || bytes.len() > MAX_BYTES {
                return Some(Found(None));
            }
            let (Some(_version), Some(length)) = (rest.u16(), rest.u16()) else {
                return None;
            };
            if length == 0 || length > MAX_RECORD {
                return Some(Found(None));
            }
            self.message.extend_from_slice(rest.take(length)?);
            self.next = bytes.len() - rest.0.len();
            let mut message = Reader(&self.message);
            let kind = message.u8()?;
            let (Some(high), Some(low)) = (message.u8(), message.u16()) else {
                continue;
            };
            let length = usize::from(high) << 16 | low;
            if kind != CLIENT_HELLO || length > MAX_MESSAGE {
                return Some(Found(None));
            }
            if let Some(body) = message.take(length) {
                return Some(Found(server_name(body)));
            }
        }
    }
}

/// The name that a complete `ClientHello` asks for (RFC 8446, section 4.1.2, and RFC 6066, section 3).
fn server_name(body: &[u8]) -> Option<HostName> {
    let mut hello = Reader(body);
    hello.take(2 + 32)?; // version and random
    hello.u8().and_then(|length| hello.take(length.into()))?; // session
    hello.u16().and_then(|length| hello.take(length))?; // cipher suites
    hello.u8().and_then(|length| hello.take(length.into()))?; // compression
    let mut extensions = Reader(hello.u16().and_then(|length| hello.take(length))?);
    let mut found = None;
    while let Some(kind) = extensions.u16() {
        let body = extensions
            .u16()
            .and_then(|length| extensions.take(length))?;
        if kind == 0 {
            if found.is_some() {
                return None;
            }
            found = Some(body);
        }
    }
    let mut list = Reader(found?);
    let mut names = Reader(list.u16().and_then(|length| list.take(length))?);
    let host_name = 0;
    if names.u8()? != host_name {
        return None;
    }
    let name = names.u16().and_then(|length| names.take(length))?;
    HostName::parse(std::str::from_utf8(name).ok()?).ok()
}

/// Takes bytes off the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn u16(&mut self) -> Option<usize> {
        let bytes = self.take(2)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?).into())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// What a real client sends first.
    fn client_hello(name: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The same message in records of `size` bytes.
    fn fragmented(bytes: &[u8], size: usize) -> Vec<u8> {
        let pieces = bytes[5..].chunks(size);
        pieces
            .flat_map(|piece| {
                let length = u16::try_from(piece.len()).unwrap().to_be_bytes();
                [&[22, 3, 1][..], &length, piece].concat()
            })
            .collect()
    }

    /// What is found; `?` asks for more.
    fn read(bytes: &[u8]) -> String {
        match Hello::default().read(bytes) {
            None => "?".to_owned(),
            Some(Found(None)) => "none".to_owned(),
            Some(Found(Some(name))) => name.as_str().to_owned(),
        }
    }

    /// A message with this list of extensions.
    fn message(extensions: &[u8]) -> Vec<u8> {
        let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap().to_be_bytes();
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend(length(extensions));
        body.extend(extensions);
        let mut message = vec![1, 0];
        message.extend(length(&body));
        message.extend(body);
        let mut record = vec![22, 3, 1];
        record.extend(length(&message));
        record.extend(message);
        record
    }

    fn sni(name: &[u8]) -> Vec<u8> {
        let length = u8::try_from(name.len()).unwrap();
        let mut extension = vec![0, 0, 0, length + 5, 0, length + 3, 0, 0, length];
        extension.extend(name);
        extension
    }

    #[test]
    fn the_name_is_found_however_the_message_is_cut() {
        let hello = client_hello("Shop.Test");
        let want = "shop.test";
        assert_eq!(read(&hello), want);
        for size in [1, 3, 4, 5, 100] {
            let pieces = fragmented(&hello, size);
            assert_eq!(read(&pieces), want, "records of {size} bytes");
            // As it arrives byte by byte.
            let mut reader = Hello::default();
            for end in 1..pieces.len() {
                assert_eq!(reader.read(&pieces[..end]), None, "{end} bytes");
            }
            let name = reader.read(&pieces).unwrap().0.unwrap();
            assert_eq!(name.as_str(), "shop.test");
        }
    }

    #[test]
    fn what_has_no_name_is_told_at_once() {
        let none = "none";
        // No name is sent for an address.
        assert_eq!(read(&client_hello("192.0.2.1")), none);
        assert_eq!(read(b"GET / HTTP/1.1\r\n"), none);
        assert_eq!(read(&[21, 3, 1, 0, 2, 1, 0]), none, "an alert");
        assert_eq!(read(&[22, 3, 1, 0, 4, 2, 0, 0, 0]), none, "a ServerHello");
        assert_eq!(read(&[22, 3, 1, 0, 0]), none, "an empty record");
        assert_eq!(read(&[22, 3, 1, 0xff, 0xff]), none, "a record too long");
        let large = [22, 3, 1, 0, 4, 1, 1, 0, 0];
        assert_eq!(read(&large), none, "a message of 64 KiB and one");
        for (extensions, why) in [
            (vec![], "no extension"),
            (sni(b""), "an empty name"),
            (sni(b"a b"), "no host name"),
            (sni(b"\xff"), "no text"),
            ([sni(b"a.test"), sni(b"b.test")].concat(), "two names"),
            (vec![0, 0, 0, 9, 0, 1], "cut off"),
        ] {
            assert_eq!(read(&message(&extensions)), none, "{why}");
        }
        assert_eq!(read(&message(&sni(b"a.test"))), "a.test");
    }

    #[test]
    fn the_outer_name_of_an_encrypted_hello_counts() {
        // Extension `encrypted_client_hello` (0xfe0d) hides another name.
        let mut extensions = vec![0xfe, 0x0d, 0, 4, 0, 1, 2, 3];
        extensions.extend(sni(b"public.test"));
        assert_eq!(read(&message(&extensions)), "public.test");
    }

    #[test]
    fn a_client_cannot_make_us_keep_more_than_a_bound() {
        // One byte of a message that never ends in each record.
        let mut all = vec![22, 3, 1, 0, 4, 1, 0, 0xff, 0xff];
        while all.len() <= MAX_BYTES {
            assert_eq!(Hello::default().read(&all), None, "{} bytes", all.len());
            for _ in 0..4000 {
                all.extend([22, 3, 1, 0, 1, 0]);
            }
        }
        assert_eq!(read(&all), "none");
    }

    proptest! {
        /// Whatever comes, it ends, and rustls finds the same name in what it takes.
        #[test]
        fn any_bytes_are_read(noise in prop::collection::vec((0..600_usize, any::<u8>()), 0..4)) {
            let mut bytes = client_hello("a.test");
            for (at, value) in noise {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            let ours = read(&bytes);
            let mut acceptor = rustls::server::Acceptor::default();
            acceptor.read_tls(&mut &bytes[..]).unwrap();
            if let Ok(Some(accepted)) = acceptor.accept() {
                let theirs = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
                let theirs = theirs.and_then(|name| HostName::parse(&name).ok());
                let theirs = theirs.map_or_else(|| "none".to_owned(), |name| name.as_str().to_owned());
                prop_assert_eq!(ours, theirs);
            }
        }
    }
}
