//! h2spec, the public conformance suite for HTTP/2, on the ports with and without TLS: docs/h2spec.md.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use http_body_util::BodyExt;
use model::TlsPolicy;

use crate::answers::add_tls;
use crate::support::{Site, backend, full, to};

/// The release that `.ci/setup h2spec` builds.
const VERSION: &str = "2.2.1";

/// Cases that fail on the port without TLS, and because of what. With TLS none does.
const KNOWN: &[(&str, &str)] = &[(
    "Sends invalid connection preface",
    "The port serves HTTP/1.1 as well: who does not begin with the preface of HTTP/2 gets a 400 of HTTP/1.1 (RFC 9112, 2.2) \
     and the end of the connection. The suite takes the text for half a frame. With TLS, where HTTP/2 has been negotiated, the case passes.",
)];

/// Where the set-up puts it, or where `LOCKGATE_H2SPEC` says.
fn program() -> PathBuf {
    if let Some(given) = std::env::var_os("LOCKGATE_H2SPEC") {
        return given.into();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let program = cache.unwrap().join("lockgate/tools/bin/h2spec");
    assert!(
        program.exists(),
        "there is no h2spec here; `.ci/setup h2spec` builds it, and `make test` and `make h2spec` call that"
    );
    program
}

/// A section of the suite.
#[derive(Debug, Eq, PartialEq)]
struct Section {
    name: String,
    cases: usize,
    skipped: usize,
    failed: Vec<String>,
}

/// What stands in a report between two texts, time after time.
fn between<'t>(text: &'t str, start: &'t str, end: &'t str) -> impl Iterator<Item = &'t str> {
    text.split(start)
        .skip(1)
        .map(move |part| part.split(end).next().unwrap_or_default())
}

fn attribute(tag: &str, name: &str) -> String {
    let start = format!(" {name}=\"");
    let value = between(tag, &start, "\"").next();
    let value = value.unwrap_or_default();
    [
        ("&#39;", "'"),
        ("&#34;", "\""),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&amp;", "&"),
    ]
    .iter()
    .fold(value.to_owned(), |text, (code, letter)| {
        text.replace(code, letter)
    })
}

fn sections(report: &str) -> Vec<Section> {
    between(report, "<testsuite ", "</testsuite>")
        .map(|suite| {
            let tag = format!(" {suite}");
            let cases: Vec<&str> = between(suite, "<testcase", "</testcase>").collect();
            let failed = cases
                .iter()
                .filter(|case| case.contains("<failure") || case.contains("<error"))
                .map(|case| attribute(case, "classname"));
            Section {
                name: format!("{} {}", attribute(&tag, "package"), attribute(&tag, "name")),
                cases: cases.len(),
                skipped: cases
                    .iter()
                    .filter(|case| case.contains("<skipped"))
                    .count(),
                failed: failed.collect(),
            }
        })
        .filter(|section| section.cases > 0)
        .collect()
}

async fn run(address: SocketAddr, tls: bool) -> Vec<Section> {
    let folder = tempfile::TempDir::new().unwrap();
    let report = folder.path().join("report.xml");
    let mut command = Command::new(program());
    command
        .args(["--host", "127.0.0.1", "--port", &address.port().to_string()])
        .args(["--strict", "--timeout", "10", "--junit-report"])
        .arg(&report)
        .stdin(Stdio::null());
    if tls {
        command.args(["--tls", "--insecure"]);
    }
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let output = output.unwrap().unwrap();
    let report = std::fs::read_to_string(&report).unwrap_or_default();
    let found = sections(&report);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        found.iter().map(|section| section.cases).sum::<usize>() > 140,
        "{said}"
    );
    for case in found.iter().flat_map(|section| &section.failed) {
        let known = KNOWN.iter().any(|(known, _)| known == case);
        assert!(known && !tls, "{case} fails:\n{said}");
    }
    found
}

fn page(with_tls: &[Section], without: &[Section]) -> String {
    let sum = |sections: &[Section], of: fn(&Section) -> usize| -> usize {
        sections.iter().map(of).sum()
    };
    let mut page = format!(
        "# h2spec\n\n\
         [h2spec](https://github.com/summerwind/h2spec) {VERSION} with `--strict` on the port with TLS and on the one without (prior knowledge), with\n\
         `--engine auto` and with `--engine pingora`. Both engines have the same result, or `make test` fails. `make h2spec` writes this page.\n\n\
         | port | cases | passed | skipped | failed |\n| --- | --- | --- | --- | --- |\n"
    );
    for (port, sections) in [("with TLS", with_tls), ("without TLS", without)] {
        let cases = sum(sections, |section| section.cases);
        let skipped = sum(sections, |section| section.skipped);
        let failed = sum(sections, |section| section.failed.len());
        let passed = cases - skipped - failed;
        writeln!(
            page,
            "| {port} | {cases} | {passed} | {skipped} | {failed} |"
        )
        .unwrap();
    }
    page.push_str("\n## What fails\n\n| port | case | cause |\n| --- | --- | --- |\n");
    for case in without.iter().flat_map(|section| &section.failed) {
        let cause = KNOWN.iter().find(|(known, _)| known == case);
        writeln!(page, "| without TLS | {case} | {} |", cause.unwrap().1).unwrap();
    }
    page.push_str("\n## Sections\n\n| section | cases |\n| --- | --- |\n");
    for section in with_tls {
        writeln!(page, "| {} | {} |", section.name, section.cases).unwrap();
    }
    page
}

#[tokio::test]
async fn http2_is_as_h2spec_wants_it() {
    let web = backend(|request| async {
        // Whoever answers earlier may have done so before the client has made its mistake.
        let _ = request.into_body().collect().await;
        hyper::Response::new(full("x".repeat(4096)))
    })
    .await;
    let mut model = to(web);
    add_tls(&mut model, &[("a.test", TlsPolicy::default())], "h2");
    let site = Site::start(model);
    let with_tls = run(site.https, true).await;
    let without = run(site.http, false).await;
    for (case, _) in KNOWN {
        let mut failed = without.iter().flat_map(|section| &section.failed);
        assert!(failed.any(|failed| failed == case), "{case} passes now");
    }
    let page = page(&with_tls, &without);
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/h2spec.md");
    if std::env::var_os("LOCKGATE_WRITE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == page, "run `make h2spec`:\n{page}");
}
