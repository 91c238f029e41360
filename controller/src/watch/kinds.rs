//! The kinds that are watched, how they are selected, and what is dropped before anything is kept.

use std::fmt::Debug;

use crds::{GatewayPolicy, ReferenceGrant, RoutePolicy};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceSpec, ServiceStatus};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::DeserializeOwned;
use translate::Object;

use crate::permissions::{Permission, Reach};

/// The type of Secret that holds a certificate and its key.
const TLS_SECRET: &str = "kubernetes.io/tls";

/// The type of Secret that holds anything; names and passwords among it.
const OPAQUE_SECRET: &str = "Opaque";

/// Which Secrets are watched. What Lockgate never reads, and what there is a lot of, does not come over the line; a
/// selector cannot name two types.
pub(crate) const WATCHED_SECRETS: &str = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token,type!=kubernetes.io/dockerconfigjson,type!=kubernetes.io/dockercfg,type!=kubernetes.io/ssh-auth,type!=kubernetes.io/basic-auth,type!=bootstrap.kubernetes.io/token";

/// The label of an EndpointSlice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A kind that is watched.
pub(crate) trait Kind:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static
{
    /// Its name in manifests.
    const NAME: &'static str;

    /// May the API server not know it at all?
    const OPTIONAL: bool = false;

    /// What follows where it may not be watched, and can be done without.
    const WITHOUT: &'static str = "";

    /// Drops what translation never reads.
    fn strip(&mut self);

    /// The object as translation takes it.
    fn object(self) -> Object;
}

impl Kind for Ingress {
    const NAME: &'static str = "Ingress";

    fn strip(&mut self) {
        strip_metadata(&mut self.metadata);
        self.metadata.labels = None;
    }

    fn object(self) -> Object {
        Object::Ingress(Box::new(self))
    }
}

impl Kind for IngressClass {
    const NAME: &'static str = "IngressClass";

    const WITHOUT: &'static str = "Ingresses are chosen by the annotation kubernetes.io/ingress.class alone; grant list and watch on ingressclasses to use spec.ingressClassName";

    fn strip(&mut self) {
        strip_metadata(&mut self.metadata);
        self.metadata.labels = None;
    }

    fn object(self) -> Object {
        Object::IngressClass(Box::new(self))
    }
}

impl Kind for Service {
    const NAME: &'static str = "Service";

    fn strip(&mut self) {
        strip_metadata(&mut self.metadata);
        strip_version(&mut self.metadata);
        self.metadata.labels = None;
        if let Some(spec) = self.spec.take() {
            self.spec = Some(ServiceSpec {
                cluster_ip: spec.cluster_ip,
                external_ips: spec.external_ips,
                external_name: spec.external_name,
                ports: spec.ports,
                publish_not_ready_addresses: spec.publish_not_ready_addresses,
                type_: spec.type_,
                ..ServiceSpec::default()
            });
        }
        if let Some(status) = self.status.take() {
            // The addresses that `--publish-service` copies.
            self.status = status.load_balancer.map(|load_balancer| ServiceStatus {
                load_balancer: Some(load_balancer),
                ..ServiceStatus::default()
            });
        }
    }

    fn object(self) -> Object {
        Object::Service(Box::new(self))
    }
}

impl Kind for EndpointSlice {
    const NAME: &'static str = "EndpointSlice";

    fn strip(&mut self) {
        strip_metadata(&mut self.metadata);
        strip_version(&mut self.metadata);
        self.metadata.annotations = None;
        if let Some(labels) = &mut self.metadata.labels {
            labels.retain(|name, _| name == SERVICE_NAME);
        }
        for endpoint in &mut self.endpoints {
            let Endpoint {
                addresses,
                conditions,
                hints,
                ..
            } = std::mem::take(endpoint);
            *endpoint = Endpoint {
                addresses,
                conditions,
                hints,
                ..Endpoint::default()
            };
        }
    }

    fn object(self) -> Object {
        Object::EndpointSlice(Box::new(self))
    }
}

impl Kind for Secret {
    const NAME: &'static str = "Secret";

    fn strip(&mut self) {
        strip_metadata(&mut self.metadata);
        self.metadata.labels = None;
        // Annotations of Secrets repeat their content, as `kubectl apply` does, or say who made them.
        self.metadata.annotations = None;
        self.string_data = None;
        let kind = self.type_.as_deref();
        if let Some(data) = &mut self.data {
            if kind == Some(TLS_SECRET) {
                data.retain(|key, _| {
                    matches!(key.as_str(), "tls.crt" | "tls.key" | "ca.crt" | "ca.crl")
                });
            } else if kind == Some(OPAQUE_SECRET) {
                // Names and passwords. A certificate has to be in a Secret of its own type.
                for key in ["tls.crt", "tls.key"] {
                    if let Some(value) = data.get_mut(key) {
                        *value = ByteString::default();
                    }
                }
            } else {
                // Only the names of the keys are kept, for messages.
                for value in data.values_mut() {
                    *value = ByteString::default();
                }
            }
        }
    }

    fn object(self) -> Object {
        Object::Secret(Box::new(self))
    }
}

impl Kind for ConfigMap {
    const NAME: &'static str = "ConfigMap";

    fn strip(&mut self) {
        strip_metadata(&mut self.metadata);
        self.metadata.labels = None;
        self.binary_data = None;
    }

    fn object(self) -> Object {
        Object::ConfigMap(Box::new(self))
    }
}

impl Kind for GatewayPolicy {
    const NAME: &'static str = "GatewayPolicy";

    // Its definition is installed by itself.
    const OPTIONAL: bool = true;

    const WITHOUT: &'static str = "No policy holds for the namespaces that are watched; grant list and watch on gatewaypolicies.lockgate.dev to let them hold";

    fn strip(&mut self) {
        strip_metadata(&mut self.metadata);
        self.metadata.labels = None;
        self.metadata.annotations = None;
    }

    fn object(self) -> Object {
        Object::GatewayPolicy(Box::new(self))
    }
}

impl Kind for RoutePolicy {
    const NAME: &'static str = "RoutePolicy";

    // Its definition is installed by itself, and goes without it as before.
    const OPTIONAL: bool = true;

    fn strip(&mut self) {
        strip_metadata(&mut self.metadata);
        self.metadata.labels = None;
        self.metadata.annotations = None;
    }

    fn object(self) -> Object {
        Object::RoutePolicy(Box::new(self))
    }
}

impl Kind for ReferenceGrant {
    const NAME: &'static str = "ReferenceGrant";

    // It comes with the Gateway API, which few clusters of Ingresses have.
    const OPTIONAL: bool = true;

    fn strip(&mut self) {
        strip_metadata(&mut self.metadata);
        self.metadata.labels = None;
        self.metadata.annotations = None;
    }

    fn object(self) -> Object {
        Object::ReferenceGrant(Box::new(self))
    }
}

/// What no kind needs: who wrote which field, and copies of the whole object.
fn strip_metadata(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    metadata.owner_references = None;
    metadata.finalizers = None;
    metadata.generate_name = None;
    metadata.self_link = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        if annotations.is_empty() {
            metadata.annotations = None;
        }
    }
}

/// What kinds do not need whose objects are never written, nor asked for their age.
fn strip_version(metadata: &mut ObjectMeta) {
    metadata.resource_version = None;
    metadata.creation_timestamp = None;
    metadata.generation = None;
}

/// What watching these kinds asks the API server for.
pub(crate) fn permissions() -> Vec<Permission> {
    fn watched<K: Kind + k8s_openapi::Resource>(
        verbs: &'static [&'static str],
        reach: Reach,
    ) -> Permission {
        Permission {
            group: K::GROUP,
            resource: K::URL_PATH_SEGMENT,
            verbs,
            reach,
        }
    }
    const WATCH: &[&str] = &["list", "watch"];
    const WATCH_AND_GET: &[&str] = &["get", "list", "watch"];
    vec![
        watched::<Ingress>(WATCH, Reach::Watched),
        watched::<IngressClass>(WATCH, Reach::Watched),
        watched::<Service>(WATCH, Reach::Watched),
        watched::<EndpointSlice>(WATCH, Reach::Watched),
        // A Secret that becomes wanted is read by name.
        watched::<Secret>(WATCH_AND_GET, Reach::Watched),
        watched::<ConfigMap>(WATCH, Reach::OwnNamespace),
        Permission {
            group: crds::GROUP,
            resource: "gatewaypolicies",
            verbs: WATCH,
            reach: Reach::Watched,
        },
        Permission {
            group: crds::GROUP,
            resource: "routepolicies",
            verbs: WATCH,
            reach: Reach::Watched,
        },
        Permission {
            group: "gateway.networking.k8s.io",
            resource: "referencegrants",
            verbs: WATCH,
            reach: Reach::Watched,
        },
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stripped<K: Kind + serde::Serialize>(value: serde_json::Value) -> serde_json::Value {
        let mut object: K = serde_json::from_value(value).unwrap();
        object.strip();
        serde_json::to_value(object).unwrap()
    }

    #[test]
    fn only_what_translation_reads_is_kept() {
        let noise = json!({
            "name": "shop", "namespace": "web", "uid": "u1", "resourceVersion": "7",
            "managedFields": [{"manager": "kubectl"}],
            "labels": {"app": "shop", "kubernetes.io/service-name": "shop"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u2"}],
            "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
                "nginx.ingress.kubernetes.io/ssl-redirect": "false",
            },
        });
        let kept = json!({
            "name": "shop", "namespace": "web", "uid": "u1", "resourceVersion": "7",
            "annotations": {"nginx.ingress.kubernetes.io/ssl-redirect": "false"},
        });

        let ingress = stripped::<Ingress>(json!({
            "metadata": noise, "spec": {"ingressClassName": "lockgate"},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
        }));
        assert_eq!(ingress["metadata"], kept);
        assert_eq!(ingress["spec"], json!({"ingressClassName": "lockgate"}));
        assert_eq!(
            ingress["status"]["loadBalancer"]["ingress"][0]["ip"],
            "192.0.2.1"
        );

        let service = stripped::<Service>(json!({
            "metadata": noise,
            "spec": {
                "type": "LoadBalancer", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
                "externalIPs": ["192.0.2.7"], "selector": {"app": "shop"},
                "ports": [{"name": "http", "port": 80}], "sessionAffinity": "None",
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}, "conditions": []},
        }));
        assert_eq!(
            service["spec"],
            json!({
                "type": "LoadBalancer", "clusterIP": "10.96.0.9", "externalIPs": ["192.0.2.7"],
                "ports": [{"name": "http", "port": 80}],
            })
        );
        let mut unversioned = kept;
        unversioned
            .as_object_mut()
            .unwrap()
            .remove("resourceVersion");
        assert_eq!(service["metadata"], unversioned);
        assert_eq!(
            service["status"],
            json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}})
        );

        let slice = stripped::<EndpointSlice>(json!({
            "metadata": noise, "addressType": "IPv4",
            "endpoints": [{
                "addresses": ["10.0.0.1"], "conditions": {"ready": true}, "nodeName": "n",
                "zone": "z", "targetRef": {"kind": "Pod", "name": "p"},
                "hints": {"forNodes": [{"name": "n"}], "forZones": [{"name": "z"}]},
            }],
            "ports": [{"name": "http", "port": 8080}],
        }));
        assert_eq!(
            slice["metadata"]["labels"],
            json!({"kubernetes.io/service-name": "shop"})
        );
        assert_eq!(
            slice["endpoints"],
            json!([{
                "addresses": ["10.0.0.1"], "conditions": {"ready": true},
                "hints": {"forNodes": [{"name": "n"}], "forZones": [{"name": "z"}]},
            }])
        );
    }

    #[test]
    fn of_a_secret_only_what_is_read_is_kept() {
        let tls = stripped::<Secret>(json!({
            "metadata": {"name": "s", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "key"}},
            "type": "kubernetes.io/tls",
            "data": {
                "tls.crt": "Y2VydA==", "tls.key": "a2V5", "ca.crt": "Y2E=", "ca.crl": "Y3Js",
                "keystore.jks": "a2V5",
            },
        }));
        assert_eq!(
            tls["data"],
            json!({
                "tls.crt": "Y2VydA==", "tls.key": "a2V5", "ca.crt": "Y2E=", "ca.crl": "Y3Js",
            })
        );
        assert_eq!(tls["metadata"], json!({"name": "s"}));

        let opaque = stripped::<Secret>(json!({
            "metadata": {"name": "s"}, "type": "Opaque",
            "data": {"auth": "YTpi", "tls.key": "a2V5", "ca.crt": "Y2E=", "ca.crl": "Y3Js"},
        }));
        assert_eq!(
            opaque["data"],
            json!({"auth": "YTpi", "tls.key": "", "ca.crt": "Y2E=", "ca.crl": "Y3Js"})
        );

        let other = stripped::<Secret>(json!({
            "metadata": {"name": "s"}, "type": "example.com/other", "data": {"password": "aHVudGVyMg=="},
        }));
        assert_eq!(
            other["data"],
            json!({"password": ""}),
            "only the names of the keys"
        );
    }
}
