//! What a user sees of an object: the addresses of an Ingress, the Events about it.

use anyhow::Result;
use serde_json::Value;

use crate::kubectl::Kubectl;

/// An Event, as far as a test looks at it.
#[derive(Clone, Debug)]
pub struct Event {
    /// `Normal` or `Warning`.
    pub kind: String,
    /// In CamelCase.
    pub reason: String,
    /// For people.
    pub message: String,
    /// How often it was told.
    pub count: u64,
}

/// The addresses in the status of an Ingress or of a Service.
pub async fn addresses(kubectl: &Kubectl, namespace: &str, object: &str) -> Result<Vec<String>> {
    let object = kubectl
        .json(&["--namespace", namespace, "get", object])
        .await?;
    let list = object
        .pointer("/status/loadBalancer/ingress")
        .and_then(Value::as_array);
    let address = |entry: &Value| {
        let field = entry.get("ip").or_else(|| entry.get("hostname"));
        field.and_then(Value::as_str).map(str::to_owned)
    };
    Ok(list.into_iter().flatten().filter_map(address).collect())
}

/// The Events about an object.
pub async fn events(
    kubectl: &Kubectl,
    namespace: &str,
    kind: &str,
    name: &str,
) -> Result<Vec<Event>> {
    let selector = format!("involvedObject.kind={kind},involvedObject.name={name}");
    let arguments = [
        "--namespace",
        namespace,
        "get",
        "events",
        "--field-selector",
        &selector,
    ];
    let list = kubectl.json(&arguments).await?;
    let text = |event: &Value, field: &str| {
        event
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let items = list
        .get("items")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    Ok(items
        .map(|event| Event {
            kind: text(event, "type"),
            reason: text(event, "reason"),
            message: text(event, "message"),
            count: event
                .pointer("/series/count")
                .and_then(Value::as_u64)
                .unwrap_or(1),
        })
        .collect())
}
