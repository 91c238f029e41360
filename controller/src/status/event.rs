//! Events: what `kubectl describe` shows the owner of an object.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::ObjectMeta;
use model::ObjectRef;
use serde_json::{Value, json};

use super::plan::Note;

/// Who reports.
#[derive(Clone, Debug)]
pub(crate) struct Reporter {
    /// The controller, as a qualified name.
    pub(crate) controller: String,
    /// This process.
    pub(crate) instance: String,
}

/// Events about objects without a namespace are kept in this one.
const CLUSTER_EVENTS: &str = "default";

/// The namespace of Events about an object.
pub(crate) fn namespace(object: &ObjectRef) -> &str {
    if object.namespace.is_empty() {
        CLUSTER_EVENTS
    } else {
        &object.namespace
    }
}

/// The Event for a note. Its name follows from what it says, so that the same problem is the same Event also after
/// another replica has become the leader.
pub(crate) fn event(
    reporter: &Reporter,
    object: &ObjectRef,
    uid: Option<&str>,
    note: &Note,
    now: Timestamp,
) -> Event {
    let ObjectRef {
        kind,
        namespace: of,
        name,
    } = object;
    Event {
        metadata: ObjectMeta {
            name: Some(name_of(object, uid, note)),
            namespace: Some(namespace(object).to_owned()),
            ..ObjectMeta::default()
        },
        action: Some("Configure".to_owned()),
        event_time: Some(MicroTime(now)),
        note: Some(note.message.clone()),
        reason: Some(note.reason.to_owned()),
        regarding: Some(ObjectReference {
            api_version: api_version(kind).map(str::to_owned),
            kind: Some(kind.to_string()),
            name: Some(name.to_string()),
            namespace: Some(of.to_string()).filter(|of| !of.is_empty()),
            uid: uid.map(str::to_owned),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(reporter.controller.clone()),
        // The API server takes 128 bytes; names of pods and hosts are ASCII.
        reporting_instance: Some(reporter.instance.chars().take(128).collect()),
        type_: Some("Warning".to_owned()),
        ..Event::default()
    }
}

/// The patch that says that an Event has happened again.
pub(crate) fn series_patch(count: i32, now: Timestamp) -> Value {
    // A series begins with the second time.
    json!({"series": {"count": count.max(2), "lastObservedTime": MicroTime(now)}})
}

/// The name of the Event for a note.
pub(crate) fn name_of(object: &ObjectRef, uid: Option<&str>, note: &Note) -> String {
    let parts = [
        &*object.kind,
        &object.namespace,
        &object.name,
        uid.unwrap_or_default(),
        note.reason,
        &note.message,
    ];
    // FNV-1a: must not differ between versions of the standard library, and guards nothing.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in parts.iter().flat_map(|part| part.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    // 253 bytes are allowed, and a name may not end in the middle with a dot or dash.
    let base: String = object.name.chars().take(230).collect();
    let base = base.trim_end_matches(['.', '-']);
    format!("{base}.{hash:016x}")
}

fn api_version(kind: &str) -> Option<&'static str> {
    match kind {
        "Ingress" | "IngressClass" => Some("networking.k8s.io/v1"),
        "EndpointSlice" => Some("discovery.k8s.io/v1"),
        "Service" | "Secret" | "ConfigMap" => Some("v1"),
        "GatewayPolicy" | "RoutePolicy" => Some("lockgate.dev/v1alpha1"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(message: &str) -> Note {
        Note {
            reason: "InvalidHost",
            message: message.to_owned(),
        }
    }

    #[test]
    fn an_event_is_what_the_api_server_takes() {
        let reporter = Reporter {
            controller: "lockgate.dev/ingress-controller".to_owned(),
            instance: "lockgate-0".to_owned(),
        };
        let object = ObjectRef::new("Ingress", "shop", "web");
        let event = event(
            &reporter,
            &object,
            Some("u1"),
            &note("spec.rules[0].host: `x_y` is not a host name"),
            "2026-01-02T03:04:05Z".parse().unwrap(),
        );
        assert_eq!(
            serde_json::to_value(event).unwrap(),
            json!({
                "apiVersion": "events.k8s.io/v1",
                "kind": "Event",
                "metadata": {"name": "web.5e6892bd26da2566", "namespace": "shop"},
                "action": "Configure",
                "eventTime": "2026-01-02T03:04:05.000000Z",
                "note": "spec.rules[0].host: `x_y` is not a host name",
                "reason": "InvalidHost",
                "regarding": {
                    "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
                    "namespace": "shop", "name": "web", "uid": "u1",
                },
                "reportingController": "lockgate.dev/ingress-controller",
                "reportingInstance": "lockgate-0",
                "type": "Warning",
            })
        );
    }

    #[test]
    fn what_is_said_names_the_event() {
        let object = ObjectRef::new("Ingress", "shop", "web");
        let name = |uid, text| name_of(&object, uid, &note(text));
        assert_eq!(name(Some("u"), "a"), name(Some("u"), "a"));
        assert_ne!(name(Some("u"), "a"), name(Some("u"), "b"));
        assert_ne!(
            name(Some("u"), "a"),
            name(Some("v"), "a"),
            "an object made anew"
        );
        let long = ObjectRef::new(
            "Ingress",
            "shop",
            &format!("{}-{}", "a".repeat(229), "b".repeat(20)),
        );
        let name = name_of(&long, None, &note("a"));
        assert!(name.len() <= 253 && name.starts_with(&format!("{}.", "a".repeat(229))));
    }

    #[test]
    fn a_series_begins_with_the_second_time() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        assert_eq!(
            series_patch(1, now),
            json!({"series": {"count": 2, "lastObservedTime": "2026-01-02T03:04:05.000000Z"}})
        );
        assert_eq!(series_patch(3, now)["series"]["count"], 3);
    }
}
