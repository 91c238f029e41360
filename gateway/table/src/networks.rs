//! Sets of addresses, in a form in which a long list costs hardly more than a short one.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

/// A set of addresses: ranges in order that do not touch, searched by halves.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Networks {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl Networks {
    /// The addresses of these networks. IPv4 in IPv6 is IPv4.
    pub fn new(networks: &[IpNet]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => match mapped(net.network(), net.prefix_len()) {
                    Some(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                    None => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
                },
            }
        }
        Self {
            v4: joined(v4, |last| last.checked_add(1)),
            v6: joined(v6, |last| last.checked_add(1)),
        }
    }

    /// Is this address one of them?
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => holds(&self.v4, v4.to_bits()),
            IpAddr::V6(v6) => holds(&self.v6, v6.to_bits()),
        }
    }

    /// Is none?
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

fn mapped(network: Ipv6Addr, length: u8) -> Option<Ipv4Net> {
    let length = length.checked_sub(96)?;
    Ipv4Net::new(network.to_ipv4_mapped()?, length).ok()
}

/// Sorts ranges and joins those that touch.
fn joined<T: Copy + Ord>(mut ranges: Vec<(T, T)>, next: impl Fn(T) -> Option<T>) -> Box<[(T, T)]> {
    ranges.sort_unstable();
    let mut joined: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            // The last address of all has no next one: everything behind it is within.
            Some((_, end)) if next(*end).is_none_or(|next| first <= next) => {
                *end = last.max(*end);
            }
            _ => joined.push((first, last)),
        }
    }
    joined.into()
}

fn holds<T: Copy + Ord>(ranges: &[(T, T)], address: T) -> bool {
    let behind = ranges.partition_point(|(first, _)| *first <= address);
    behind
        .checked_sub(1)
        .and_then(|place| ranges.get(place))
        .is_some_and(|(_, last)| address <= *last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn networks_hold_what_they_say() {
        let set = Networks::new(&nets(&[
            "10.0.0.0/8",
            "192.168.1.7/32",
            "10.2.0.0/16",
            "2001:db8::/32",
            "::ffff:172.16.0.0/108",
            "255.255.255.0/24",
        ]));
        for (address, want) in [
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("9.255.255.255", false),
            ("192.168.1.7", true),
            ("192.168.1.8", false),
            ("::ffff:10.1.2.3", true),
            ("172.16.9.9", true),
            ("172.32.0.1", false),
            ("255.255.255.255", true),
            ("2001:db8:1::1", true),
            ("2001:db9::1", false),
            ("::", false),
        ] {
            assert_eq!(set.contains(address.parse().unwrap()), want, "{address}");
        }
        assert!(!Networks::new(&[]).contains("10.0.0.1".parse().unwrap()));
        let all = Networks::new(&nets(&["0.0.0.0/0", "::/0", "255.0.0.0/8"]));
        for address in ["0.0.0.0", "255.255.255.255", "::", "ffff::1"] {
            assert!(all.contains(address.parse().unwrap()), "{address}");
        }
    }

    proptest! {
        #[test]
        fn a_set_is_what_its_list_is(
            networks in prop::collection::vec((any::<u16>(), 16..=32_u8), 0..40),
            asked in prop::collection::vec(any::<u16>(), 0..40),
        ) {
            // In a small space, so that networks meet.
            let address = |low: u16| {
                let [high, low] = low.to_be_bytes();
                IpAddr::from([10, 0, high, low])
            };
            let list: Vec<IpNet> = networks
                .iter()
                .map(|(low, length)| IpNet::new(address(*low), *length).unwrap())
                .collect();
            let set = Networks::new(&list);
            for low in asked {
                let want = list.iter().any(|net| net.contains(&address(low)));
                prop_assert_eq!(set.contains(address(low)), want);
            }
        }
    }
}
