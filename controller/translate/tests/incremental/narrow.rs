//! A change is work for those that it concerns, and for nobody else.

use translate::{Change, NamespacedName, Object, Settings, Translator, kinds};

use crate::object;

/// Ingresses `0` to `4` in each of the namespaces `a` and `b`. `0` of `a` names the policy `p`, `1` headers.
fn world() -> Translator {
    let mut objects = vec![object(
        "{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: lockgate}, spec: {controller: lockgate.dev/ingress-controller}}",
    )];
    for namespace in ["a", "b"] {
        for number in 0..5 {
            let annotation = match (namespace, number) {
                ("a", 0) => "lockgate.dev/route-policy: p",
                ("a", 1) => "nginx.ingress.kubernetes.io/custom-headers: a/headers",
                _ => "",
            };
            objects.push(object(&format!(
                "{{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{name: '{number}', namespace: {namespace}, annotations: {{{annotation}}}}}, spec: {{ingressClassName: lockgate, rules: [{{host: {namespace}{number}.test, http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}}}]}}}}"
            )));
        }
    }
    objects.push(headers("X-A: one", "1"));
    objects.push(object(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: settings, namespace: lockgate}, data: {global-allowed-response-headers: X-A}}",
    ));
    let mut translator = Translator::new(Settings {
        configmap: Some(NamespacedName::new("lockgate", "settings")),
        ..Settings::default()
    });
    let outcome = translator.apply(objects.into_iter().map(Change::Apply));
    assert_eq!(outcome.translated, 10);
    translator
}

fn headers(data: &str, version: &str) -> Object {
    object(&format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: headers, namespace: a, resourceVersion: '{version}'}}, data: {{{data}}}}}"
    ))
}

fn policy(name: &str, targets: &[&str], header: &str) -> Object {
    let targets: Vec<_> = targets
        .iter()
        .map(|name| format!("{{name: '{name}'}}"))
        .collect();
    let targets = targets.join(", ");
    object(&format!(
        "{{apiVersion: lockgate.dev/v1alpha1, kind: RoutePolicy, metadata: {{name: {name}, namespace: a}}, spec: {{targetRefs: [{targets}], responseHeaders: {{set: [{{name: X-A, value: {header}}}]}}}}}}"
    ))
}

/// How many Ingresses were read anew, and how many hosts differ.
fn step(translator: &mut Translator, change: Change) -> (usize, usize) {
    let outcome = translator.apply([change]);
    (outcome.translated, outcome.changes.hosts.len())
}

#[test]
fn a_route_policy_concerns_those_that_name_it_and_those_that_it_names() {
    let mut world = world();
    let named = policy("p", &[], "one");
    let reference = named.reference();
    for (change, want, why) in [
        (Change::Apply(named.clone()), (1, 1), "one names it"),
        (Change::Apply(named), (0, 0), "nothing differs"),
        (
            Change::Apply(policy("p", &["3"], "one")),
            (2, 1),
            "one more is named",
        ),
        (
            Change::Apply(policy("p", &["4"], "two")),
            (3, 3),
            "one is not named any more",
        ),
        (
            Change::Apply(policy("q", &["9"], "two")),
            (0, 0),
            "it names nobody",
        ),
        (Change::Apply(policy("q", &["2", "9"], "two")), (1, 1), ""),
        (Change::Delete(reference), (2, 2), "both go without"),
    ] {
        assert_eq!(step(&mut world, change), want, "{why}");
    }
}

#[test]
fn a_gateway_policy_concerns_the_namespaces_for_which_it_says_something_else() {
    let mut world = world();
    let policy = |spec: &str| {
        object(&format!(
            "{{apiVersion: lockgate.dev/v1alpha1, kind: GatewayPolicy, metadata: {{name: g}}, spec: {{{spec}}}}}"
        ))
    };
    let first = policy("namespaces: [a], denyAnnotations: [custom-headers]");
    let reference = first.reference();
    assert_eq!(&*reference.kind, kinds::GATEWAY_POLICY);
    for (change, want, why) in [
        (Change::Apply(first.clone()), (5, 1), "one of them uses it"),
        (Change::Apply(first), (0, 0), "nothing differs"),
        (
            Change::Apply(policy(
                "namespaces: [a, b], denyAnnotations: [custom-headers]",
            )),
            (5, 0),
            "nothing is new for the first one",
        ),
        (
            Change::Apply(policy("namespaces: [b], denyAnnotations: [custom-headers]")),
            (5, 1),
            "it lets the first one go",
        ),
        (
            Change::Apply(policy("namespaces: [b], hosts: ['*.test']")),
            (10, 5),
            "hosts belong to somebody",
        ),
        (Change::Delete(reference), (10, 5), "and to nobody again"),
    ] {
        assert_eq!(step(&mut world, change), want, "{why}");
    }
}

#[test]
fn a_configmap_with_headers_concerns_those_that_name_it() {
    let mut world = world();
    for (change, want, why) in [
        (
            Change::Apply(headers("X-A: one", "2")),
            (0, 0),
            "nothing differs",
        ),
        (
            Change::Apply(headers("X-A: two", "3")),
            (0, 1),
            "the one host",
        ),
        (
            Change::Delete(headers("", "4").reference()),
            (0, 1),
            "it is closed",
        ),
        (
            Change::Delete(headers("", "4").reference()),
            (0, 0),
            "it is gone already",
        ),
    ] {
        assert_eq!(step(&mut world, change), want, "{why}");
    }
}
