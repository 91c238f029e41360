//! docs/metrics.md says what is there. `make docs` writes it, this test compares.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    with_local_recorder,
};

/// What is said about a metric.
struct Described {
    kind: &'static str,
    unit: Option<Unit>,
    text: String,
}

/// Remembers what is described, by name.
#[derive(Default)]
struct Descriptions(Mutex<BTreeMap<String, Described>>);

impl Descriptions {
    fn add(&self, kind: &'static str, name: &KeyName, unit: Option<Unit>, text: &SharedString) {
        let text = text.to_string();
        let described = Described { kind, unit, text };
        let name_text = name.as_str().to_owned();
        let before = self.0.lock().unwrap().insert(name_text, described);
        assert!(before.is_none(), "{} is described twice", name.as_str());
    }
}

impl Recorder for Descriptions {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.add("counter", &name, unit, &text);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.add("gauge", &name, unit, &text);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.add("histogram", &name, unit, &text);
    }

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

fn metrics_page() -> String {
    let descriptions = Descriptions::default();
    with_local_recorder(&descriptions, || {
        gateway::describe_metrics();
        controller::telemetry::describe_metrics();
    });
    // Written without the recorder, which cannot take a series back.
    for (name, text) in [
        (
            controller::telemetry::CERTIFICATE_EXPIRY,
            "When a certificate that is served expires, in seconds since 1970, by certificate.",
        ),
        (
            controller::telemetry::CERTIFICATES,
            "How many certificates are served.",
        ),
    ] {
        descriptions.add("gauge", &name.into(), None, &text.into());
    }
    let mut page = String::from(
        "# Metrics\n\n\
         `GET /metrics` on the admin listener, in the Prometheus text format. Generated from the source by `make docs`.\n\n\
         | name | type | unit | what it says |\n| --- | --- | --- | --- |\n",
    );
    for (name, described) in descriptions.0.into_inner().unwrap() {
        let Described { kind, unit, text } = described;
        let unit = unit.map_or_else(String::new, |unit| unit.as_str().to_owned());
        writeln!(page, "| `{name}` | {kind} | {unit} | {text} |").unwrap();
    }
    page
}

#[test]
fn the_page_of_metrics_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let page = metrics_page();
    if std::env::var_os("LOCKGATE_WRITE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, page, "run `make docs`");
}
