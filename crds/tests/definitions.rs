//! `config/crd` holds the definitions of the kinds. `make docs` writes them, this test compares.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail")]

use std::path::Path;

use crds::{GatewayPolicy, RoutePolicy};
use serde::Serialize;

fn up_to_date(file: &str, definition: &impl Serialize) {
    let text = format!(
        "# Generated from crds by `make docs`.\n{}",
        serde_saphyr::to_string(definition).unwrap()
    );
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/crd");
    let path = folder.join(file);
    if std::env::var_os("LOCKGATE_WRITE_DOCS").is_some() {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, text, "run `make docs`");
}

#[test]
fn the_definitions_are_up_to_date() {
    up_to_date("routepolicies.yaml", &RoutePolicy::definition());
    up_to_date("gatewaypolicies.yaml", &GatewayPolicy::definition());
}
