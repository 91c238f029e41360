//! `docs/limits.md` names flags, keys and metrics; they have to exist, and the defaults have to be these.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail"
)]

use std::path::{Path, PathBuf};

use clap::CommandFactory;
use controller::args::Cli;
use translate::annotation::Verdict;
use translate::setting;

/// A row of the table.
#[derive(Debug)]
struct Row {
    limit: String,
    default: String,
    said_by: Vec<String>,
    counted_in: Vec<String>,
    uncounted: bool,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What is quoted in a cell.
fn quoted(cell: &str) -> Vec<String> {
    let parts = cell.split('`').skip(1).step_by(2);
    parts.map(str::to_owned).collect()
}

fn rows() -> Vec<Row> {
    let page = read("docs/limits.md");
    let lines = page.lines().filter(|line| line.starts_with("| "));
    let rows = lines.filter(|line| !line.starts_with("| ---") && !line.starts_with("| limit |"));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [limit, default, said_by, _what, counted_in, _tests] = cells[..] else {
            panic!("a row has six cells: {line}");
        };
        Row {
            limit: limit.to_owned(),
            default: default.to_owned(),
            said_by: quoted(said_by),
            counted_in: quoted(counted_in),
            uncounted: counted_in.starts_with("not counted: "),
        }
    })
    .collect()
}

#[test]
fn every_limit_can_be_said_and_has_the_default_of_the_page() {
    let cli = Cli::command();
    let run = cli.find_subcommand("run").unwrap();
    let rows = rows();
    assert!(rows.len() >= 20, "only {} limits", rows.len());
    // What the ConfigMap says nothing about is in the gateway.
    let gateway = gateway::Limits::default();
    let seconds = |time: std::time::Duration| format!("{}s", time.as_secs());
    let of_keys = [
        ("client-header-timeout", seconds(gateway.header_timeout)),
        ("client-body-timeout", seconds(gateway.body_timeout)),
        ("keep-alive", seconds(gateway.idle_timeout)),
        (
            "keep-alive-requests",
            gateway.max_requests_per_connection.to_string(),
        ),
        (
            "http2-max-concurrent-streams",
            gateway.h2_max_streams.to_string(),
        ),
        (
            "large-client-header-buffers",
            format!("{}k", gateway.max_header_bytes / 1024),
        ),
        (
            "proxy-read-timeout",
            format!("{}s", model::Timeouts::default().read),
        ),
        ("proxy-body-size", "1m".to_owned()),
    ];
    for row in rows {
        let [said_by] = &row.said_by[..] else {
            panic!("one place to say it: {row:?}");
        };
        let default = if let Some(flag) = said_by.strip_prefix("--") {
            let mut flags = run.get_arguments();
            let flag = flags.find(|argument| argument.get_long() == Some(flag));
            let flag = flag.unwrap_or_else(|| panic!("no flag {said_by}"));
            let [default] = flag.get_default_values() else {
                panic!("{said_by} has no default");
            };
            default.to_str().unwrap().to_owned()
        } else {
            let key = setting::find(said_by).unwrap_or_else(|| panic!("no key {said_by}"));
            assert!(
                matches!(key.verdict, Verdict::Honoured | Verdict::Different(_)),
                "{said_by} is not honoured"
            );
            let known = of_keys.iter().find(|(key, _)| key == said_by);
            known.unwrap_or_else(|| panic!("{said_by}")).1.clone()
        };
        let twice = row.limit == "what is collected of one";
        let want = if twice { "128k" } else { &default };
        assert_eq!(want, row.default, "{}", row.limit);
    }
}

#[test]
fn every_limit_is_counted() {
    let metrics = read("docs/metrics.md");
    let mut sources = String::new();
    collect(&root().join("gateway/src"), &mut sources);
    for row in rows() {
        if row.uncounted {
            continue;
        }
        let [metric, reasons @ ..] = &row.counted_in[..] else {
            panic!("{row:?}");
        };
        assert!(
            metrics.contains(&format!("| `{metric}` | counter |")),
            "no counter {metric}"
        );
        for reason in reasons {
            assert!(
                sources.contains(&format!("\"{reason}\"")),
                "nobody counts {reason}"
            );
        }
    }
}

fn collect(folder: &Path, sources: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, sources);
        } else {
            sources.push_str(&std::fs::read_to_string(&path).unwrap_or_default());
        }
    }
}
