//! The objects that translation understands, and changes to them.

use std::fmt;

use crds::{GatewayPolicy, ReferenceGrant, RoutePolicy};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use model::ObjectRef;

use crate::NamespacedName;

/// Kind names as they stand in an [`ObjectRef`].
pub mod kinds {
    /// `networking.k8s.io/v1`
    pub const INGRESS: &str = "Ingress";
    /// `networking.k8s.io/v1`
    pub const INGRESS_CLASS: &str = "IngressClass";
    /// `v1`
    pub const SERVICE: &str = "Service";
    /// `discovery.k8s.io/v1`
    pub const ENDPOINT_SLICE: &str = "EndpointSlice";
    /// `v1`
    pub const SECRET: &str = "Secret";
    /// `v1`
    pub const CONFIG_MAP: &str = "ConfigMap";
    /// `lockgate.dev/v1alpha1`
    pub const ROUTE_POLICY: &str = "RoutePolicy";
    /// `gateway.networking.k8s.io/v1beta1`
    pub const REFERENCE_GRANT: &str = "ReferenceGrant";
    /// `lockgate.dev/v1alpha1`
    pub const GATEWAY_POLICY: &str = "GatewayPolicy";
}

/// An object of one of the kinds that translation understands.
///
/// `Debug` prints the name only, so that a Secret never reaches a log.
#[derive(Clone, PartialEq)]
pub enum Object {
    /// Routes.
    Ingress(Box<Ingress>),
    /// Whose routes.
    IngressClass(Box<IngressClass>),
    /// Ports and types of backends.
    Service(Box<Service>),
    /// Addresses of backends.
    EndpointSlice(Box<EndpointSlice>),
    /// Certificates.
    Secret(Box<Secret>),
    /// Global settings.
    ConfigMap(Box<ConfigMap>),
    /// What routes do beyond what an Ingress can say.
    RoutePolicy(Box<RoutePolicy>),
    /// Who may name objects of another namespace.
    ReferenceGrant(Box<ReferenceGrant>),
    /// What namespaces may ask for.
    GatewayPolicy(Box<GatewayPolicy>),
}

impl Object {
    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Ingress(object) => &object.metadata,
            Self::IngressClass(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
            Self::EndpointSlice(object) => &object.metadata,
            Self::Secret(object) => &object.metadata,
            Self::ConfigMap(object) => &object.metadata,
            Self::RoutePolicy(object) => &object.metadata,
            Self::ReferenceGrant(object) => &object.metadata,
            Self::GatewayPolicy(object) => &object.metadata,
        }
    }

    /// Its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Ingress(_) => kinds::INGRESS,
            Self::IngressClass(_) => kinds::INGRESS_CLASS,
            Self::Service(_) => kinds::SERVICE,
            Self::EndpointSlice(_) => kinds::ENDPOINT_SLICE,
            Self::Secret(_) => kinds::SECRET,
            Self::ConfigMap(_) => kinds::CONFIG_MAP,
            Self::RoutePolicy(_) => kinds::ROUTE_POLICY,
            Self::ReferenceGrant(_) => kinds::REFERENCE_GRANT,
            Self::GatewayPolicy(_) => kinds::GATEWAY_POLICY,
        }
    }

    /// Which object it is.
    pub fn reference(&self) -> ObjectRef {
        let metadata = self.metadata();
        ObjectRef::new(
            self.kind(),
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default(),
        )
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({})", self.reference())
    }
}

macro_rules! from_kind {
    ($($kind:ident),*) => {$(
        impl From<$kind> for Object {
            fn from(object: $kind) -> Self {
                Self::$kind(Box::new(object))
            }
        }
    )*};
}
from_kind!(
    Ingress,
    IngressClass,
    Service,
    EndpointSlice,
    Secret,
    ConfigMap,
    RoutePolicy,
    ReferenceGrant,
    GatewayPolicy
);

/// Something happened to an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It is there, in this form.
    Apply(Object),
    /// It is gone.
    Delete(ObjectRef),
}

pub(crate) fn name_of(metadata: &ObjectMeta) -> NamespacedName {
    NamespacedName::new(
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        let secret = Secret {
            data: Some(BTreeMap::from([(
                "tls.key".to_owned(),
                ByteString(b"hunter2".to_vec()),
            )])),
            ..Secret::default()
        };
        let text = format!("{:?}", Change::Apply(secret.into()));
        assert_eq!(text, "Apply(Object(Secret ))");
    }
}
