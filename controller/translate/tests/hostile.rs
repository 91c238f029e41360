//! Large and hostile input: every bad item harms only itself, and nothing takes more than its share of work.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helper functions of a test"
)]

use std::fmt::Write as _;

use model::{BackendId, HostPattern, ObjectRef};
use proptest::prelude::*;
use translate::{Change, Object, Reason, Settings, Severity, Translator, kinds, manifests};

fn objects(yaml: &str) -> Vec<Object> {
    let parsed = manifests::parse(yaml);
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    parsed.objects
}

fn apply(translator: &mut Translator, objects: Vec<Object>) {
    translator.apply(objects.into_iter().map(Change::Apply));
}

fn ingress(name: &str, rules: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}, namespace: shop, annotations: {{kubernetes.io/ingress.class: lockgate}}}}\nspec:\n  rules:\n{rules}"
    )
}

fn rule(host: &str, path: &str) -> String {
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    format!(
        "  - {{host: {}, http: {{paths: [{{path: {}, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}}}\n",
        quoted(host),
        quoted(path)
    )
}

const WEB: &str = "
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {ports: [{port: 80}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}, addressType: IPv4, ports: [{port: 8080}], endpoints: [{addresses: [10.0.0.1]}]}
";

#[test]
fn an_ingress_may_have_ten_thousand_hosts() {
    let rules = (0..10_000).fold(String::new(), |mut text, i| {
        text.push_str(&rule(&format!("h{i}.test"), "/"));
        text
    });
    let mut translator = Translator::new(Settings::default());
    apply(
        &mut translator,
        objects(&format!("{}{WEB}", ingress("big", &rules))),
    );
    assert_eq!(translator.model().hosts.len(), 10_000);
    assert_eq!(translator.report().problems().count(), 0);
}

#[test]
fn the_problems_of_one_object_are_bounded() {
    let rules = (0..1_000).fold(rule("good.test", "/"), |mut text, i| {
        text.push_str(&rule(&format!("bad host {i}"), "/"));
        text
    });
    let mut translator = Translator::new(Settings::default());
    apply(
        &mut translator,
        objects(&format!("{}{WEB}", ingress("bad", &rules))),
    );
    assert_eq!(translator.model().hosts.len(), 1);
    let object = ObjectRef::new(kinds::INGRESS, "shop", "bad");
    let problems = translator.report().problems_of(&object);
    assert_eq!(problems.len(), 50);
    assert_eq!(problems[49].reason, Reason::MoreProblems);
}

#[test]
fn long_and_strange_paths_harm_only_themselves() {
    let long = format!("/{}", "a".repeat(65_536));
    let mut rules = rule("shop.test", &long);
    for path in [
        "/\"; return 200; #",
        "/'{}\n",
        "/\0",
        "/%00",
        "/$(id)",
        "/{{x}}",
        "/\u{202e}",
    ] {
        rules.push_str(&rule("shop.test", path));
    }
    let mut translator = Translator::new(Settings::default());
    apply(
        &mut translator,
        objects(&format!(
            "{}{}{WEB}",
            ingress("strange", &rules),
            ingress("good", &rule("shop.test", "/good"))
        )),
    );
    let host = HostPattern::parse("shop.test").unwrap();
    let paths: Vec<String> = translator.model().hosts[&host]
        .routes
        .iter()
        .map(|route| route.matches.path.to_string())
        .collect();
    assert_eq!(
        paths,
        [
            "/good",
            "/%22;%20return%20200;%20%23",
            "/$(id)",
            "/%7B%7Bx%7D%7D",
            "/%E2%80%AE",
        ]
    );
    for (_, problem) in translator.report().problems() {
        assert_eq!(problem.severity, Severity::Error);
        assert!(problem.message.len() < 300 && !problem.message.contains(['\n', '\0']));
    }
}

#[test]
fn one_change_among_ten_thousand_ingresses_touches_one_host() {
    let all = (0..10_000).fold(WEB.to_owned(), |mut text, i| {
        let _ = write!(
            text,
            "{}",
            ingress(&format!("i{i}"), &rule(&format!("h{i}.test"), "/"))
        );
        text
    });
    let mut translator = Translator::new(Settings::default());
    apply(&mut translator, objects(&all));
    assert_eq!(translator.model().hosts.len(), 10_000);
    let changed = objects(&ingress("i77", &rule("h77.test", "/other")));
    let outcome = translator.apply(changed.into_iter().map(Change::Apply));
    let hosts: Vec<String> = outcome
        .changes
        .hosts
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(hosts, ["h77.test"]);
    assert!(outcome.changes.endpoints.is_empty() && outcome.touched.is_empty());
    let id = BackendId::new("shop", "web", "80");
    assert!(translator.model().backends.contains_key(&id));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_parses_to_something(text in "(?s).{0,200}") {
        manifests::parse(&text);
    }

    #[test]
    fn any_yaml_like_text_parses_to_something(
        lines in prop::collection::vec("[ ]{0,4}(apiVersion: v1|kind: (Service|Secret|List|Ingress)|metadata:|name: x|spec:|items:|- |---|[{}\\[\\]&*!|>'\":]{1,3}|\t)", 0..20)
    ) {
        manifests::parse(&lines.join("\n"));
    }

    #[test]
    fn any_field_of_an_ingress_may_hold_anything(
        host in "(?s).{0,40}", path in "(?s).{0,40}", kind in "(?s).{0,10}", service in "(?s).{0,20}",
        port in "(?s).{0,10}", number in any::<i32>(), secret in "(?s).{0,20}",
    ) {
        let ingress = serde_json::json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": "a", "namespace": "a", "annotations": {"kubernetes.io/ingress.class": "lockgate"}},
            "spec": {
                "tls": [{"hosts": [&host], "secretName": secret}],
                "defaultBackend": {"service": {"name": &service, "port": {"number": number}}},
                "rules": [
                    {"host": &host, "http": {"paths": [{"path": &path, "pathType": &kind, "backend": {"service": {"name": &service, "port": {"name": port}}}}]}},
                    {"host": "good.test", "http": {"paths": [{"path": "/good", "pathType": "Exact", "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}},
                ],
            },
        });
        let mut translator = Translator::new(Settings::default());
        apply(&mut translator, objects(&ingress.to_string()));
        let good = HostPattern::parse("good.test").unwrap();
        prop_assert!(translator.model().hosts.contains_key(&good));
        // What leaves the translation can be written and read again: no name breaks a separator.
        for id in translator.model().backends.keys() {
            prop_assert_eq!(&BackendId::try_from(id.to_string()).unwrap(), id);
        }
    }
}
