//! The objects of a growing cluster, the same for every controller.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use serde_json::{Value, json};

use crate::bulk::Kind;
use crate::pki::Authority;

/// Where Ingresses are.
pub(super) const INGRESSES: Kind = Kind {
    group: "apis/networking.k8s.io/v1",
    plural: "ingresses",
};
/// Where Secrets are.
pub(super) const SECRETS: Kind = Kind {
    group: "api/v1",
    plural: "secrets",
};
/// Where `EndpointSlices` are.
pub(super) const SLICES: Kind = Kind {
    group: "apis/discovery.k8s.io/v1",
    plural: "endpointslices",
};
const SERVICES: Kind = Kind {
    group: "api/v1",
    plural: "services",
};
/// Where namespaces are.
pub(super) const NAMESPACES: &str = "/api/v1/namespaces";

/// The class of all Ingresses.
pub(super) const CLASS: &str = "growth";
/// The Service of a namespace whose endpoint answers.
pub(super) const PROBE: &str = "probe";
/// The port of everything that is an endpoint.
const PORT: u16 = crate::origin::PORT;
/// The path of every Ingress that leads to it. Traefik prefers longer rules: this one has to be longer than that of `/`.
pub(super) const SERVED: &str = "/answered-by-probe";
/// Namespaces at most.
const MOST_NAMESPACES: usize = 1_000;
/// Endpoints of a Service.
pub(super) const ENDPOINTS: usize = 5;

/// An object and the path of the collection that it is created in.
pub(super) type Placed = (String, Value);

/// Makes the objects.
pub(super) struct Objects<'a> {
    /// Signs the certificates.
    pub(super) authority: &'a Authority,
    /// The endpoint that answers.
    pub(super) origin: IpAddr,
}

impl Objects<'_> {
    /// What there is more with `to` Ingresses than with `from`: namespaces, and what is in namespaces.
    pub(super) fn between(&self, from: usize, to: usize) -> Result<(Vec<Placed>, Vec<Placed>)> {
        let mut namespaces = Vec::new();
        let mut objects = Vec::new();
        for number in from..to {
            let namespace = namespace(number);
            let mut put = |kind: Kind, object| objects.push((kind.path(&namespace, ""), object));
            if number < MOST_NAMESPACES {
                let object = json!({"metadata": {"name": namespace}});
                namespaces.push((NAMESPACES.to_owned(), object));
                put(SERVICES, service(PROBE));
                put(SLICES, slice(PROBE, &[self.origin]));
            }
            let name = name(number);
            put(SERVICES, service(&name));
            put(SLICES, slice(&name, &addresses(number, 0)));
            put(INGRESSES, ingress(number));
            if has_certificate(number) {
                put(SECRETS, self.secret(number)?);
            }
        }
        Ok((namespaces, objects))
    }

    /// The Secret of an Ingress with a certificate that nobody has seen before.
    pub(super) fn secret(&self, number: usize) -> Result<Value> {
        let identity = self.authority.site(&[&host(number)])?;
        Ok(json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": name(number)},
            "stringData": {"tls.crt": identity.certificate, "tls.key": identity.key},
        }))
    }
}

/// Every second Ingress has TLS.
pub(super) fn has_certificate(number: usize) -> bool {
    number.is_multiple_of(2)
}

/// The host of an Ingress.
pub(super) fn host(number: usize) -> String {
    format!("app-{number}.growth.example.com")
}

/// What the probe answers behind an Ingress.
pub(super) fn probe_url(scheme: &str, number: usize) -> String {
    format!("{scheme}://{}{SERVED}", host(number))
}

/// The name of an Ingress and of all that belongs to it.
pub(super) fn name(number: usize) -> String {
    format!("app-{number}")
}

/// The namespace of an Ingress.
pub(super) fn namespace(number: usize) -> String {
    format!("team-{}", number % MOST_NAMESPACES)
}

/// The path of an Ingress that comes and goes.
pub(super) fn revision_path(revision: usize) -> String {
    format!("/revision/{revision}")
}

/// The paths of an Ingress, with one that belongs to a revision.
pub(super) fn paths(number: usize, revision: usize) -> Value {
    let path = |path: &str, kind: &str, service: &str| {
        json!({
            "path": path, "pathType": kind,
            "backend": {"service": {"name": service, "port": {"name": "http"}}},
        })
    };
    json!([
        path("/", "Prefix", &name(number)),
        path(SERVED, "Exact", PROBE),
        path(&revision_path(revision), "Exact", PROBE),
    ])
}

/// The endpoints of a Service in a revision.
pub(super) fn addresses(number: usize, revision: usize) -> Vec<IpAddr> {
    let first = number * ENDPOINTS;
    (first..first + ENDPOINTS)
        .map(|index| {
            let changes = index + 1 == first + ENDPOINTS;
            let revision = if changes { revision } else { 0 };
            let [.., upper, high, low] = index.to_be_bytes();
            let [.., revision] = revision.to_be_bytes();
            // Nobody is asked there: requests go to the probe.
            IpAddr::V4(Ipv4Addr::new(10, revision.wrapping_add(upper), high, low))
        })
        .collect()
}

/// What an `EndpointSlice` says about its endpoints.
pub(super) fn endpoints(addresses: &[IpAddr]) -> Value {
    let endpoint =
        |address: &IpAddr| json!({"addresses": [address], "conditions": {"ready": true}});
    addresses.iter().map(endpoint).collect()
}

fn ingress(number: usize) -> Value {
    let mut spec = json!({
        "ingressClassName": CLASS,
        "rules": [{"host": host(number), "http": {"paths": paths(number, 0)}}],
    });
    if has_certificate(number)
        && let Some(spec) = spec.as_object_mut()
    {
        let tls = json!([{"hosts": [host(number)], "secretName": name(number)}]);
        spec.insert("tls".to_owned(), tls);
    }
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {
            "name": name(number),
            "annotations": {"nginx.ingress.kubernetes.io/ssl-redirect": "false"},
        },
        "spec": spec,
    })
}

/// Headless, so that the API server has no addresses to give away.
fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"clusterIP": "None", "ports": [{"name": "http", "port": 80, "targetPort": PORT}]},
    })
}

fn slice(service: &str, addresses: &[IpAddr]) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": service,
            "labels": {"kubernetes.io/service-name": service, "service.kubernetes.io/headless": ""},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": PORT}],
        "endpoints": endpoints(addresses),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_services_share_an_endpoint() {
        let all: HashSet<IpAddr> = (0..3_000).flat_map(|number| addresses(number, 0)).collect();
        assert_eq!(all.len(), 3_000 * ENDPOINTS);
    }

    #[test]
    fn a_revision_changes_one_endpoint() {
        let (before, after) = (addresses(7, 0), addresses(7, 1));
        let changed = before
            .iter()
            .zip(&after)
            .filter(|(one, other)| one != other);
        assert_eq!(changed.count(), 1);
    }

    #[test]
    fn growing_in_steps_makes_the_same_objects() -> Result<()> {
        let authority = Authority::new("growth")?;
        let objects = Objects {
            authority: &authority,
            origin: IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let names = |from, to| -> Result<Vec<String>> {
            let (_, placed) = objects.between(from, to)?;
            let name = |(path, object): &Placed| format!("{path} {}", object["metadata"]["name"]);
            Ok(placed.iter().map(name).collect())
        };
        assert_eq!([names(0, 5)?, names(5, 9)?].concat(), names(0, 9)?);
        Ok(())
    }
}
