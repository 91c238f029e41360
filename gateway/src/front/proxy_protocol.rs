//! The PROXY protocol, versions 1 and 2: who the client is when a load balancer sits in front of us.

use std::io;
use std::net::{IpAddr, SocketAddr};

use bytes::BytesMut;
use model::ClientTrust;
use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use thiserror::Error;
use tokio::io::AsyncReadExt;

use crate::front::conn::Socket;

/// More than any load balancer sends, extensions included.
const MAX_HEADER: usize = 4096;

/// How version 2 begins.
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest line of version 1, with its end.
const MAX_V1: usize = 107;

/// Version 2, command LOCAL: the load balancer speaks for itself.
const V2_LOCAL: u8 = 0x20;

/// The ends of a connection as a header names them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Addresses {
    /// Who connected to the load balancer.
    pub(crate) client: SocketAddr,
    /// What the client connected to.
    pub(crate) local: SocketAddr,
}

/// Why there is no header.
#[derive(Debug, Error)]
pub(crate) enum ProxyError {
    /// The connection starts with something else.
    #[error("the connection does not start with a PROXY protocol header")]
    Missing,
    /// It starts like a header and is none.
    #[error("the PROXY protocol header is malformed")]
    Malformed,
    /// It does not end in time.
    #[error("the PROXY protocol header is longer than {MAX_HEADER} bytes")]
    TooLong,
    /// The socket failed or was closed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ProxyError {
    /// The label for the metric.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "proxy-protocol-missing",
            Self::Malformed | Self::TooLong => "proxy-protocol-invalid",
            Self::Io(_) => "closed-early",
        }
    }
}

impl From<ProxyError> for io::Error {
    fn from(error: ProxyError) -> Self {
        match error {
            ProxyError::Io(error) => error,
            ProxyError::Missing | ProxyError::Malformed | ProxyError::TooLong => {
                Self::new(io::ErrorKind::InvalidData, error)
            }
        }
    }
}

/// Must a connection of this peer start with a header? What any other peer sends is taken as it is.
pub(crate) fn expected(trust: &ClientTrust, peer: IpAddr) -> bool {
    trust.proxy_protocol
        && trust
            .proxy_protocol_from
            .iter()
            .any(|network| network.contains(&peer))
}

/// Reads a header. `None` means that it names nobody, as for a health check of the load balancer itself; the ends of
/// the socket are the real ones then. What was read beyond the header goes back into the socket.
pub(crate) async fn read(socket: &mut Socket) -> Result<Option<Addresses>, ProxyError> {
    let mut buffer = BytesMut::with_capacity(256);
    loop {
        if let Some((addresses, length)) = parse(&buffer)? {
            socket.unread(buffer.split_off(length));
            return Ok(addresses);
        }
        if buffer.len() >= MAX_HEADER {
            return Err(ProxyError::TooLong);
        }
        let room = MAX_HEADER - buffer.len();
        if (&mut *socket)
            .take(room as u64)
            .read_buf(&mut buffer)
            .await?
            == 0
        {
            return Err(ProxyError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// The header at the start of `buffer` and its length; `None` when there is more to come.
pub(crate) fn parse(buffer: &[u8]) -> Result<Option<(Option<Addresses>, usize)>, ProxyError> {
    // Nothing more is awaited from somebody who speaks another protocol.
    if !begins_alike(buffer, b"PROXY ") && !begins_alike(buffer, V2_SIGNATURE) {
        return Err(ProxyError::Missing);
    }
    if let Some(length) = v2_length(buffer) {
        if length > MAX_HEADER {
            return Err(ProxyError::TooLong);
        }
        if buffer.len() < length {
            return Ok(None);
        }
        // Whatever family a LOCAL header names, its addresses are to be ignored, even when they are not there.
        if buffer.get(V2_SIGNATURE.len()) == Some(&V2_LOCAL) {
            return Ok(Some((None, length)));
        }
    }
    let config = ParseConfig {
        include_tlvs: false,
        allow_v1: true,
        allow_v2: true,
    };
    match ProxyHeader::parse(buffer, config) {
        // It would depend on how it comes in pieces.
        Ok((_, length)) if length > MAX_V1 && v2_length(buffer).is_none() => {
            Err(ProxyError::Malformed)
        }
        Ok((header, length)) => match header.proxied_address() {
            // A header about datagrams cannot be about this connection.
            Some(address) if address.protocol == Protocol::Datagram => Err(ProxyError::Malformed),
            Some(address) => {
                let addresses = Addresses {
                    client: address.source,
                    local: address.destination,
                };
                Ok(Some((Some(addresses), length)))
            }
            None => Ok(Some((None, length))),
        },
        // A complete version 2 header has all its bytes: too few addresses are a mistake, not a reason to wait.
        Err(proxy_header::Error::BufferTooShort) if v2_length(buffer).is_none() => Ok(None),
        Err(_) => Err(ProxyError::Malformed),
    }
}

/// Is one the beginning of the other?
fn begins_alike(buffer: &[u8], signature: &[u8]) -> bool {
    buffer.iter().zip(signature).all(|(a, b)| a == b)
}

/// How long a version 2 header is in all, once its length field is there.
fn v2_length(buffer: &[u8]) -> Option<usize> {
    let (fixed, _) = buffer.split_at_checked(16)?;
    let rest = fixed.strip_prefix(V2_SIGNATURE)?;
    let length = rest.get(2..4)?.try_into().ok()?;
    Some(16 + usize::from(u16::from_be_bytes(length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(client: &str, local: &str) -> Addresses {
        Addresses {
            client: client.parse().unwrap(),
            local: local.parse().unwrap(),
        }
    }

    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let mut header = V2_SIGNATURE.to_vec();
        header.extend([command, family]);
        header.extend(u16::try_from(block.len()).unwrap().to_be_bytes());
        header.extend(block);
        header
    }

    const V4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x10, 0x92, 0x01, 0xbb];

    #[test]
    fn headers_name_both_ends() {
        let v6 = [
            &[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1][..],
            &[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
            &[0, 80, 1, 0xbb],
        ]
        .concat();
        let v4_want = Some(addresses("192.0.2.7:4242", "10.0.0.1:443"));
        let tlvs = [&V4[..], &[0x04, 0, 3, 1, 2, 3]].concat();
        for (header, want, why) in [
            (
                b"PROXY TCP4 192.0.2.7 10.0.0.1 4242 443\r\n".to_vec(),
                v4_want,
                "version 1, IPv4",
            ),
            (
                b"PROXY TCP6 2001:db8::1 2001:db8::2 80 443\r\n".to_vec(),
                Some(addresses("[2001:db8::1]:80", "[2001:db8::2]:443")),
                "version 1, IPv6",
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None, "version 1, nobody"),
            (
                b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(),
                None,
                "the rest is ignored",
            ),
            (v2(0x21, 0x11, &V4), v4_want, "version 2, IPv4"),
            (
                v2(0x21, 0x21, &v6),
                Some(addresses("[2001:db8::1]:80", "[2001:db8::2]:443")),
                "version 2, IPv6",
            ),
            (v2(0x21, 0x11, &tlvs), v4_want, "extensions are skipped"),
            (v2(0x20, 0x00, &[]), None, "LOCAL"),
            (
                v2(0x20, 0x11, &[]),
                None,
                "LOCAL with a family and no addresses",
            ),
            (
                v2(0x20, 0x11, &V4),
                None,
                "the addresses of LOCAL are ignored",
            ),
            (v2(0x21, 0x00, &[]), None, "an unspecified family"),
            (
                v2(0x21, 0x31, &[0; 216]),
                None,
                "Unix sockets have no address for us",
            ),
        ] {
            let mut bytes = header.clone();
            bytes.extend(b"GET / HTTP/1.1\r\n");
            let (got, length) = parse(&bytes).unwrap().unwrap();
            assert_eq!(got, want, "{why}");
            assert_eq!(length, header.len(), "{why}");
            for cut in 0..header.len() {
                assert!(
                    parse(&header[..cut]).unwrap().is_none(),
                    "{why}: {cut} bytes are not enough"
                );
            }
        }
    }

    #[test]
    fn what_is_no_header_is_told_at_once() {
        for (bytes, reason) in [
            (b"GET / HTTP/1.1\r\n".to_vec(), "proxy-protocol-missing"),
            (b"POST".to_vec(), "proxy-protocol-missing"),
            (vec![0x16, 3, 1, 2, 0, 1], "proxy-protocol-missing"),
            (b"PROXY TCP4 192.0.2.7\r\n".to_vec(), ""),
            (
                b"PROXY TCP5 192.0.2.7 10.0.0.1 1 2\r\n".to_vec(),
                "proxy-protocol-invalid",
            ),
            (
                b"PROXY TCP4 192.0.2.7 10.0.0.1 1 70000\r\n".to_vec(),
                "proxy-protocol-invalid",
            ),
            (
                [&b"PROXY TCP4 "[..], &[b'1'; 120]].concat(),
                "proxy-protocol-invalid",
            ),
            (
                [&b"PROXY UNKNOWN "[..], &[b'1'; 120], b"\r\n"].concat(),
                "proxy-protocol-invalid",
            ),
            (v2(0x22, 0x11, &V4), "proxy-protocol-invalid"),
            (v2(0x11, 0x11, &V4), "proxy-protocol-invalid"),
            (v2(0x21, 0x12, &V4), "proxy-protocol-invalid"),
            (v2(0x21, 0x11, &V4[..11]), "proxy-protocol-invalid"),
            (v2(0x21, 0x11, &[0; 5000]), "proxy-protocol-invalid"),
        ] {
            let got = parse(&bytes).err().map_or("", |error| error.reason());
            assert_eq!(got, reason, "{:?}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn only_trusted_peers_must_send_a_header() {
        let trust = ClientTrust {
            proxy_protocol: true,
            proxy_protocol_from: vec!["10.0.0.0/8".parse().unwrap()],
            ..ClientTrust::default()
        };
        assert!(expected(&trust, "10.1.2.3".parse().unwrap()));
        assert!(!expected(&trust, "192.0.2.1".parse().unwrap()));
        let off = ClientTrust {
            proxy_protocol: false,
            ..trust
        };
        assert!(!expected(&off, "10.1.2.3".parse().unwrap()));
    }
}
