//! An endpoint in Pingora's words.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use model::BackendProtocol;
use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::{WrappedX509, parse_x509};

use crate::phases::upstream::Upstream;

/// How long an unused connection to an endpoint is kept.
const IDLE: Duration = Duration::from_mins(1);
/// Requests at once on one HTTP/2 connection to an endpoint. Pingora's default is one.
const STREAMS: usize = 100;
/// What an endpoint may send on one stream, and on one connection, before a slow client has taken it. Pingora's
/// default of 8 MiB for each is memory that clients who do not read would hold.
const STREAM_WINDOW: u32 = 512 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Pingora builds a verifier even for peers that are not verified, and that fails without any root certificate, as in
/// an image that has none. Nothing is ever verified against this one.
static PLACEHOLDER: LazyLock<Arc<CaType>> = LazyLock::new(|| {
    let certificate = include_bytes!("placeholder-ca.der").to_vec();
    Arc::new([WrappedX509::new(certificate, parse_x509)])
});

/// The peer for an endpoint. Everything that a connection must not be shared across has to be in what Pingora hashes:
/// address, scheme, server name, `group_key`, the flags for verification and the number of streams, but not ALPN.
pub(super) fn peer(upstream: Upstream) -> HttpPeer {
    let Upstream {
        address,
        protocol,
        server_name,
        connect,
        read,
        send,
    } = upstream;
    let tls = protocol == BackendProtocol::Https;
    let mut peer = HttpPeer::new(address, tls, server_name);
    let options = &mut peer.options;
    options.connection_timeout = Some(connect);
    // One for TCP and one for TLS, as in nginx.
    options.total_connection_timeout = Some(if tls { connect * 2 } else { connect });
    options.read_timeout = Some(read);
    options.write_timeout = Some(send);
    options.idle_timeout = Some(IDLE);
    options.verify_cert = false;
    options.verify_hostname = false;
    match protocol {
        BackendProtocol::Http1 | BackendProtocol::Auto => options.set_http_version(1, 1),
        BackendProtocol::H2c => options.set_http_version(2, 2),
        BackendProtocol::Https => {
            options.set_http_version(2, 1);
            options.ca = Some(Arc::clone(&PLACEHOLDER));
        }
    }
    if matches!(protocol, BackendProtocol::H2c | BackendProtocol::Https) {
        options.max_h2_streams = STREAMS;
        options.h2_stream_window_size = Some(STREAM_WINDOW);
        options.h2_connection_window_size = Some(CONNECTION_WINDOW);
    }
    peer.group_key = match protocol {
        BackendProtocol::Http1 | BackendProtocol::Auto => 1,
        BackendProtocol::H2c => 2,
        BackendProtocol::Https => 3,
    };
    peer
}

#[cfg(test)]
mod tests {
    use pingora::upstreams::peer::Peer;

    use super::*;

    fn hash(protocol: BackendProtocol, server_name: &str, port: u16) -> u64 {
        peer(Upstream {
            address: ([10, 0, 0, 1], port).into(),
            protocol,
            server_name: server_name.to_owned(),
            connect: Duration::from_secs(1),
            read: Duration::from_secs(1),
            send: Duration::from_secs(1),
        })
        .reuse_hash()
    }

    #[test]
    fn connections_are_shared_only_where_they_are_the_same() {
        let base = hash(BackendProtocol::Https, "a.ns.svc", 1);
        assert_eq!(base, hash(BackendProtocol::Https, "a.ns.svc", 1));
        for other in [
            hash(BackendProtocol::Https, "b.ns.svc", 1),
            hash(BackendProtocol::Https, "a.ns.svc", 2),
            hash(BackendProtocol::Http1, "", 1),
            hash(BackendProtocol::H2c, "", 1),
        ] {
            assert_ne!(base, other);
        }
        assert_ne!(
            hash(BackendProtocol::Http1, "", 1),
            hash(BackendProtocol::H2c, "", 1)
        );
    }
}
