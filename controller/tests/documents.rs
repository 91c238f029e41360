//! The generated pages of `docs`, and the report about `e2e/migrate`, say what is there. `make docs` writes them, these
//! tests compare.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;

use clap::Parser;
use controller::args::{Cli, Command};
use controller::migrate::migrate;
use controller::nginx_metrics;
use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    with_local_recorder,
};
use translate::annotation::{self, Annotation, Group, Risk, Scope, Verdict};
use translate::setting::{self, Setting};

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
    for metric in &controller::app::backend_metrics::METRICS {
        let (name, text) = (metric.name.into(), metric.help.into());
        descriptions.add(metric.kind, &name, None, &text);
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
    page.push_str(&nginx_metrics());
    page
}

/// What `--metrics-names nginx` adds.
fn nginx_metrics() -> String {
    let prefix = nginx_metrics::PREFIX;
    let mut part = format!(
        "\n## Names of ingress-nginx\n\n\
         With `--metrics-names nginx`, these come beside the others, for dashboards and alerts that know them. Every name begins with\n\
         `{prefix}`, and every series has `controller_class`, `controller_namespace` (`POD_NAMESPACE`) and `controller_pod`\n\
         (`POD_NAME`). Requests have `status`, `method`, `path` (that of the Ingress), `namespace`, `ingress`, `service`, `canary` and `host` as well.\n\
         The host is that of the rule, also where it is a wildcard, and `_` where a rule has none; requests that no route matches are not counted, as with\n\
         ingress-nginx. The limit on series (`--max-metric-series`) holds for these, too.\n\n\
         | name | type | what it says |\n| --- | --- | --- |\n"
    );
    let descriptions = Descriptions::default();
    with_local_recorder(&descriptions, gateway::describe_nginx_metrics);
    for (name, described) in descriptions.0.into_inner().unwrap() {
        let name = name.strip_prefix(prefix).unwrap();
        let Described { kind, text, .. } = described;
        writeln!(part, "| `{name}` | {kind} | {text} |").unwrap();
    }
    for (name, kind, text) in nginx_metrics::STATES {
        writeln!(part, "| `{name}` | {kind} | {text} |").unwrap();
    }
    part.push_str("\nThese are not there:\n\n| name | why |\n| --- | --- |\n");
    for (name, why) in nginx_metrics::MEANINGLESS {
        writeln!(part, "| `{name}` | {why} |").unwrap();
    }
    part
}

fn annotations_page() -> String {
    let mut page = String::from(include_str!("annotations-head.md"));
    let (mut honoured, mut different, mut ignored, mut refused) = (0, 0, 0, 0);
    let mut sections: BTreeMap<Group, String> = BTreeMap::new();
    for annotation in annotation::all() {
        let Annotation {
            name,
            group,
            value,
            default,
            scope,
            risk,
            guards,
            verdict,
            about,
            own,
            ..
        } = annotation;
        let (count, word, text) = match verdict {
            Verdict::Honoured => (&mut honoured, "honoured", ""),
            Verdict::Different(text) => (&mut different, "different", *text),
            Verdict::Ignored(text) => (&mut ignored, "ignored", *text),
            Verdict::Refused(text) => (&mut refused, "refused", *text),
        };
        if !own {
            *count += 1;
        }
        let colon = if text.is_empty() { "" } else { ": " };
        let guards = if *guards { " It guards." } else { "" };
        let default = if default.is_empty() {
            String::new()
        } else {
            format!("`{default}`")
        };
        let scope = match scope {
            Scope::Path => "path",
            Scope::Ingress => "Ingress",
            Scope::Host => "host",
            Scope::Backend => "backend",
        };
        let risk = match risk {
            Risk::Low => "low",
            Risk::Medium => "medium",
            Risk::High => "high",
            Risk::Critical => "critical",
        };
        let section = sections.entry(*group).or_default();
        writeln!(
            section,
            "| `{name}` | {value} | {default} | {scope} | {risk} | {about}{guards} | {word}{colon}{text} |"
        )
        .unwrap();
    }
    writeln!(
        page,
        "Of the {} annotations of ingress-nginx, {honoured} are honoured, {different} different, {ignored} ignored and {refused} refused.",
        honoured + different + ignored + refused,
    )
    .unwrap();
    for (group, rows) in sections {
        let title = match group {
            Group::Routing => "Routing, rewrites, redirects",
            Group::Backend => "Protocol and TLS towards backends",
            Group::Transfer => "Timeouts, bodies, buffers, retries",
            Group::Authentication => "Authentication",
            Group::ClientCertificates => "Certificates of clients",
            Group::Access => "Addresses and rates",
            Group::Cors => "Cross-origin requests",
            Group::Canary => "Canary",
            Group::Affinity => "Sessions and balancing",
            Group::Responses => "Errors, headers, logs",
            Group::Tls => "TLS towards clients",
            Group::Raw => "Mirrors, firewalls, raw configuration",
            Group::Own => "Lockgate's own",
        };
        write!(
            page,
            "\n## {title}\n\n\
             | name | value | default | scope | risk | what it does | verdict |\n\
             | --- | --- | --- | --- | --- | --- | --- |\n{rows}"
        )
        .unwrap();
    }
    page
}

fn configmap_page() -> String {
    let mut page = String::from(
        "# The ConfigMap\n\n\
         What Lockgate makes of every key of the ConfigMap that `--configmap` names; they are those of ingress-nginx. Generated\n\
         from the source by `make docs`. What an annotation says prevails, except over\n`block-cidrs`, `block-user-agents`, `block-referers` and `retry-non-idempotent`.\n\n",
    );
    let (mut honoured, mut different, mut ignored, mut refused) = (0, 0, 0, 0);
    let mut rows = String::new();
    for Setting {
        name,
        default,
        verdict,
        about,
    } in setting::all()
    {
        let (count, word, text) = match verdict {
            Verdict::Honoured => (&mut honoured, "honoured", ""),
            Verdict::Different(text) => (&mut different, "different", *text),
            Verdict::Ignored(text) => (&mut ignored, "ignored", *text),
            Verdict::Refused(text) => (&mut refused, "refused", *text),
        };
        *count += 1;
        let colon = if text.is_empty() { "" } else { ": " };
        let default = if default.is_empty() {
            String::new()
        } else {
            format!("`{default}`")
        };
        writeln!(
            rows,
            "| `{name}` | {default} | {about} | {word}{colon}{text} |"
        )
        .unwrap();
    }
    write!(
        page,
        "Of these {} keys, {honoured} are honoured, {different} different, {ignored} ignored and {refused} refused. A key that is not in the\n\
         table is reported, with the key that was probably meant.\n\n\
         | key | default | what it does | verdict |\n| --- | --- | --- | --- |\n{rows}",
        honoured + different + ignored + refused
    )
    .unwrap();
    page
}

/// What `lockgate migrate` says of the Ingresses in `e2e/migrate`.
fn migration_report(format: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/migrate");
    let flags = "--configmap=ingress-nginx/ingress-nginx-controller --ingress-class=nginx --controller-class=k8s.io/ingress-nginx --publish-service=ingress-nginx/ingress-nginx-controller --enable-ssl-passthrough --validating-webhook=:8443";
    let arguments = [
        "lockgate",
        "migrate",
        folder.to_str().unwrap(),
        "--controller-args",
        flags,
        "--output",
        format,
    ];
    let Command::Migrate(args) = Cli::try_parse_from(arguments).unwrap().command else {
        unreachable!("it is the command above");
    };
    let mut out = Vec::new();
    migrate(args, std::io::empty(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Compares a page with its file, or writes it.
fn up_to_date(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(name);
    if std::env::var_os("LOCKGATE_WRITE_DOCS").is_some() {
        std::fs::write(&path, page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, page, "run `make docs`");
}

#[test]
fn the_page_of_metrics_is_up_to_date() {
    up_to_date("metrics.md", &metrics_page());
}

#[test]
fn the_page_of_annotations_is_up_to_date() {
    up_to_date("annotations.md", &annotations_page());
}

#[test]
fn the_page_of_the_configmap_is_up_to_date() {
    up_to_date("configmap.md", &configmap_page());
}

#[test]
fn the_migration_report_is_up_to_date() {
    up_to_date("migration-report.md", &migration_report("markdown"));
    up_to_date("../e2e/migrate/report.txt", &migration_report("text"));
}

/// The three forms say the same.
#[test]
fn the_migration_report_counts_right() {
    let json: serde_json::Value = serde_json::from_str(&migration_report("json")).unwrap();
    let summary = &json["summary"];
    assert_eq!(summary["ingresses"], 50);
    let count = |readiness: &str| {
        let all = json["ingresses"].as_array().unwrap();
        all.iter()
            .filter(|ingress| ingress["readiness"] == readiness)
            .count()
    };
    for readiness in ["blocked", "review", "ready"] {
        assert_eq!(summary[readiness], count(readiness), "{readiness}");
        assert!(count(readiness) > 0, "{readiness}");
    }
    assert_eq!(json["left_out"].as_array().unwrap().len(), 1);
    for ingress in json["ingresses"].as_array().unwrap() {
        let items = ingress["items"].as_array().unwrap();
        if items.iter().any(|item| item["verdict"] == "refused") {
            assert_eq!(ingress["readiness"], "blocked", "{ingress}");
        }
    }
}
