//! Which endpoints are near.
//!
//! EndpointSlices say by hints which nodes or zones an endpoint is meant for; whoever fills them in follows the Service
//! (`spec.trafficDistribution`, or the annotation `service.kubernetes.io/topology-mode`). They count as they do for kube-proxy: hints
//! for nodes if every ready endpoint has one and one of them is for our node; else hints for zones if every ready endpoint has one
//! and one of them is for our zone; else none. Endpoints that terminate have no part in it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use k8s_openapi::api::discovery::v1::EndpointHints;
use model::Endpoint;

/// Where this process runs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Locality {
    /// The name of the node. Without it, hints for nodes do not count.
    pub node: Option<Box<str>>,
    /// The zone of the node. Without it, hints for zones do not count.
    pub zone: Option<Box<str>>,
}

/// What the hints of the ready endpoints of a backend say.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    node: Tally,
    zone: Tally,
}

#[derive(Debug, Default)]
struct Tally {
    /// An endpoint says nothing.
    incomplete: bool,
    /// Those that are meant for us.
    ours: BTreeSet<SocketAddr>,
}

impl Hints {
    /// Takes in a ready endpoint.
    pub(crate) fn add(
        &mut self,
        address: SocketAddr,
        hints: Option<&EndpointHints>,
        here: &Locality,
    ) {
        let nodes = hints.and_then(|hints| hints.for_nodes.as_deref());
        let nodes = nodes.unwrap_or_default().iter();
        let names = nodes.map(|node| node.name.as_str());
        self.node.add(address, names, here.node.as_deref());
        let zones = hints.and_then(|hints| hints.for_zones.as_deref());
        let zones = zones.unwrap_or_default().iter();
        let names = zones.map(|zone| zone.name.as_str());
        self.zone.add(address, names, here.zone.as_deref());
    }

    /// Marks the endpoints that are far.
    pub(crate) fn mark<'a>(self, endpoints: impl Iterator<Item = &'a mut Endpoint>) {
        let Some(near) = self.node.decision().or_else(|| self.zone.decision()) else {
            return;
        };
        for endpoint in endpoints {
            endpoint.far = !near.contains(&endpoint.address);
        }
    }
}

impl Tally {
    fn add<'a>(
        &mut self,
        address: SocketAddr,
        names: impl ExactSizeIterator<Item = &'a str>,
        ours: Option<&str>,
    ) {
        self.incomplete |= names.len() == 0;
        let Some(ours) = ours else {
            return;
        };
        let mut names = names;
        if names.any(|name| name == ours) {
            self.ours.insert(address);
        }
    }

    /// The near ones, if hints count.
    fn decision(self) -> Option<BTreeSet<SocketAddr>> {
        (!self.incomplete && !self.ours.is_empty()).then_some(self.ours)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::discovery::v1::{ForNode, ForZone};

    use super::*;

    /// The ports of the near endpoints; `None` where there is no difference.
    fn near(endpoints: &[(&[&str], &[&str])], here: (&str, &str)) -> Option<Vec<u16>> {
        let here = Locality {
            node: (!here.0.is_empty()).then(|| here.0.into()),
            zone: (!here.1.is_empty()).then(|| here.1.into()),
        };
        let address = |port: u16| SocketAddr::from(([10, 0, 0, 1], port));
        let mut hints = Hints::default();
        let mut all = Vec::new();
        for (port, (nodes, zones)) in (1..).zip(endpoints) {
            let of_slice = EndpointHints {
                for_nodes: (!nodes.is_empty()).then(|| {
                    let name = |name: &&str| ForNode {
                        name: (*name).to_owned(),
                    };
                    nodes.iter().map(name).collect()
                }),
                for_zones: (!zones.is_empty()).then(|| {
                    let name = |name: &&str| ForZone {
                        name: (*name).to_owned(),
                    };
                    zones.iter().map(name).collect()
                }),
            };
            let some = !nodes.is_empty() || !zones.is_empty();
            hints.add(address(port), some.then_some(&of_slice), &here);
            all.push(Endpoint::new(address(port)));
        }
        hints.mark(all.iter_mut());
        if all.iter().all(|endpoint| !endpoint.far) {
            return None;
        }
        let near = all.iter().filter(|endpoint| !endpoint.far);
        Some(near.map(|endpoint| endpoint.address.port()).collect())
    }

    /// Endpoints, where we are, which are near, and why.
    type Row<'a> = (
        &'a [(&'a [&'a str], &'a [&'a str])],
        (&'a str, &'a str),
        Option<&'a [u16]>,
        &'a str,
    );

    #[test]
    fn hints_count_as_for_kube_proxy() {
        let (a, b, ab): (&[&str], &[&str], &[&str]) = (&["a"], &["b"], &["a", "b"]);
        let (n, m, none): (&[&str], &[&str], &[&str]) = (&["n"], &["m"], &[]);
        let rows: &[Row<'_>] = &[
            (&[], ("n", "a"), None, "no endpoints"),
            (&[(none, none), (none, none)], ("n", "a"), None, "no hints"),
            (&[(none, a), (none, b)], ("n", "a"), Some(&[1]), "our zone"),
            (
                &[(none, ab), (none, b)],
                ("", "a"),
                Some(&[1]),
                "one of its zones",
            ),
            (&[(none, ab), (none, a)], ("n", "a"), None, "all are ours"),
            (
                &[(none, a), (none, none)],
                ("n", "a"),
                None,
                "one without a hint",
            ),
            (
                &[(none, b), (none, b)],
                ("n", "a"),
                None,
                "none for our zone",
            ),
            (
                &[(none, a), (none, b)],
                ("n", ""),
                None,
                "our zone is not known",
            ),
            (
                &[(n, a), (m, a), (m, b)],
                ("n", "a"),
                Some(&[1]),
                "the node comes before the zone",
            ),
            (
                &[(m, a), (m, a), (m, b)],
                ("n", "a"),
                Some(&[1, 2]),
                "none for our node: the zone",
            ),
            (
                &[(n, a), (none, a), (m, b)],
                ("n", "a"),
                Some(&[1, 2]),
                "not all for nodes: the zone",
            ),
            (
                &[(n, none), (m, none)],
                ("n", "a"),
                Some(&[1]),
                "for nodes alone",
            ),
            (
                &[(n, a), (m, b)],
                ("", "b"),
                Some(&[2]),
                "our node is not known",
            ),
            (&[(n, a), (m, b)], ("", ""), None, "nothing is known"),
        ];
        for (endpoints, here, want, why) in rows {
            let want = want.map(<[u16]>::to_vec);
            assert_eq!(near(endpoints, *here), want, "{why}");
        }
    }
}
