//! One review: what the API server sends, and what it gets.

use crds::{GatewayPolicy, RoutePolicy};
use http::StatusCode;
use k8s_openapi::api::networking::v1::Ingress;
use kube::core::admission::{
    AdmissionRequest, AdmissionResponse, AdmissionReview, META_API_VERSION_V1, META_KIND, Operation,
};
use kube::core::dynamic::ParseDynamicObjectError;
use kube::core::{DynamicObject, GroupVersionKind};
use serde::de::DeserializeOwned;
use translate::Object;

use super::judge::Judgement;

/// Why there is no answer. The API server does then what the `failurePolicy` says.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("this is no AdmissionReview: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("{kind} of `{api_version}` is not read; AdmissionReview of `admission.k8s.io/v1` is")]
    Version { kind: String, api_version: String },
    #[error("the review asks for nothing: it has no `request`")]
    NoRequest,
    #[error("the review has no `object`")]
    NoObject,
    #[error("the object cannot be read: {0}")]
    Object(#[from] ParseDynamicObjectError),
    #[error("the first full sync is not there yet")]
    TooEarly,
    #[error("the control plane has ended")]
    Ended,
    #[error("too many reviews at once, or this one takes too long")]
    TooLate,
    #[error("the review failed: {0}")]
    Broken(#[from] tokio::task::JoinError),
}

impl Failure {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Unreadable(_) | Self::Version { .. } | Self::NoRequest => StatusCode::BAD_REQUEST,
            Self::NoObject | Self::Object(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooEarly | Self::Ended | Self::TooLate => StatusCode::SERVICE_UNAVAILABLE,
            Self::Broken(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// What is asked.
pub(super) struct Asked {
    /// The answer as long as nothing speaks against the object.
    pub(super) allowed: AdmissionResponse,
    /// The object, if it has to be looked at.
    pub(super) object: Option<Object>,
}

/// Reads a review.
pub(super) fn read(body: &[u8]) -> Result<Asked, Failure> {
    let review: AdmissionReview<DynamicObject> = serde_json::from_slice(body)?;
    let types = &review.types;
    if types.kind != META_KIND || types.api_version != META_API_VERSION_V1 {
        return Err(Failure::Version {
            kind: types.kind.clone(),
            api_version: types.api_version.clone(),
        });
    }
    let request: AdmissionRequest<DynamicObject> =
        review.try_into().map_err(|_| Failure::NoRequest)?;
    let allowed = AdmissionResponse::from(&request);
    let object = object(request)?;
    Ok(Asked { allowed, object })
}

/// The object that has to be looked at.
fn object(request: AdmissionRequest<DynamicObject>) -> Result<Option<Object>, Failure> {
    let AdmissionRequest {
        kind,
        sub_resource,
        namespace,
        operation,
        object,
        old_object,
        ..
    } = request;
    let read = match reader(&kind) {
        Some(read) if sub_resource.is_none_or(|name| name.is_empty()) => read,
        _ => return Ok(None),
    };
    let before = match operation {
        Operation::Create => None,
        Operation::Update => old_object,
        Operation::Delete | Operation::Connect => return Ok(None),
    };
    let mut object = object.ok_or(Failure::NoObject)?;
    // What is on its way out is only kept until those who wait for its end have taken note.
    let leaves = object.metadata.deletion_timestamp.is_some();
    if leaves || before.is_some_and(|before| asks_for_the_same(&before, &object)) {
        return Ok(None);
    }
    if object.metadata.namespace.is_none() {
        object.metadata.namespace = namespace.filter(|namespace| !namespace.is_empty());
    }
    read(object).map(Some)
}

/// Only such things differ as owners, finalizers and labels, which ask for nothing.
fn asks_for_the_same(before: &DynamicObject, after: &DynamicObject) -> bool {
    before.metadata.annotations == after.metadata.annotations
        && before.data.get("spec") == after.data.get("spec")
}

type Read = fn(DynamicObject) -> Result<Object, Failure>;

/// How objects of this kind are read, if they are.
fn reader(kind: &GroupVersionKind) -> Option<Read> {
    let GroupVersionKind {
        group,
        version,
        kind,
    } = kind;
    match (group.as_str(), version.as_str(), kind.as_str()) {
        ("networking.k8s.io", "v1", "Ingress") => Some(parse::<Ingress>),
        (crds::GROUP, "v1alpha1", "RoutePolicy") => Some(parse::<RoutePolicy>),
        (crds::GROUP, "v1alpha1", "GatewayPolicy") => Some(parse::<GatewayPolicy>),
        _ => None,
    }
}

fn parse<K>(object: DynamicObject) -> Result<Object, Failure>
where
    K: kube::Resource + DeserializeOwned + Into<Object>,
{
    Ok(object.try_parse::<K>()?.into())
}

/// The answer to a review.
pub(super) fn answer(allowed: AdmissionResponse, judgement: &Judgement) -> AdmissionResponse {
    let warnings = judgement.warnings();
    let mut response = match judgement.refusal() {
        Some(text) => {
            let mut refused = allowed.deny(text);
            refused.result.code = StatusCode::FORBIDDEN.as_u16();
            "Forbidden".clone_into(&mut refused.result.reason);
            refused
        }
        None => allowed,
    };
    response.warnings = (!warnings.is_empty()).then_some(warnings);
    response
}
