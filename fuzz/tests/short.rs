//! Every target over its corpus, and over changes of it that are the same every time.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail"
)]

use std::path::Path;

use fuzz::{Mutator, TARGETS, Target};

/// The rows that are sent to all engines are where the fuzzing of raw bytes begins.
mod rows {
    #[allow(dead_code, reason = "only the bytes are of interest")]
    pub(crate) enum Want {
        Both(u16, &'static str),
        Each((u16, &'static str), (u16, &'static str), &'static str),
    }
    #[allow(unused_imports, reason = "rows that differ come and go")]
    use Want::{Both, Each};
    pub(crate) const REQUESTS: &[(&str, &str, Want)] =
        &include!("../../gateway/tests/proxy/raw_requests.in");
}

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let mut seeds: Vec<Vec<u8>> = files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect();
    if matches!(target.name, "http1" | "framing") {
        seeds.extend(rows::REQUESTS.iter().map(|(_, text, _)| {
            text.replace("{64k}", "a")
                .replace("{20k}", "a")
                .replace("{15k}", "a")
                .into_bytes()
        }));
    }
    seeds
}

fn run(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let seeds = corpus(target);
    let show = |bytes: &[u8]| {
        let result = std::panic::catch_unwind(|| (target.run)(bytes));
        assert!(
            result.is_ok(),
            "{name} fails with b\"{}\"",
            bytes.escape_ascii()
        );
    };
    for seed in &seeds {
        show(seed);
    }
    let mut mutator = Mutator::new(seeds);
    for _ in 0..target.short {
        show(&mutator.next_input());
    }
}

#[test]
fn manifests() {
    run("manifests");
}

#[test]
fn annotations() {
    run("annotations");
}

#[test]
fn users() {
    run("users");
}

#[test]
fn addresses() {
    run("addresses");
}

#[test]
fn cookies() {
    run("cookies");
}

#[test]
fn hosts() {
    run("hosts");
}

#[test]
fn paths() {
    run("paths");
}

#[test]
fn proxy_header() {
    run("proxy-header");
}

#[test]
fn client_hello() {
    run("client-hello");
}

#[test]
fn framing() {
    run("framing");
}

#[test]
fn http1() {
    run("http1");
}

#[test]
fn http2() {
    run("http2");
}

#[test]
fn http2_codec() {
    run("http2-codec");
}

#[test]
fn every_target_is_run() {
    let text = include_str!("short.rs");
    for target in TARGETS {
        assert!(
            text.contains(&format!("run(\"{}\");", target.name)),
            "{}",
            target.name
        );
    }
}
