//! `lockgate render`, `check`, `version`, `completion`.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::manifest::{ingress, service};
use crate::world::put;

pub(crate) fn lockgate(
    arguments: &[&str],
    folder: &Path,
    stdin: &str,
) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_lockgate"))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(stdin.as_bytes())
        .unwrap();
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    put(
        folder.path(),
        "shop.yaml",
        &ingress("shop", "shop.test", &[("/", "web"), ("/cart", "missing")]),
    );
    put(folder.path(), "web.yaml", &service("web", &[9001]));
    folder
}

#[test]
fn render_shows_routes_and_problems_in_three_forms() {
    let folder = folder();
    let render = |format| {
        let arguments = ["render", "--manifests", ".", "-o", format];
        let (code, out, error) = lockgate(&arguments, folder.path(), "");
        assert_eq!(code, Some(0), "{error}");
        out
    };
    let table = render("table");
    for want in [
        "shop.test",
        "/cart",
        "test/web:80",
        "127.0.0.1:9001",
        "Service test/missing does not exist",
    ] {
        assert!(table.contains(want), "{want} in:\n{table}");
    }
    let json: serde_json::Value = serde_json::from_str(&render("json")).unwrap();
    let yaml: serde_json::Value = serde_saphyr::from_str(&render("yaml")).unwrap();
    // The default certificate is made anew each time.
    for key in ["generation", "hosts", "backends", "problems"] {
        assert_eq!(json[key], yaml[key], "{key}");
    }
    assert_eq!(json["hosts"]["shop.test"].as_array().unwrap().len(), 2);
}

#[test]
fn render_of_a_missing_folder_fails() {
    let folder = folder();
    let (code, _, error) = lockgate(&["render", "--manifests", "nowhere"], folder.path(), "");
    assert_eq!(code, Some(1));
    assert!(
        error.starts_with("lockgate: cannot read the manifests folder `nowhere`"),
        "{error}"
    );
}

#[test]
fn check_names_file_line_and_consequence() {
    let folder = folder();
    let (code, out, _) = lockgate(&["check", "shop.yaml", "web.yaml"], folder.path(), "");
    assert_eq!(code, Some(0), "a Service may be made by others: {out}");
    assert!(out.contains("shop.yaml:1: warning: "), "{out}");
    assert!(out.contains("Service test/missing does not exist"), "{out}");
    assert!(
        out.ends_with("3 objects checked: 0 errors, 1 warning\n"),
        "{out}"
    );

    let bad = format!(
        "{}---\n{}",
        service("x", &[]),
        ingress("bad", "-bad-.test", &[("/", "x")])
    );
    put(folder.path(), "more/bad.yaml", &bad);
    let (code, out, _) = lockgate(&["check", "."], folder.path(), "");
    assert_eq!(code, Some(1), "{out}");
    assert!(
        out.contains("more/bad.yaml:6: error: Ingress test/bad: spec.rules[0].host: "),
        "{out}"
    );
}

#[test]
fn check_reads_the_standard_input_and_reports_what_is_not_yaml() {
    let folder = folder();
    let (code, out, _) = lockgate(&["check", "-"], folder.path(), "a: [1\nb: 2\n");
    assert_eq!(code, Some(1));
    assert!(out.starts_with("<stdin>:"), "{out}");
    assert!(
        out.ends_with("0 objects checked: 1 error, 0 warnings\n"),
        "{out}"
    );
    let (code, out, _) = lockgate(&["check", "-"], folder.path(), &service("web", &[1]));
    assert_eq!(
        (code, out.as_str()),
        (Some(0), "2 objects checked: 0 errors, 0 warnings\n")
    );
}

#[test]
fn check_tells_which_ingresses_are_left_to_others() {
    let folder = folder();
    let other = ingress("other", "o.test", &[("/", "web")]).replace(": lockgate", ": nginx");
    let (code, out, _) = lockgate(&["check", "-", "web.yaml"], folder.path(), &other);
    assert_eq!(code, Some(0));
    assert!(
        out.contains("<stdin>:1: warning: Ingress test/other: Lockgate does not serve it: "),
        "{out}"
    );
}

#[test]
fn check_of_a_file_that_is_not_there_fails() {
    let folder = folder();
    let (code, _, error) = lockgate(&["check", "nowhere.yaml"], folder.path(), "");
    assert_eq!(code, Some(1));
    assert!(
        error.starts_with("lockgate: cannot read `nowhere.yaml`: No such file"),
        "{error}"
    );
}

#[test]
fn migrate_tells_by_its_exit_code_whether_anything_is_blocked() {
    let folder = TempDir::new().unwrap();
    let plain = ingress("shop", "shop.test", &[("/", "web")]).replace(": lockgate", ": nginx");
    put(folder.path(), "shop.yaml", &plain);
    let (code, out, error) = lockgate(&["migrate", "shop.yaml"], folder.path(), "");
    assert_eq!(code, Some(0), "{error}");
    assert!(
        out.starts_with("1 Ingress of class nginx in 1 namespace with 1 host\n"),
        "{out}"
    );
    assert!(out.contains("Risk of a switch today: low."), "{out}");

    let guarded = plain.replace("shop", "guarded").replace(
        "{name: guarded, namespace: test}",
        "{name: guarded, namespace: test, annotations: {nginx.ingress.kubernetes.io/enable-modsecurity: \"true\"}}",
    );
    let (code, out, _) = lockgate(&["migrate", "shop.yaml", "-"], folder.path(), &guarded);
    assert_eq!(code, Some(3), "{out}");
    assert!(out.contains("replace enable-modsecurity"), "{out}");
    assert!(
        out.contains("\nBlocked\n-------\ntest/guarded  guarded.test\n"),
        "{out}"
    );

    let (code, _, error) = lockgate(&["migrate", "nowhere.yaml"], folder.path(), "");
    assert_eq!(code, Some(1));
    assert!(error.contains("cannot read `nowhere.yaml`"), "{error}");
    let arguments = ["migrate", "--kubeconfig", "nowhere"];
    let (code, _, error) = lockgate(&arguments, folder.path(), "");
    assert_eq!(code, Some(1));
    assert!(error.contains("cannot read nowhere"), "{error}");
}

#[test]
fn migrate_has_a_step_for_everything_that_closes_routes() {
    let folder = TempDir::new().unwrap();
    let plain = ingress("shop", "shop.test", &[("/", "web")]).replace(": lockgate", ": nginx");
    let passed_on = plain.replace(
        "{name: shop, namespace: test}",
        "{name: shop, namespace: test, annotations: {nginx.ingress.kubernetes.io/ssl-passthrough: \"true\"}}",
    );
    put(folder.path(), "shop.yaml", &passed_on);
    let (code, out, _) = lockgate(&["migrate", "shop.yaml"], folder.path(), "");
    assert_eq!(code, Some(3), "{out}");
    assert!(out.contains("1. see to: metadata.annotations"), "{out}");
    assert!(out.contains("`--enable-ssl-passthrough`"), "{out}");

    let settings = "{apiVersion: v1, kind: ConfigMap, metadata: {name: nginx, namespace: test}, data: {enable-modsecurity: \"true\", ssl-redirekt: \"false\"}}\n---\n";
    put(folder.path(), "shop.yaml", &(settings.to_owned() + &plain));
    let (code, out, _) = lockgate(&["migrate", "shop.yaml"], folder.path(), "");
    assert_eq!(code, Some(3), "{out}");
    for step in [
        "1. replace enable-modsecurity of the ConfigMap: there is no ModSecurity",
        "2. decide about ssl-redirekt of the ConfigMap: there is no such setting; did you mean `ssl-redirect`?",
    ] {
        let words: Vec<_> = out.split_whitespace().collect();
        assert!(words.join(" ").contains(step), "{out}");
    }
}

#[test]
fn migrate_writes_replacements_that_serve_what_the_snippet_asked_for() {
    let folder = TempDir::new().unwrap();
    let snippet = "metadata:\n  annotations:\n    nginx.ingress.kubernetes.io/rewrite-taget: /x\n    nginx.ingress.kubernetes.io/configuration-snippet: |\n      add_header X-A b;\n      if ($request_method = PUT) { return 405; }";
    let one = ingress("shop", "shop.test", &[("/", "web")])
        .replace(": lockgate", ": nginx")
        .replacen(
            "metadata: {name: shop, namespace: test}",
            &format!("{snippet}\n  name: shop\n  namespace: test"),
            1,
        );
    put(folder.path(), "shop.yaml", &one);
    let arguments = ["migrate", "shop.yaml", "--fix", "fixes"];
    let (code, out, error) = lockgate(&arguments, folder.path(), "");
    assert_eq!(code, Some(0), "{out}{error}");
    assert!(
        out.contains("replacements for 1 Ingress are in fixes"),
        "{out}"
    );
    let read = |name: &str| {
        let text = std::fs::read_to_string(folder.path().join("fixes").join(name)).unwrap();
        serde_saphyr::from_str::<serde_json::Value>(&text).unwrap()
    };
    let policy = read("test.shop.policy.yaml");
    assert_eq!(policy["kind"], "RoutePolicy");
    assert_eq!(policy["metadata"]["namespace"], "test");
    assert_eq!(policy["spec"]["deny"][0]["methods"][0], "PUT");
    assert_eq!(policy["spec"]["responseHeaders"]["add"][0]["name"], "X-A");
    let patch = read("test.shop.patch.yaml");
    let annotations = &patch["metadata"]["annotations"];
    assert_eq!(annotations["lockgate.dev/route-policy"], "shop");
    assert_eq!(
        annotations["nginx.ingress.kubernetes.io/rewrite-target"],
        "/x"
    );
    for gone in ["configuration-snippet", "rewrite-taget"] {
        let name = format!("nginx.ingress.kubernetes.io/{gone}");
        assert!(annotations.as_object().unwrap().contains_key(&name));
        assert!(annotations[&name].is_null());
    }
    // What was written is a manifest that is read again.
    let (code, out, _) = lockgate(&["check", "fixes/test.shop.policy.yaml"], folder.path(), "");
    assert_eq!(code, Some(0), "{out}");
}

#[test]
fn version_and_completion_are_printed() {
    let folder = folder();
    let (code, out, _) = lockgate(&["version"], folder.path(), "");
    assert_eq!(
        (code, out.as_str()),
        (
            Some(0),
            concat!("lockgate ", env!("CARGO_PKG_VERSION"), "\n")
        )
    );
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = lockgate(&["completion", shell], folder.path(), "");
        assert_eq!(code, Some(0));
        assert!(
            out.contains("--manifests") || out.contains("manifests"),
            "{shell}"
        );
    }
    let (code, _, error) = lockgate(&["run", "--http-listen", "nowhere"], folder.path(), "");
    assert_eq!(code, Some(2));
    assert!(
        error.contains("an IP address and a port are needed"),
        "{error}"
    );
}
