//! Objects in few bytes.
//!
//! The types of the Kubernetes API have room for every field that an object may have, although nearly all of them are
//! empty: an EndpointSlice takes more than 300 bytes for each address, a Service 900 for one port. Objects are kept for as
//! long as they exist and read once per change, so they are kept as text, which has nothing for what is not there, and
//! which is compressed.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use lz4_flex::block;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Object;
use crate::object::kinds;

/// An object as it is kept. Clones share it; equal objects are equal in this form.
///
/// `Debug` prints its size only, so that a Secret never reaches a log.
pub struct Packed<T> {
    /// JSON, as a block of LZ4 with [`WORDS`] as its dictionary.
    block: Arc<[u8]>,
    object: PhantomData<fn() -> T>,
}

/// What objects consist of beside their names and numbers, in the order in which it is written: what stands in here takes
/// three bytes in a block, however long it is.
const WORDS: &[u8] = br#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"","namespace":""},"spec":{"clusterIP":"10.","ports":[{"name":"https","port":443,"protocol":"TCP","targetPort":8443},{"name":"http","port":80,"protocol":"TCP","targetPort":8080}],"type":"ClusterIP"},"status":{"loadBalancer":{}}}
{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"labels":{"kubernetes.io/service-name":""},"name":"","namespace":""},"addressType":"IPv4","endpoints":[{"addresses":["10."],"conditions":{"ready":true,"serving":true,"terminating":false},"hints":{"forZones":[{"name":""}]},"nodeName":"","targetRef":{"kind":"Pod","name":"","namespace":"","uid":""},"zone":""},{"addresses":["10.0."],"conditions":{"ready":true}},{"addresses":["10.0."],"conditions":{"ready":true}}],"ports":[{"name":"","port":8080,"protocol":"TCP"}]}
{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"annotations":{"cert-manager.io/cluster-issuer":"letsencrypt","nginx.ingress.kubernetes.io/force-ssl-redirect":"true","nginx.ingress.kubernetes.io/proxy-body-size":"nginx.ingress.kubernetes.io/proxy-read-timeout":"nginx.ingress.kubernetes.io/rewrite-target":"/$2"},"creationTimestamp":"2026-01-01T00:00:00Z","generation":1,"name":"","namespace":"","resourceVersion":"","uid":""},"spec":{"ingressClassName":"nginx","rules":[{"host":"www.example.com","http":{"paths":[{"backend":{"service":{"name":"","port":{"name":"http"}}},"path":"/","pathType":"ImplementationSpecific"},{"backend":{"service":{"name":"","port":{"number":80}}},"path":"/","pathType":"Exact"},{"backend":{"service":{"name":"","port":{"number":8080}}},"path":"/","pathType":"Prefix"}]}}],"tls":[{"hosts":["www.example.com"],"secretName":"-tls"}]},"status":{"loadBalancer":{"ingress":[{"hostname":"","ip":"10."}]}}}"#;

impl<T: Serialize + DeserializeOwned> Packed<T> {
    /// Takes in an object.
    pub fn new(object: &T) -> Self {
        // Every object came as JSON or YAML and has a form in JSON.
        let text = serde_json::to_vec(object).unwrap_or_default();
        let block = block::compress_prepend_size_with_dict(&text, WORDS);
        Self {
            block: block.into(),
            object: PhantomData,
        }
    }

    /// The object. Never `None` for one that came from an API server or from a manifest.
    pub fn unpack(&self) -> Option<T> {
        let object = self.read();
        debug_assert!(object.is_some(), "what was written can be read");
        object
    }

    /// The metadata alone. Never `None` where [`Self::unpack`] is not.
    pub fn metadata(&self) -> Option<ObjectMeta> {
        #[derive(Deserialize)]
        struct Head {
            metadata: ObjectMeta,
        }
        let head: Option<Head> = self.read();
        debug_assert!(head.is_some(), "every object has metadata");
        head.map(|head| head.metadata)
    }

    fn read<P: DeserializeOwned>(&self) -> Option<P> {
        let text = block::decompress_size_prepended_with_dict(&self.block, WORDS).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

impl<T> Clone for Packed<T> {
    fn clone(&self) -> Self {
        Self {
            block: Arc::clone(&self.block),
            object: PhantomData,
        }
    }
}

impl<T> PartialEq for Packed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.block == other.block
    }
}

impl<T> Eq for Packed<T> {}

impl<T> fmt::Debug for Packed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Packed({} bytes)", self.block.len())
    }
}

/// An object of any kind as it is kept, see [`Packed`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PackedObject {
    kind: &'static str,
    packed: Packed<serde_json::Value>,
}

impl PackedObject {
    /// Takes in an object.
    pub fn new(object: &Object) -> Self {
        let packed = match object {
            Object::Ingress(object) => erased(object),
            Object::IngressClass(object) => erased(object),
            Object::Service(object) => erased(object),
            Object::EndpointSlice(object) => erased(object),
            Object::Secret(object) => erased(object),
            Object::ConfigMap(object) => erased(object),
            Object::RoutePolicy(object) => erased(object),
            Object::ReferenceGrant(object) => erased(object),
            Object::GatewayPolicy(object) => erased(object),
        };
        Self {
            kind: object.kind(),
            packed,
        }
    }

    /// The object, see [`Packed::unpack`].
    pub fn unpack(&self) -> Option<Object> {
        Some(match self.kind {
            kinds::INGRESS => Object::Ingress(self.read()?),
            kinds::INGRESS_CLASS => Object::IngressClass(self.read()?),
            kinds::SERVICE => Object::Service(self.read()?),
            kinds::ENDPOINT_SLICE => Object::EndpointSlice(self.read()?),
            kinds::SECRET => Object::Secret(self.read()?),
            kinds::CONFIG_MAP => Object::ConfigMap(self.read()?),
            kinds::ROUTE_POLICY => Object::RoutePolicy(self.read()?),
            kinds::REFERENCE_GRANT => Object::ReferenceGrant(self.read()?),
            kinds::GATEWAY_POLICY => Object::GatewayPolicy(self.read()?),
            _ => return None,
        })
    }

    fn read<T: Serialize + DeserializeOwned>(&self) -> Option<Box<T>> {
        let packed = Packed::<Box<T>> {
            block: Arc::clone(&self.packed.block),
            object: PhantomData,
        };
        packed.unpack()
    }
}

fn erased<T: Serialize + DeserializeOwned>(object: &T) -> Packed<serde_json::Value> {
    Packed {
        block: Packed::new(object).block,
        object: PhantomData,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests;

    const OBJECTS: &str = r#"
{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: a, namespace: shop, uid: u, resourceVersion: "7", creationTimestamp: "2026-01-02T03:04:05Z", annotations: {nginx.ingress.kubernetes.io/rewrite-target: "/ä\"$1"}}, spec: {ingressClassName: c, defaultBackend: {resource: {kind: Bucket, name: b}}, tls: [{hosts: [a.test], secretName: t}, {}], rules: [{host: a.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: s, port: {name: http}}}}]}}, {}]}, status: {loadBalancer: {ingress: [{ip: 192.0.2.1, ports: [{port: 80, protocol: TCP}]}]}}}
---
{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: c}, spec: {controller: lockgate.dev/ingress-controller}}
---
{apiVersion: v1, kind: Service, metadata: {name: s, namespace: shop}, spec: {type: LoadBalancer, clusterIP: None, externalIPs: [192.0.2.7], ports: [{port: 80, targetPort: web}, {name: two, port: 81, targetPort: 8081, appProtocol: kubernetes.io/h2c}]}, status: {loadBalancer: {}}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: s-1, namespace: shop, labels: {kubernetes.io/service-name: s}}, addressType: IPv4, ports: [{}, {name: two, port: 8081}], endpoints: [{addresses: [10.0.0.1], conditions: {ready: false, serving: true, terminating: true}, zone: z, hints: {forZones: [{name: z}]}}, {addresses: []}]}
---
{apiVersion: v1, kind: Secret, metadata: {name: t, namespace: shop}, type: Opaque, data: {auth: aHVudGVyMg==, empty: ""}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: m, namespace: shop}, data: {proxy-read-timeout: "5", "": x}}
---
{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {name: g, namespace: shop}, spec: {from: [{group: networking.k8s.io, kind: Ingress, namespace: m}], to: [{group: "", kind: Secret}]}}
"#;

    #[test]
    fn an_object_comes_back_as_it_was() {
        let parsed = manifests::parse(OBJECTS);
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        assert_eq!(parsed.objects.len(), 7);
        for object in parsed.objects {
            let packed = PackedObject::new(&object);
            assert_eq!(packed, PackedObject::new(&object.clone()), "{object:?}");
            assert_eq!(packed.unpack().as_ref(), Some(&object));
            assert_eq!(packed.packed.metadata().as_ref(), Some(object.metadata()));
        }
    }

    #[test]
    fn an_object_takes_half_of_its_text_or_less() {
        let many = [kinds::INGRESS, kinds::SERVICE, kinds::ENDPOINT_SLICE];
        let mut objects = manifests::parse(OBJECTS).objects;
        objects.retain(|object| many.contains(&object.kind()));
        assert_eq!(objects.len(), many.len());
        for object in objects {
            let block = PackedObject::new(&object).packed.block;
            let text = block::decompress_size_prepended_with_dict(&block, WORDS).unwrap();
            let (block, text) = (block.len(), text.len());
            assert!(2 * block <= text, "{block} of {text} bytes: {object:?}");
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        let mut parsed = manifests::parse(OBJECTS);
        let secret = parsed.objects.remove(4);
        let text = format!("{:?}", PackedObject::new(&secret));
        assert!(text.contains("Secret") && text.contains("bytes"), "{text}");
        assert!(!text.contains("hunter2") && !text.contains("aHVudGVyMg"));
    }
}
