//! Who a request is from: the connection's word, or that of a trusted peer.

use std::net::{IpAddr, SocketAddr};

use http::HeaderName;
use ipnet::IpNet;
use model::ClientTrust;

use super::original::{Headers, text};
use crate::context::{Client, RequestContext};
use crate::names;

pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Finds out who the request is from.
pub(crate) fn identify(context: &mut RequestContext, headers: Headers<'_>) {
    context.client = client(
        context.connection.client.ip(),
        context.connection.tls.is_some(),
        context.table.trust(),
        headers,
    );
}

fn client(peer: IpAddr, tls: bool, trust: &ClientTrust, headers: Headers<'_>) -> Client {
    let peer = peer.to_canonical();
    let trusted = contains(&trust.forwarded_headers_from, peer);
    if !trusted && trust.addresses_from.is_empty() {
        return Client {
            address: peer,
            trusted,
            https: tls,
        };
    }
    let believed = if trusted {
        &trust.forwarded_headers_from
    } else {
        &trust.addresses_from
    };
    let of_client = match &trust.address_header {
        // The usual name needs not be looked at.
        None => headers.all(&X_FORWARDED_FOR),
        Some(name) => names::name(name.as_bytes())
            .map(|name| headers.all(&name))
            .unwrap_or_default(),
    };
    Client {
        address: forwarded_for(peer, believed, &of_client),
        trusted,
        https: if trusted {
            forwarded_proto(headers).unwrap_or(tls)
        } else {
            tls
        },
    }
}

/// What `X-Forwarded-Proto` says, if it says `http` or `https`. Of several values the last one counts: it is the
/// trusted peer's.
fn forwarded_proto(headers: Headers<'_>) -> Option<bool> {
    let value = *headers.all(&X_FORWARDED_PROTO).last()?;
    let text = text(value)?.rsplit(',').next()?.trim();
    if text.eq_ignore_ascii_case("https") {
        Some(true)
    } else if text.eq_ignore_ascii_case("http") {
        Some(false)
    } else {
        None
    }
}

/// Walks `X-Forwarded-For`, or what stands for it, from the right and stops at the first address that is not trusted: whatever stands left of
/// it may have been made up by that one.
fn forwarded_for(peer: IpAddr, trusted: &[IpNet], values: &[&[u8]]) -> IpAddr {
    let mut address = peer;
    for value in values.iter().rev() {
        let Some(text) = text(value) else {
            return address;
        };
        for part in text.rsplit(',') {
            if !contains(trusted, address) {
                return address;
            }
            let Some(next) = parse_address(part.trim()) else {
                return address;
            };
            address = next;
        }
    }
    address
}

/// An address, with or without port, IPv6 with or without brackets.
fn parse_address(text: &str) -> Option<IpAddr> {
    let ip = text
        .parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()))
        .or_else(|_| {
            text.trim_start_matches('[')
                .trim_end_matches(']')
                .parse::<IpAddr>()
        })
        .ok()?;
    Some(ip.to_canonical())
}

fn contains(nets: &[IpNet], address: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&address))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    fn trust(nets: &[&str]) -> ClientTrust {
        ClientTrust {
            forwarded_headers_from: nets.iter().map(|net| net.parse().unwrap()).collect(),
            ..ClientTrust::default()
        }
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn only_trusted_peers_speak_for_the_client() {
        let chain = "1.1.1.1, 203.0.113.9, 10.0.0.7";
        for (peer, nets, given, want, why) in [
            ("10.0.0.1", &[][..], chain, "10.0.0.1", "nobody is trusted"),
            ("8.8.8.8", &["10.0.0.0/8"], chain, "8.8.8.8", "not this one"),
            (
                "10.0.0.1",
                &["10.0.0.0/8"],
                chain,
                "203.0.113.9",
                "the first untrusted address from the right",
            ),
            (
                "10.0.0.1",
                &["0.0.0.0/0"],
                chain,
                "1.1.1.1",
                "everybody is trusted",
            ),
            (
                "::ffff:10.0.0.1",
                &["10.0.0.0/8"],
                "9.9.9.9",
                "9.9.9.9",
                "IPv4 in IPv6",
            ),
            (
                "10.0.0.1",
                &["10.0.0.0/8"],
                "unknown, nonsense",
                "10.0.0.1",
                "not an address",
            ),
            (
                "10.0.0.1",
                &["10.0.0.0/8"],
                "[2001:db8::7]:4711",
                "2001:db8::7",
                "with brackets and port",
            ),
            (
                "10.0.0.1",
                &["10.0.0.0/8"],
                "9.9.9.9:80",
                "9.9.9.9",
                "with port",
            ),
        ] {
            let found = client(
                peer.parse().unwrap(),
                false,
                &trust(nets),
                Headers::Map(&headers(&[("x-forwarded-for", given)])),
            );
            assert_eq!(found.address, want.parse::<IpAddr>().unwrap(), "{why}");
        }
    }

    #[test]
    fn a_peer_may_be_believed_about_the_address_alone() {
        let given = headers(&[
            ("x-forwarded-for", "9.9.9.9"),
            ("x-forwarded-proto", "https"),
            ("cf-connecting-ip", "7.7.7.7"),
        ]);
        let name = Some("CF-Connecting-IP".to_owned());
        for (peer, header, all, want, https, why) in [
            ("10.0.0.1", None, false, "9.9.9.9", false, "its address"),
            ("10.0.0.1", name.clone(), false, "7.7.7.7", false, "by name"),
            (
                "8.8.8.8",
                name.clone(),
                false,
                "8.8.8.8",
                false,
                "a stranger",
            ),
            ("10.0.0.1", name, true, "7.7.7.7", true, "everything"),
        ] {
            let mut trust = trust(if all { &["10.0.0.0/8"] } else { &[] });
            trust.addresses_from = vec!["10.0.0.0/8".parse().unwrap()];
            trust.address_header = header;
            let found = client(peer.parse().unwrap(), false, &trust, Headers::Map(&given));
            let want = (want.parse::<IpAddr>().unwrap(), https, all);
            assert_eq!((found.address, found.https, found.trusted), want, "{why}");
        }
    }

    #[test]
    fn the_scheme_of_a_trusted_peer_counts() {
        for (peer, given, tls, want) in [
            ("10.0.0.1", "https", false, true),
            ("10.0.0.1", "HTTPS", false, true),
            ("10.0.0.1", "http, https", false, true),
            ("10.0.0.1", "gopher", false, false),
            ("10.0.0.1", "http", true, false),
            ("8.8.8.8", "https", false, false),
            ("8.8.8.8", "http", true, true),
        ] {
            let found = client(
                peer.parse().unwrap(),
                tls,
                &trust(&["10.0.0.0/8"]),
                Headers::Map(&headers(&[("x-forwarded-proto", given)])),
            );
            assert_eq!(found.https, want, "{peer} {given}");
        }
    }
}
