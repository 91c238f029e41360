//! `Endpoints` → EndpointSlices.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// One slice for each subset and address family, as the API server mirrors them.
pub(super) fn slices(endpoints: &Endpoints) -> Vec<EndpointSlice> {
    let mut slices = Vec::new();
    for (index, subset) in endpoints.subsets.iter().flatten().enumerate() {
        let EndpointSubset {
            addresses,
            not_ready_addresses,
            ports,
        } = subset;
        let mut families: BTreeMap<&str, Vec<Endpoint>> = BTreeMap::new();
        for (list, ready) in [(addresses, true), (not_ready_addresses, false)] {
            for address in list.iter().flatten() {
                // What is not an address at all goes with IPv4, where translation reports it.
                let family = match address.ip.parse() {
                    Ok(IpAddr::V6(_)) => "IPv6",
                    Ok(IpAddr::V4(_)) | Err(_) => "IPv4",
                };
                families
                    .entry(family)
                    .or_default()
                    .push(endpoint(address, ready));
            }
        }
        let ports: Vec<EndpointPort> = ports
            .iter()
            .flatten()
            .map(|port| EndpointPort {
                app_protocol: port.app_protocol.clone(),
                name: port.name.clone(),
                port: Some(port.port),
                protocol: port.protocol.clone(),
            })
            .collect();
        for (family, members) in families {
            slices.push(EndpointSlice {
                address_type: family.to_owned(),
                endpoints: members,
                metadata: metadata(endpoints, index, family),
                ports: Some(ports.clone()),
            });
        }
    }
    slices
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            ..EndpointConditions::default()
        }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        ..Endpoint::default()
    }
}

fn metadata(endpoints: &Endpoints, subset: usize, family: &str) -> ObjectMeta {
    let service = endpoints.metadata.name.clone().unwrap_or_default();
    ObjectMeta {
        // A name that nobody gives by hand, so that it does not hide a slice of the same stream.
        name: Some(format!(
            "{service}-endpoints-{subset}-{}",
            family.to_ascii_lowercase()
        )),
        namespace: endpoints.metadata.namespace.clone(),
        labels: Some(BTreeMap::from([(
            crds::SERVICE_NAME_LABEL.to_owned(),
            service,
        )])),
        ..ObjectMeta::default()
    }
}
