//! The `lockgate.dev` API group: its kinds with their schemas, and the names of other groups that Lockgate reads.
//!
//! Types and constants only, no client and no behaviour.

mod condition;
mod gateway_policy;
mod reference_grant;
#[expect(
    unreachable_pub,
    clippy::duplicated_attributes,
    reason = "schemas with rules are derived from copies of the types; columns look alike"
)]
mod route_policy;

pub use condition::Condition;
pub use gateway_policy::{
    GatewayPolicy, GatewayPolicySpec, GatewayPolicyStatus, LimitPolicy, RiskLevel,
};
pub use reference_grant::{ReferenceFrom, ReferenceGrant, ReferenceGrantSpec, ReferenceTo};
pub use route_policy::{
    BasicAuthentication, CrossOrigin, DenyRule, HeaderCondition, HeaderEdits, HeaderField,
    PathCondition, PathRule, RateLimit, RedirectTo, RoutePolicy, RoutePolicySpec,
    RoutePolicyStatus, TargetRef, TimeoutSeconds,
};

/// API group of our own resources and prefix of our own annotations.
pub const GROUP: &str = "lockgate.dev";

/// The value of `IngressClass.spec.controller` that makes a class ours, unless the command line says otherwise.
pub const CONTROLLER_NAME: &str = "lockgate.dev/ingress-controller";

/// The class name that the legacy annotation [`CLASS_ANNOTATION`] has to carry, unless the command line says otherwise.
/// Also the name of the `IngressClass` that our own manifests install.
pub const DEFAULT_CLASS_NAME: &str = "lockgate";

/// Prefix of our own annotations.
pub const ANNOTATION_PREFIX: &str = "lockgate.dev/";

/// Prefix of the annotations of ingress-nginx, which are read with its semantics.
pub const NGINX_ANNOTATION_PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// The annotation of an Ingress that named its class before `spec.ingressClassName` existed.
pub const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// The annotation of an `IngressClass` that makes it the class of Ingresses without one (value `true`).
pub const DEFAULT_CLASS_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";

/// The label of an `EndpointSlice` that names its Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// The annotation (without prefix) of an Ingress that names its [`RoutePolicy`].
pub const ROUTE_POLICY_ANNOTATION: &str = "route-policy";
