//! What reads objects of Kubernetes.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use model::{Action, Filter};
use serde_json::json;
use table::Networks;
use translate::{Change, Settings, Translator, manifests as yaml};

/// From objects to the table that serves.
fn translate(text: &str) -> Translator {
    let parsed = yaml::parse(text);
    let mut translator = Translator::new(Settings::default());
    translator.apply(parsed.objects.into_iter().map(Change::Apply));
    let compiled = table::compile(translator.model());
    for (_, problem) in translator.report().problems() {
        assert!(!problem.message.is_empty());
    }
    drop(compiled);
    translator
}

/// Any manifests.
pub(crate) fn manifests(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        drop(translate(text));
    }
}

const WEB: &str = "
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {ports: [{port: 80}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}, addressType: IPv4, ports: [{port: 8080}], endpoints: [{addresses: [10.0.0.1]}]}
";

/// An Ingress with these annotations. Every JSON is YAML.
fn ingress(annotations: &serde_json::Value) -> String {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": { "name": "shop", "namespace": "shop", "annotations": annotations },
        "spec": {
            "ingressClassName": "lockgate",
            "rules": [{
                "host": "shop.test",
                "http": { "paths": [{
                    "path": "/a",
                    "pathType": "Prefix",
                    "backend": { "service": { "name": "web", "port": { "number": 80 } } },
                }] },
            }],
        },
    })
    .to_string()
}

const CLASS: &str = "
---
{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: lockgate}, spec: {controller: lockgate.dev/ingress-controller}}
";

/// Annotations: a name, a line end, a value; null bytes between them.
pub(crate) fn annotations(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let mut annotations = serde_json::Map::new();
    for entry in text.split('\0').take(8) {
        let (name, value) = entry.split_once('\n').unwrap_or((entry, ""));
        let name = format!("nginx.ingress.kubernetes.io/{name}");
        annotations.insert(name, value.into());
    }
    drop(translate(&format!(
        "{}{WEB}{CLASS}",
        ingress(&annotations.into())
    )));
}

/// Files with users and hashes of their passwords.
pub(crate) fn users(bytes: &[u8]) {
    let annotations = json!({
        "nginx.ingress.kubernetes.io/auth-type": "basic",
        "nginx.ingress.kubernetes.io/auth-secret": "users",
    });
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": "users", "namespace": "shop" },
        "data": { "auth": STANDARD.encode(bytes) },
    });
    drop(translate(&format!(
        "{}\n---\n{secret}{WEB}{CLASS}",
        ingress(&annotations)
    )));
}

/// Lists of addresses that may pass, or may not.
pub(crate) fn addresses(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    for name in ["whitelist-source-range", "denylist-source-range"] {
        let mut annotations = serde_json::Map::new();
        let annotation = format!("nginx.ingress.kubernetes.io/{name}");
        annotations.insert(annotation, text.into());
        let translator = translate(&format!("{}{WEB}{CLASS}", ingress(&annotations.into())));
        let hosts = translator.model().hosts.values();
        for route in hosts.flat_map(|host| &host.routes) {
            let access = route.filters.iter().find_map(|filter| match filter {
                Filter::Access(access) => Some(access),
                _ => None,
            });
            let Some(access) = access else {
                let open = matches!(route.action, Action::Forward(_));
                assert!(!open || text.trim().is_empty(), "{name}: everybody passes");
                continue;
            };
            let listed = access.allow.as_ref().unwrap_or(&access.deny);
            assert!(!listed.is_empty());
            let set = Networks::new(listed);
            for address in listed
                .iter()
                .flat_map(|net| [net.network(), net.broadcast()])
            {
                assert!(set.contains(address), "{address} is listed");
                // What is held in ranges is what is said one by one.
                for other in around(address) {
                    let one_by_one = listed.iter().any(|net| is_of(net, other));
                    assert_eq!(set.contains(other), one_by_one, "{other}");
                }
            }
        }
    }
}

/// Is this address in this network? One of IPv4 may be written as one of IPv6.
fn is_of(net: &IpNet, address: IpAddr) -> bool {
    match (net, address) {
        (IpNet::V6(v6), IpAddr::V4(v4)) => {
            v6.prefix_len() >= 96 && v6.contains(&v4.to_ipv6_mapped())
        }
        (net, address) => net.contains(&address),
    }
}

/// The addresses before and after this one, where those of IPv4 are not written as IPv6.
fn around(address: IpAddr) -> impl Iterator<Item = IpAddr> {
    let near: [Option<IpAddr>; 2] = match address {
        IpAddr::V4(v4) => [v4.to_bits().checked_sub(1), v4.to_bits().checked_add(1)]
            .map(|bits| bits.map(|bits| IpAddr::V4(bits.into()))),
        IpAddr::V6(v6) => [v6.to_bits().checked_sub(1), v6.to_bits().checked_add(1)]
            .map(|bits| bits.map(|bits| IpAddr::V6(bits.into()))),
    };
    near.into_iter()
        .flatten()
        .filter(|address| address.to_canonical() == *address)
}
