//! One document → objects.

use std::fmt::Write as _;

use crds::{GatewayPolicy, ReferenceGrant, RoutePolicy};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::node::{Kind, Node};
use super::{Sink, endpoints};
use crate::Object;
use crate::report::quoted;

/// The kinds that are read, and their API versions.
const KINDS: [(&str, &str); 10] = [
    ("Ingress", "networking.k8s.io/v1"),
    ("IngressClass", "networking.k8s.io/v1"),
    ("Service", "v1"),
    ("EndpointSlice", "discovery.k8s.io/v1"),
    ("Endpoints", "v1"),
    ("Secret", "v1"),
    ("ConfigMap", "v1"),
    ("RoutePolicy", "lockgate.dev/v1alpha1"),
    ("ReferenceGrant", "gateway.networking.k8s.io/v1beta1"),
    ("GatewayPolicy", "lockgate.dev/v1alpha1"),
];

/// Reads the objects of a document.
pub(super) fn read(node: &Node, sink: &mut Sink<'_>) {
    let Kind::Map(_) = node.kind else {
        sink.error(
            node.line,
            "it is not an object with apiVersion, kind and metadata".to_owned(),
        );
        return;
    };
    let kind = node.get("kind").and_then(Node::text);
    let version = node.get("apiVersion").and_then(Node::text);
    let Some(kind) = kind else {
        sink.error(node.line, "kind: it is missing or not a text".to_owned());
        return;
    };
    let items = node.get("items").map(|items| &items.kind);
    if let (Some(item_kind), Some(Kind::List(items))) = (kind.strip_suffix("List"), items) {
        for item in items {
            // `kubectl get -o yaml` writes the kind into each item; the API server's own lists leave it out.
            let kind = item.get("kind").and_then(Node::text).unwrap_or(item_kind);
            let version = item.get("apiVersion").and_then(Node::text).or(version);
            object(item, kind, version, sink);
        }
        return;
    }
    object(node, kind, version, sink);
}

fn object(node: &Node, kind: &str, version: Option<&str>, sink: &mut Sink<'_>) {
    let Some((_, served)) = KINDS.iter().find(|(name, _)| *name == kind) else {
        sink.warning(
            node.line,
            format!(
                "kind {} is not read; this object has no effect",
                quoted(kind)
            ),
        );
        return;
    };
    if version != Some(served) {
        sink.error(
            node.line,
            format!(
                "apiVersion: {kind} is read as {served}, not as {}; this object is left out",
                quoted(version.unwrap_or_default())
            ),
        );
        return;
    }
    match kind {
        "Ingress" => one::<Ingress>(node, kind, sink),
        "IngressClass" => one::<IngressClass>(node, kind, sink),
        "Service" => one::<Service>(node, kind, sink),
        "EndpointSlice" => one::<EndpointSlice>(node, kind, sink),
        "ConfigMap" => one::<ConfigMap>(node, kind, sink),
        "RoutePolicy" => one::<RoutePolicy>(node, kind, sink),
        "ReferenceGrant" => one::<ReferenceGrant>(node, kind, sink),
        "GatewayPolicy" => one::<GatewayPolicy>(node, kind, sink),
        "Secret" => {
            if let Some(mut secret) = typed::<Secret>(node, kind, sink) {
                let data = secret.data.get_or_insert_default();
                for (key, text) in secret.string_data.take().into_iter().flatten() {
                    data.insert(key, ByteString(text.into_bytes()));
                }
                sink.object(node.line, secret.into());
            }
        }
        _ => {
            if let Some(endpoints) = typed::<Endpoints>(node, kind, sink) {
                for slice in endpoints::slices(&endpoints) {
                    sink.object(node.line, slice.into());
                }
            }
        }
    }
}

/// What every kind has.
trait Named {
    fn metadata_mut(&mut self) -> &mut ObjectMeta;
}

macro_rules! named {
    ($($kind:ident),*) => {$(
        impl Named for $kind {
            fn metadata_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    )*};
}
named!(
    Ingress,
    IngressClass,
    Service,
    EndpointSlice,
    Endpoints,
    Secret,
    ConfigMap,
    RoutePolicy,
    ReferenceGrant,
    GatewayPolicy
);

fn one<T>(node: &Node, kind: &str, sink: &mut Sink<'_>)
where
    T: DeserializeOwned + Serialize + Named + Into<Object>,
{
    if let Some(object) = typed::<T>(node, kind, sink) {
        sink.object(node.line, object.into());
    }
}

fn typed<T>(node: &Node, kind: &str, sink: &mut Sink<'_>) -> Option<T>
where
    T: DeserializeOwned + Serialize + Named,
{
    let mut value = node.value();
    // The kind is known, and the type insists on it also where a list leaves it out.
    if let Value::Object(map) = &mut value {
        map.insert("kind".to_owned(), Value::String(kind.to_owned()));
    }
    let name = node
        .get("metadata")
        .and_then(|metadata| metadata.get("name"))
        .and_then(Node::text)
        .unwrap_or_default()
        .to_owned();
    let mut object: T = match serde_path_to_error::deserialize(value) {
        Ok(object) => object,
        Err(error) => {
            let path = error.path().to_string();
            let (at, line) = match path.as_str() {
                "." => (String::new(), node.line),
                path => (format!("{path}: "), line_of(node, error.path())),
            };
            // The text of a Secret must not get into a message.
            let reason = if kind == "Secret" {
                "it has the wrong type, or is not base64".to_owned()
            } else {
                error.into_inner().to_string()
            };
            sink.error(
                line,
                format!(
                    "{kind} {}: {at}{reason}; this object is left out",
                    quoted(&name)
                ),
            );
            return None;
        }
    };
    if let Ok(understood) = serde_json::to_value(&object) {
        let mut path = String::new();
        unknown_fields(node, &understood, &mut path, &mut |line, path| {
            sink.warning(
                line,
                format!(
                    "{kind} {}: {path}: there is no such field; it has no effect",
                    quoted(&name)
                ),
            );
        });
    }
    let metadata = object.metadata_mut();
    if metadata.name.as_deref().unwrap_or_default().is_empty() {
        sink.error(
            node.line,
            format!("{kind}: metadata.name: it is missing; this object is left out"),
        );
        return None;
    }
    if matches!(kind, "IngressClass" | "GatewayPolicy") {
        metadata.namespace = None;
    } else if metadata.namespace.as_deref().unwrap_or_default().is_empty() {
        metadata.namespace = Some("default".to_owned());
    }
    Some(object)
}

/// The line of the deepest node that the path leads to.
fn line_of(root: &Node, path: &serde_path_to_error::Path) -> usize {
    use serde_path_to_error::Segment;
    let mut node = root;
    for segment in path {
        let next = match (segment, &node.kind) {
            (Segment::Map { key }, Kind::Map(_)) => node.get(key),
            (Segment::Seq { index }, Kind::List(items)) => items.get(*index),
            _ => None,
        };
        match next {
            Some(next) => node = next,
            None => break,
        }
    }
    node.line
}

/// Reports the fields of `node` that did not come back when the typed object was written out again. Fields without a
/// value are nobody's concern.
fn unknown_fields(
    node: &Node,
    understood: &Value,
    path: &mut String,
    report: &mut impl FnMut(usize, &str),
) {
    let length = path.len();
    match (&node.kind, understood) {
        (Kind::Map(entries), Value::Object(known)) => {
            for (key, line, value) in entries {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
                match known.get(key) {
                    Some(understood) => unknown_fields(value, understood, path, report),
                    None if is_empty(value) || path == "apiVersion" || path == "kind" => {}
                    None => report(*line, path),
                }
                path.truncate(length);
            }
        }
        (Kind::List(items), Value::Array(known)) => {
            for (index, (item, understood)) in items.iter().zip(known).enumerate() {
                // Writing into a String cannot fail.
                let _ = write!(path, "[{index}]");
                unknown_fields(item, understood, path, report);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

fn is_empty(node: &Node) -> bool {
    match &node.kind {
        Kind::Null => true,
        Kind::Scalar(_) => false,
        Kind::List(items) => items.is_empty(),
        Kind::Map(entries) => entries.is_empty(),
    }
}
