//! Manifests in, model and problems out. One folder per behaviour; accept changes with `INSTA_UPDATE=always`.
//!
//! The settings are the same for every case, but that a setting which names an object is set where the case has it:
//! ConfigMaps `lockgate/settings`, `lockgate/tcp` and `lockgate/udp`, Secret `lockgate/default-certificate`, Service `lockgate/default-backend`. A ConfigMap
//! `lockgate/with-ssl-passthrough` switches that on. Lockgate runs on `node-1` in `zone-a`.

use std::fs;
use std::path::Path;

use model::{ClientTrust, Origin, RoutingModel, Timeouts, TlsPolicy};
use serde::Serialize;
use serde_json::{Value, json};
use translate::{
    Change, Locality, NamespacedName, Report, Settings, Translator, annotation, manifests,
};

/// What is compared: everything, in a form that a person can read through. See [`shortened`].
#[derive(Serialize)]
struct Output<'a> {
    manifests: Vec<String>,
    #[serde(flatten)]
    report: &'a Report,
    model: &'a RoutingModel,
}

/// Writes an origin, and a backend of weight 1, on one line and leaves out what is empty or has its default value.
fn shortened(value: Value, key: &str) -> Value {
    if let Value::Array(items) = value {
        return items.into_iter().map(|item| shortened(item, "")).collect();
    }
    let Value::Object(map) = value else {
        return value;
    };
    if key == "origin" {
        let origin: Origin = serde_json::from_value(Value::Object(map)).unwrap_or_default();
        return Value::String(origin.to_string());
    }
    if let (Some(backend), Some(1)) = (
        map.get("backend"),
        map.get("weight").and_then(Value::as_u64),
    ) {
        return backend.clone();
    }
    let defaults = [
        (
            "hsts",
            json!({"max_age": 31_536_000, "include_subdomains": true, "preload": false}),
        ),
        ("policy", json!(TlsPolicy::default())),
        ("timeouts", json!(Timeouts::default())),
        ("trust", json!(ClientTrust::default())),
    ];
    let value = Value::Object(map);
    if defaults.contains(&(key, value.clone())) {
        return Value::String("default".to_owned());
    }
    let Value::Object(map) = value else {
        return value;
    };
    map.into_iter()
        .map(|(key, value)| {
            let value = shortened(value, &key);
            (key, value)
        })
        .filter(|(key, value)| {
            let empty = match value {
                Value::Null => true,
                Value::String(text) => text == "default" && key != "hsts",
                Value::Array(items) => items.is_empty() && key != "routes" && key != "addresses",
                Value::Object(map) => map.is_empty(),
                Value::Number(number) => key == "body_limit" && number.as_u64() == Some(1 << 20),
                Value::Bool(_) => false,
            };
            !empty && key != "listeners"
        })
        .collect()
}

#[test]
fn golden() {
    insta::glob!("golden/*/in.yaml", |input| {
        let text = fs::read_to_string(input).expect("the case can be read");
        let parsed = manifests::parse(&text);
        let named = |kind: &str, name: &str| {
            let wanted = NamespacedName::new("lockgate", name);
            parsed
                .objects
                .iter()
                .any(|object| object.reference() == wanted.reference(kind))
                .then_some(wanted)
        };
        let settings = Settings {
            configmap: named("ConfigMap", "settings"),
            tcp_services: named("ConfigMap", "tcp"),
            udp_services: named("ConfigMap", "udp"),
            ssl_passthrough: named("ConfigMap", "with-ssl-passthrough").is_some(),
            own_ports: [8080, 8443, 10254].into(),
            locality: Locality {
                node: Some("node-1".into()),
                zone: Some("zone-a".into()),
            },
            default_certificate_secret: named("Secret", "default-certificate"),
            default_backend_service: named("Service", "default-backend"),
            ..Settings::default()
        };
        let problems = parsed.problems.iter().map(ToString::to_string).collect();
        let mut translator = Translator::new(settings);
        translator.apply(parsed.objects.into_iter().map(Change::Apply));
        let output = Output {
            manifests: problems,
            report: translator.report(),
            model: translator.model(),
        };
        let output = shortened(json!(output), "");
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(input.parent().expect("a case is a folder"));
        settings.set_prepend_module_to_snapshot(false);
        settings.remove_snapshot_suffix();
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_yaml_snapshot!("out", output));
    });
}

#[test]
fn every_annotation_stands_in_some_case() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cases = fs::read_dir(here.join("tests/golden")).expect("there are cases");
    let manifests = cases.map(|case| case.expect("it can be read").path().join("in.yaml"));
    let answered = fs::read_dir(here.join("../../e2e/cases")).expect("there are files");
    let answered = answered.map(|file| file.expect("it can be read").path());
    let all: String = manifests
        .chain(answered)
        .filter(|file| file.extension().is_some_and(|kind| kind == "yaml"))
        .map(|file| fs::read_to_string(file).expect("it can be read"))
        .collect();
    let missing: Vec<_> = annotation::all()
        .map(|annotation| annotation.name)
        .filter(|name| !all.contains(&format!("/{name}:")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
