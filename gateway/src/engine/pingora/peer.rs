//! An endpoint in Pingora's words.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use ahash::AHashMap;
use model::{BackendProtocol, BackendTls};
use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::{HttpPeer, Scheme};
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::ClientConfig;

use super::narrow::NarrowConnect;
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
pub(super) fn peer(upstream: Upstream, known: &KnownTls) -> HttpPeer {
    let Upstream {
        address,
        // Pingora's pool cannot be told; the era does the same.
        suspect: _,
        era,
        protocol,
        tls: options_of_route,
        server_name,
        connect,
        connect_tls,
        read,
        send,
    } = upstream;
    let tls = protocol == BackendProtocol::Https;
    let mut peer = HttpPeer::new(address, tls, server_name);
    let options = &mut peer.options;
    options.connection_timeout = Some(connect);
    options.total_connection_timeout = Some(if tls { connect_tls } else { connect });
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
    if let Some(wanted) = options_of_route {
        let made = known.made(&wanted);
        peer.group_key = made.group;
        peer.client_cert_key.clone_from(&made.client);
        if let Some(authorities) = &made.authorities {
            peer.options.ca = Some(Arc::clone(authorities));
            // Pingora verifies nothing where there is no name to verify.
            debug_assert!(!peer.sni.is_empty(), "a name is always there");
            peer.options.verify_cert = true;
            peer.options.verify_hostname = true;
        }
        if let Some(narrow) = &made.narrow {
            narrow_down(&mut peer, narrow, connect);
        }
    }
    // Connections from before an endpoint began to fail may lead nowhere, and are not found any more.
    peer.group_key = peer.group_key.wrapping_add(u64::from(era) << 32);
    peer
}

/// Leaves TLS to [`NarrowConnect`]. The rest is as it would be without TLS.
fn narrow_down(peer: &mut HttpPeer, narrow: &Narrow, connect: Duration) {
    peer.scheme = Scheme::HTTP;
    let options = &mut peer.options;
    options.custom_l4 = Some(Arc::new(NarrowConnect {
        config: narrow.config.clone(),
        server_name: peer.sni.clone(),
        timeout: connect,
    }));
    // They cannot be used again, so nobody has to hold them.
    options.idle_timeout = Some(Duration::ZERO);
    let version = if narrow.http2 { 2 } else { 1 };
    options.set_http_version(version, version);
}

/// What routes say about TLS to their backends, in Pingora's words. One per worker, so that its lock is never waited for.
#[derive(Default)]
pub(super) struct KnownTls(Mutex<AHashMap<Box<str>, Arc<Made>>>);

struct Made {
    /// Connections are shared within a group.
    group: u64,
    client: Option<Arc<CertKey>>,
    authorities: Option<Arc<CaType>>,
    narrow: Option<Narrow>,
}

/// What Pingora cannot be told.
struct Narrow {
    /// `None` where it cannot be done: nobody is connected to then.
    config: Option<Arc<ClientConfig>>,
    http2: bool,
}

/// So many are remembered; then it begins anew.
const MOST_TLS: usize = 1024;

impl KnownTls {
    fn made(&self, tls: &BackendTls) -> Arc<Made> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = known.get(&tls.fingerprint) {
            return Arc::clone(made);
        }
        if known.len() >= MOST_TLS {
            known.clear();
        }
        let made = Arc::new(Made::new(tls));
        known.insert(tls.fingerprint.clone(), Arc::clone(&made));
        made
    }
}

impl Made {
    /// The certificates have been read before, or there would be no such route.
    fn new(tls: &BackendTls) -> Self {
        let digits = tls.fingerprint.get(..16).unwrap_or_default();
        Self {
            // The groups of connections without such options are small numbers.
            group: u64::from_str_radix(digits, 16).unwrap_or(u64::MAX).max(16),
            client: tls.client.as_ref().map(|client| {
                let key = client.key.der.expose().clone();
                Arc::new(CertKey::new(client.chain.clone(), key))
            }),
            authorities: tls.authorities.as_ref().map(|list| {
                let list = list.iter();
                let list: Vec<_> = list
                    .map(|der| WrappedX509::new(der.clone(), parse_x509))
                    .collect();
                Arc::<CaType>::from(list)
            }),
            narrow: tls.limits.as_ref().map(|limits| Narrow {
                config: table::narrow_client(tls, limits).ok().map(Arc::new),
                http2: limits.http2,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use pingora::upstreams::peer::Peer;

    use super::*;

    fn hash(protocol: BackendProtocol, server_name: &str, port: u16) -> u64 {
        hash_with(protocol, server_name, port, None, 0)
    }

    fn hash_with(
        protocol: BackendProtocol,
        server_name: &str,
        port: u16,
        fingerprint: Option<&str>,
        era: u32,
    ) -> u64 {
        let tls = fingerprint.map(|fingerprint| {
            Arc::new(BackendTls {
                fingerprint: fingerprint.into(),
                client: None,
                authorities: None,
                name: None,
                limits: None,
            })
        });
        let upstream = Upstream {
            address: ([10, 0, 0, 1], port).into(),
            suspect: false,
            era,
            protocol,
            tls,
            server_name: server_name.to_owned(),
            connect: Duration::from_secs(1),
            connect_tls: Duration::from_secs(2),
            read: Duration::from_secs(1),
            send: Duration::from_secs(1),
        };
        peer(upstream, &KnownTls::default()).reuse_hash()
    }

    #[test]
    fn a_connection_is_not_shared_by_routes_with_other_certificates() {
        let of = |fingerprint: Option<&str>| {
            hash_with(BackendProtocol::Https, "a.ns.svc", 1, fingerprint, 0)
        };
        let (one, other) = ("a1".repeat(32), "b2".repeat(32));
        assert_eq!(of(Some(&one)), of(Some(&one)));
        assert_ne!(of(Some(&one)), of(None));
        assert_ne!(of(Some(&one)), of(Some(&other)));
    }

    #[test]
    fn connections_from_before_an_endpoint_failed_are_not_found() {
        let one = "a1".repeat(32);
        for fingerprint in [None, Some(one.as_str())] {
            let of = |era| hash_with(BackendProtocol::Https, "a.ns.svc", 1, fingerprint, era);
            assert_eq!(of(1), of(1));
            assert_ne!(of(0), of(1));
            assert_ne!(of(1), of(2));
        }
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
