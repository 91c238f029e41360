//! Annotations that guard a route never open it: whatever stands in one that cannot be read, the route is closed.
#![allow(clippy::unwrap_used, reason = "helper functions of a test")]

use std::collections::BTreeMap;

use model::Action;
use proptest::prelude::*;
use translate::annotation::{self, Annotation, Value, Verdict};
use translate::{Change, Object, Settings, Severity, Translator, manifests};

const SHOP: &str = "
{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: shop, namespace: shop, annotations: {kubernetes.io/ingress.class: lockgate}}, spec: {rules: [{host: shop.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {ports: [{port: 80}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}, addressType: IPv4, ports: [{port: 8080}], endpoints: [{addresses: [10.0.0.1]}]}
";

/// What the one route answers with by itself, and whether an error was reported. `None` goes to a backend.
fn served(annotations: &BTreeMap<String, String>) -> (Option<u16>, bool) {
    let mut objects = manifests::parse(SHOP).objects;
    for object in &mut objects {
        if let Object::Ingress(ingress) = object {
            let own = ingress.metadata.annotations.get_or_insert_default();
            own.extend(annotations.clone());
        }
    }
    let mut translator = Translator::new(Settings::default());
    translator.apply(objects.into_iter().map(Change::Apply));
    let reported = translator
        .report()
        .problems()
        .any(|(_, problem)| problem.severity == Severity::Error);
    let host = translator.model().hosts.values().next().unwrap();
    let route = host.routes.first().unwrap();
    let status = match &route.action {
        Action::Respond { status, .. } => Some(*status),
        Action::Forward(_) | Action::Redirect(_) => None,
    };
    (status, reported)
}

/// Texts that are no value of this kind.
fn wrong(value: Value) -> BoxedStrategy<String> {
    let noise = "[ -~]{1,12}";
    match value {
        Value::Boolean => noise
            .prop_filter("a boolean", |text| {
                !matches!(
                    text.trim().to_ascii_lowercase().as_str(),
                    "true" | "false" | "t" | "f" | "1" | "0" | ""
                )
            })
            .boxed(),
        Value::Switch => noise
            .prop_filter("a switch", |text| {
                !matches!(text.trim().to_ascii_lowercase().as_str(), "on" | "off" | "")
            })
            .boxed(),
        Value::Number(..) | Value::Seconds => prop_oneof![
            Just("ten".to_owned()),
            Just("1.5".to_owned()),
            Just("10s".to_owned()),
            "[a-z]{1,8}",
            "[1-9][0-9]{10,29}",
        ]
        .boxed(),
        Value::OneOf(words) => noise
            .prop_filter("a word", move |text| {
                let text = text.trim();
                !text.is_empty() && !words.iter().any(|word| word.eq_ignore_ascii_case(text))
            })
            .boxed(),
        Value::Networks => prop_oneof![
            Just("10.0.0.0/33".to_owned()),
            Just("10.0.0.0.0".to_owned()),
            Just("everybody".to_owned()),
            Just("10.0.0.1, nonsense".to_owned()),
            "[g-z]{1,12}",
        ]
        .boxed(),
        Value::Object => prop_oneof![
            Just("a/b/c".to_owned()),
            Just("A B".to_owned()),
            Just("/x".to_owned()),
            Just("x/".to_owned()),
            "[!-,]{1,8}",
        ]
        .boxed(),
        Value::Url => prop_oneof![
            Just("://nowhere".to_owned()),
            Just("http://".to_owned()),
            Just("gopher://a.test/".to_owned()),
            Just("http://a.test/\nx".to_owned()),
        ]
        .boxed(),
        Value::Names | Value::Name => prop_oneof![
            Just("a b: c".to_owned()),
            Just("x\ny".to_owned()),
            Just("(x)".to_owned()),
        ]
        .boxed(),
        Value::Path
        | Value::Size
        | Value::Host
        | Value::Hosts
        | Value::Statuses
        | Value::Regex
        | Value::Text(_) => Just("\u{0}\n\"{;".to_owned()).boxed(),
    }
}

fn guards() -> Vec<&'static Annotation> {
    annotation::all()
        .filter(|annotation| annotation.guards)
        .collect()
}

proptest! {
    #[test]
    fn what_cannot_be_read_closes_the_route(
        (annotation, text) in prop::sample::select(guards())
            .prop_flat_map(|annotation| (Just(annotation), wrong(annotation.value)))
    ) {
        let name = format!("nginx.ingress.kubernetes.io/{}", annotation.name);
        let (status, reported) = served(&BTreeMap::from([(name, text.clone())]));
        prop_assert_eq!(status, Some(503), "{} {:?}", annotation.name, text);
        prop_assert!(reported, "{} {:?}", annotation.name, text);
    }

    #[test]
    fn a_misspelt_guard_closes_the_route(
        annotation in prop::sample::select(guards()),
        place in 0..100_usize,
        letter in "[a-z]",
    ) {
        let mut name = annotation.name.to_owned();
        name.insert_str(place % (name.len() + 1), &letter);
        prop_assume!(annotation::find(&name).is_none());
        let name = format!("nginx.ingress.kubernetes.io/{name}");
        let (status, reported) = served(&BTreeMap::from([(name, "x".to_owned())]));
        // Another annotation may be as near.
        prop_assert!(status == Some(503) && reported || annotation.name.len() < 8, "{}", annotation.name);
    }
}

/// Lines that have a typed form.
const TRANSLATED: [&str; 8] = [
    "add_header X-A b always;",
    "proxy_set_header X-Tenant \"b\";",
    "more_set_headers \"X-B: c\";",
    "if ($request_method = PUT) { return 405; }",
    "if ($http_user_agent ~* bot) { return 403; }",
    "rewrite ^(/app)$ $1/ permanent;",
    "proxy_read_timeout 30s;",
    "deny 192.0.2.1;",
];

/// Lines that have none.
const UNKNOWN: [&str; 14] = [
    "access_by_lua_block { ngx.exit(403) }",
    "auth_request /verify;",
    "if ($arg_token = \"\") { return 403; }",
    "if ($http_token != $cookie_token) { return 403; }",
    "if ($http_host = admin.test) { return 403; }",
    "if ($uri ~ \"(?!/public)\") { return 403; }",
    "if ($request_method = PUT) { set $blocked 1; }",
    "deny not-an-address;",
    "limit_except GET { deny all; }",
    "limit_req zone=one;",
    "location /admin { deny all; }",
    "more_set_input_headers \"Connection: close\";",
    "satisfy any;",
    "valid_referers none blocked;",
];

proptest! {
    #[test]
    fn one_line_that_cannot_be_translated_closes_the_route(
        mut lines in prop::collection::vec(prop::sample::select(&TRANSLATED[..]), 0..6),
        unknown in prop::sample::select(&UNKNOWN[..]),
        place in 0..100_usize,
    ) {
        let name = "nginx.ingress.kubernetes.io/configuration-snippet".to_owned();
        let (status, reported) = served(&BTreeMap::from([(name.clone(), lines.join("\n"))]));
        prop_assert_eq!((status, reported), (None, false), "{:?}", &lines);
        lines.insert(place % (lines.len() + 1), unknown);
        let (status, reported) = served(&BTreeMap::from([(name, lines.join("\n"))]));
        prop_assert_eq!((status, reported), (Some(503), true), "{:?}", lines);
    }
}

#[test]
fn what_is_refused_closes_the_route() {
    for annotation in annotation::all() {
        let Verdict::Refused(_) = annotation.verdict else {
            continue;
        };
        let name = format!("nginx.ingress.kubernetes.io/{}", annotation.name);
        let (status, reported) = served(&BTreeMap::from([(name, "anything".to_owned())]));
        assert_eq!((status, reported), (Some(503), true), "{}", annotation.name);
    }
}

/// What the ConfigMap says about who may pass, with values that cannot be read.
const SETTINGS: [(&str, &[&str]); 9] = [
    ("whitelist-source-range", &["everybody", "10.0.0.0/33"]),
    ("denylist-source-range", &["nobody", "10.0.0.1, x"]),
    ("block-cidrs", &["nobody", "10.0.0.0.0"]),
    ("block-user-agents", &["good, ~(", "~*(?=x)", "~[a"]),
    ("block-referers", &["~)", "a, ~(?<=x)y"]),
    ("enable-modsecurity", &["true", "yes", "on"]),
    ("global-auth-url", &["gopher://a.test/", "http://"]),
    ("global-auth-response-headers", &["a b: c"]),
    ("global-auth-snippet", &["allow all;"]),
];

#[test]
fn a_setting_that_guards_and_cannot_be_read_closes_the_route() {
    for (key, texts) in SETTINGS {
        for text in texts {
            let mut translator = Translator::new(Settings {
                configmap: Some("lockgate/settings".parse().unwrap()),
                ..Settings::default()
            });
            let settings = format!(
                "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: settings, namespace: lockgate}}, data: {{{key}: {text:?}}}}}\n---\n{SHOP}"
            );
            let objects = manifests::parse(&settings).objects;
            translator.apply(objects.into_iter().map(Change::Apply));
            let host = translator.model().hosts.values().next().unwrap();
            let action = &host.routes.first().unwrap().action;
            assert!(
                matches!(action, Action::Respond { status: 503, .. }),
                "{key}: {text}: {action:?}"
            );
            let field = format!("data[{key}]");
            let said = translator.report().problems().any(|(_, problem)| {
                *problem.field == *field && problem.severity == Severity::Error
            });
            assert!(said, "{key}: {text}");
        }
    }
}
