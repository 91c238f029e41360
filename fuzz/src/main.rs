//! One target under libFuzzer: `LOCKGATE_FUZZ_TARGET` names it.
#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<fuzz::Target> = LazyLock::new(|| {
    let name = std::env::var("LOCKGATE_FUZZ_TARGET").unwrap_or_default();
    let known = fuzz::TARGETS.iter().find(|target| target.name == name);
    let names: Vec<&str> = fuzz::TARGETS.iter().map(|target| target.name).collect();
    *known.unwrap_or_else(|| panic!("LOCKGATE_FUZZ_TARGET is one of {}", names.join(", ")))
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
