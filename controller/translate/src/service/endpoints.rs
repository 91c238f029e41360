//! The endpoints of a Service, from its slices, and which addresses are none.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use k8s_openapi::api::discovery::v1::{Endpoint as SliceEndpoint, EndpointSlice};
use model::{Endpoint, ObjectRef};

use crate::Locality;
use crate::locality::Hints;
use crate::object::{kinds, name_of};
use crate::report::{Problem, Reason, quoted};
use crate::stream::Transport;

/// Why an address is not connected to: whoever may write a slice must not reach the node's or the cloud's own services
/// through the gateway.
pub(super) fn refusal(address: IpAddr, allow_loopback: bool) -> Option<&'static str> {
    /// Where a large cloud answers questions about its machines, beside 169.254.169.254.
    const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    let address = address.to_canonical();
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6 == METADATA_V6,
    };
    if address.is_loopback() {
        (!allow_loopback).then_some("is a loopback address")
    } else if link_local {
        Some("is a link-local address")
    } else if address.is_unspecified() {
        Some("is the unspecified address")
    } else if address.is_multicast() {
        Some("is a multicast address")
    } else {
        None
    }
}

/// The endpoints of several slices.
pub(super) struct Gathered<'a> {
    allow_loopback: bool,
    transport: Transport,
    here: &'a Locality,
    /// Ready ones.
    ready: BTreeMap<SocketAddr, Endpoint>,
    /// Those that still serve while they terminate.
    terminating: BTreeMap<SocketAddr, Endpoint>,
    /// What is said about the ready ones.
    hints: Hints,
    pub(super) app_protocol: Option<String>,
    pub(super) problems: Vec<(ObjectRef, Problem)>,
}

impl<'a> Gathered<'a> {
    pub(super) fn new(allow_loopback: bool, transport: Transport, here: &'a Locality) -> Self {
        Self {
            allow_loopback,
            transport,
            here,
            ready: BTreeMap::new(),
            terminating: BTreeMap::new(),
            hints: Hints::default(),
            app_protocol: None,
            problems: Vec::new(),
        }
    }

    pub(super) fn slice(&mut self, slice: &EndpointSlice, port_name: &str) {
        let report = |this: &mut Self, field: &str, text: &str| {
            this.problems.push((
                name_of(&slice.metadata).reference(kinds::ENDPOINT_SLICE),
                Problem::warning(Reason::EndpointRefused, field, text),
            ));
        };
        if !matches!(slice.address_type.as_str(), "IPv4" | "IPv6") {
            let text = format!(
                "{} is not served, only IPv4 and IPv6 are; this slice is not used",
                quoted(&slice.address_type)
            );
            report(self, "addressType", &text);
            return;
        }
        let transport = self.transport;
        let Some((port, app_protocol)) = slice
            .ports
            .iter()
            .flatten()
            .filter(|port| port.name.as_deref().unwrap_or_default() == port_name)
            .filter(|port| transport.is(port.protocol.as_deref()))
            .find_map(|port| {
                let number = u16::try_from(port.port?)
                    .ok()
                    .filter(|number| *number > 0)?;
                Some((number, port.app_protocol.as_ref()))
            })
        else {
            return;
        };
        if self.app_protocol.is_none() {
            self.app_protocol = app_protocol.cloned();
        }
        let mut refused: Option<String> = None;
        let mut others = 0_usize;
        for (index, endpoint) in slice.endpoints.iter().enumerate() {
            if let Err(why) = self.endpoint(endpoint, port) {
                match refused {
                    None => refused = Some(format!("endpoints[{index}]: {why}")),
                    Some(_) => others += 1,
                }
            }
        }
        if let Some(mut text) = refused {
            if others > 0 {
                // Writing into a String cannot fail.
                let _ = write!(text, " (and {others} more are refused)");
            }
            text.push_str("; no request is sent there");
            report(self, "", &text);
        }
    }

    fn endpoint(&mut self, endpoint: &SliceEndpoint, port: u16) -> Result<(), String> {
        // All addresses of an endpoint reach the same pod; only the first one counts.
        let Some(text) = endpoint.addresses.first() else {
            return Ok(());
        };
        let address: IpAddr = text
            .parse()
            .map_err(|_| format!("{} is not an address", quoted(text)))?;
        if let Some(why) = refusal(address, self.allow_loopback) {
            return Err(format!("{} {why}", quoted(text)));
        }
        let conditions = endpoint.conditions.as_ref();
        let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
        let serving = conditions.and_then(|c| c.serving).unwrap_or(true);
        let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
        let set = match (ready, serving && terminating) {
            (true, _) => &mut self.ready,
            (false, true) => &mut self.terminating,
            (false, false) => return Ok(()),
        };
        let address = SocketAddr::new(address.to_canonical(), port);
        if ready {
            self.hints.add(address, endpoint.hints.as_ref(), self.here);
        }
        let entry = set.entry(address).or_insert_with(|| Endpoint {
            address,
            zone: None,
            terminating: !ready,
            far: false,
        });
        if entry.zone.is_none() {
            entry.zone = endpoint.zone.as_deref().map(Into::into);
        }
        Ok(())
    }

    /// The ready ones; when there is none, those that terminate but still serve, as kube-proxy does.
    pub(super) fn choose(&mut self) -> Vec<Endpoint> {
        if self.ready.is_empty() {
            return std::mem::take(&mut self.terminating)
                .into_values()
                .collect();
        }
        std::mem::take(&mut self.hints).mark(self.ready.values_mut());
        std::mem::take(&mut self.ready).into_values().collect()
    }
}
