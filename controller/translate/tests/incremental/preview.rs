//! What is said of an object before it is there is what is said of it afterwards.

use proptest::prelude::*;
use translate::{Change, NamespacedName, Object, Problem, Reason, Settings, Translator, manifests};

use crate::{EC, OTHER, crowded, edits, object, runner, secret};

#[test]
fn a_preview_says_what_follows() {
    let asked = prop_oneof![
        6 => edits::ingresses(),
        1 => edits::policies(),
        1 => edits::gateway_policies(),
    ];
    let batches = prop::collection::vec(prop::collection::vec(edits::edits(), 1..5), 1..8);
    let steps = prop::collection::vec(asked, 1..6);
    runner()
        .run(
            &(batches, steps, any::<bool>()),
            |(batches, steps, folder)| {
                let mut world = crowded(folder)?;
                for batch in batches {
                    world.apply(batch)?;
                }
                for object in steps {
                    let reference = object.reference();
                    let before = (
                        world.translator.model().clone(),
                        world.translator.report().clone(),
                    );
                    let wanted = world.translator.wanted_secrets().clone();
                    let preview = world.translator.preview(&object);
                    let foreseen = preview.map(translate::Preview::translate);
                    prop_assert_eq!(&before.0, world.translator.model());
                    prop_assert_eq!(&before.1, world.translator.report());
                    world.apply(vec![Change::Apply(object.clone())])?;
                    let report = world.translator.report();
                    if matches!(object, Object::Ingress(_)) {
                        prop_assert_eq!(foreseen.is_some(), report.claims(&reference));
                    }
                    let Some(foreseen) = foreseen else { continue };
                    let present = before.1.problems_of(&reference);
                    prop_assert_eq!(&foreseen.present[..], present);
                    let seen = world.translator.wanted_secrets().is_subset(&wanted);
                    let count = |problem: &&Problem| seen || !is_about_a_secret(problem);
                    let said: Vec<_> = foreseen.problems.iter().filter(count).collect();
                    let found: Vec<_> = report
                        .problems_of(&reference)
                        .iter()
                        .filter(count)
                        .collect();
                    prop_assert_eq!(said, found, "{:?}", object);
                    for (other, problem) in
                        foreseen.others.iter().filter(|(_, other)| count(&other))
                    {
                        prop_assert!(
                            report.problems_of(other).contains(problem),
                            "{other}: {problem}"
                        );
                    }
                }
                Ok(())
            },
        )
        .unwrap_or_else(|failure| panic!("{failure}"));
}

/// What is in a Secret is known once somebody has named it.
fn is_about_a_secret(problem: &Problem) -> bool {
    matches!(
        problem.reason,
        Reason::SecretNotFound
            | Reason::InvalidSecret
            | Reason::CertificateMismatch
            | Reason::TlsConflict
    )
}

fn ingress(name: &str, host: &str, secret: &str) -> Object {
    object(&format!(
        "{{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{name: {name}, namespace: shop, annotations: {{kubernetes.io/ingress.class: lockgate}}}}, spec: {{tls: [{{hosts: [{host}], secretName: {secret}}}], rules: [{{host: {host}, http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}}}]}}}}"
    ))
}

const WEB: &str = "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {ports: [{port: 80}]}}";

fn messages(translator: &Translator, object: &Object) -> Vec<String> {
    let foreseen = translator.preview(object).unwrap().translate();
    let problems = foreseen.problems.iter();
    problems.map(|problem| problem.message.clone()).collect()
}

#[test]
fn a_secret_that_nobody_has_named_yet_is_not_called_missing() {
    let mut translator = Translator::new(Settings::default());
    let web = manifests::parse(WEB).objects;
    translator.apply(web.into_iter().map(Change::Apply));
    let new = ingress("new", "shop.test", "t");
    assert_eq!(messages(&translator, &new), Vec::<String>::new());
    translator.apply([Change::Apply(ingress("old", "old.test", "t"))]);
    let missing = "spec.tls[0].secretName: Secret shop/t: it does not exist";
    let [message] = messages(&translator, &new).try_into().unwrap();
    assert!(message.starts_with(missing), "{message}");
    // Known, and of no use to either of them.
    translator.apply([Change::Apply(secret("shop", "t", (EC.0, OTHER.1)))]);
    let [message] = messages(&translator, &new).try_into().unwrap();
    assert!(message.contains("does not belong"), "{message}");
}

#[test]
fn a_secret_of_the_process_is_kept_and_its_faults_are_reported() {
    let name: NamespacedName = "ops/admission".parse().unwrap();
    let mut translator = Translator::new(Settings {
        admission_secret: Some(name.clone()),
        ..Settings::default()
    });
    let outcome = translator.apply([]);
    assert_eq!(
        outcome.secrets_wanted.into_iter().collect::<Vec<_>>(),
        std::slice::from_ref(&name)
    );
    let said = |translator: &Translator| -> Vec<String> {
        let problems = translator.report().problems();
        problems
            .map(|(of, problem)| format!("{of}: {}", problem.message))
            .collect()
    };
    assert_eq!(
        said(&translator),
        [
            "Secret ops/admission: the certificate of the admission webhook cannot be used: it does not exist; nothing is reviewed"
        ]
    );
    translator.apply([Change::Apply(secret("ops", "admission", EC))]);
    assert!(translator.snapshot().certificate(&name).is_some());
    assert!(said(&translator).is_empty());
    translator.apply([Change::Apply(secret("ops", "admission", ("", "")))]);
    assert!(translator.snapshot().certificate(&name).is_some());
    assert!(said(&translator)[0].ends_with("its last good version goes on serving"));
}

#[test]
fn other_objects_are_left_alone() {
    let translator = Translator::new(Settings::default());
    let foreign = object(
        "{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: a, namespace: shop}, spec: {ingressClassName: other}}",
    );
    for other in [foreign, object(WEB)] {
        assert!(translator.preview(&other).is_none(), "{other:?}");
    }
    let elsewhere = Translator::new(Settings {
        watch_namespaces: ["blog".to_owned()].into(),
        ..Settings::default()
    });
    assert!(elsewhere.preview(&ingress("a", "shop.test", "t")).is_none());
}

#[test]
fn a_policy_names_the_ingresses_that_it_harms() {
    let mut translator = Translator::new(Settings::default());
    let start = [
        WEB.to_owned(),
        "{apiVersion: lockgate.dev/v1alpha1, kind: GatewayPolicy, metadata: {name: shops}, spec: {namespaces: [shop], denyAnnotations: [auth-secret]}}".to_owned(),
    ];
    for text in start {
        translator.apply([Change::Apply(object(&text))]);
    }
    translator.apply([Change::Apply(ingress("a", "a.test", "t"))]);
    let policy = object(
        "{apiVersion: lockgate.dev/v1alpha1, kind: RoutePolicy, metadata: {name: p, namespace: shop}, spec: {targetRefs: [{name: a}], basicAuth: {secretName: users}}}",
    );
    let foreseen = translator.preview(&policy).unwrap().translate();
    assert!(foreseen.problems.is_empty());
    let others: Vec<String> = foreseen
        .others
        .iter()
        .map(|(object, problem)| format!("{object}: {}: {}", problem.reason, problem.message))
        .collect();
    assert!(
        others
            .iter()
            .any(|text| text.starts_with("Ingress shop/a: PolicyViolation: ")),
        "{others:?}"
    );
}

/// The first claim wins, whoever asks: the younger one is told, the older one is not.
#[test]
fn the_younger_claim_is_told() {
    let dated = |name: &str, day: &str| {
        object(&format!(
            "{{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{name: {name}, namespace: shop, creationTimestamp: '2026-01-{day}T00:00:00Z', annotations: {{kubernetes.io/ingress.class: lockgate}}}}, spec: {{rules: [{{host: shop.test, http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}}}]}}}}"
        ))
    };
    let mut translator = Translator::new(Settings::default());
    translator.apply([
        Change::Apply(object(WEB)),
        Change::Apply(dated("first", "02")),
    ]);
    let [younger] = messages(&translator, &dated("later", "03"))
        .try_into()
        .unwrap();
    assert!(
        younger.starts_with("spec.rules[0].http.paths[0]: Ingress shop/first, which is older,"),
        "{younger}"
    );
    assert!(messages(&translator, &dated("earlier", "01")).is_empty());
}
