//! Whatever the order and grouping of changes, the remembering translation gives what one from nothing gives.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helper functions of a test"
)]

mod edits;
mod narrow;
mod preview;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{Changes, ObjectRef, RoutingModel};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use translate::{
    Change, Locality, NamespacedName, Object, Outcome, Report, Settings, Translator, kinds,
    manifests, translate,
};

const EC: (&str, &str) = (
    include_str!("../fixtures/shop-ec.crt"),
    include_str!("../fixtures/shop-ec.key"),
);
const WILD: (&str, &str) = (
    include_str!("../fixtures/wild.crt"),
    include_str!("../fixtures/wild.key"),
);
const OTHER: (&str, &str) = (
    include_str!("../fixtures/other.crt"),
    include_str!("../fixtures/other.key"),
);

const CLIENTS: &str = include_str!("../fixtures/clients-ca.crt");

fn object(yaml: &str) -> Object {
    let mut parsed = manifests::parse(yaml);
    assert!(
        parsed.problems.is_empty(),
        "{:?} in {yaml}",
        parsed.problems
    );
    assert_eq!(parsed.objects.len(), 1, "{yaml}");
    parsed.objects.remove(0)
}

fn secret(namespace: &str, name: &str, (certificate, key): (&str, &str)) -> Object {
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    object(&format!(
        "{{apiVersion: v1, kind: Secret, metadata: {{name: {name}, namespace: {namespace}}}, stringData: {{tls.crt: {}, tls.key: {}}}}}",
        quoted(certificate),
        quoted(key)
    ))
}

/// A Secret with an authority for certificates of clients.
fn authority(namespace: &str, name: &str, certificate: &str) -> Object {
    let quoted = serde_json::to_string(certificate).unwrap();
    object(&format!(
        "{{apiVersion: v1, kind: Secret, metadata: {{name: {name}, namespace: {namespace}}}, stringData: {{ca.crt: {quoted}}}}}"
    ))
}

/// The objects as a cluster has them, and a translator that follows.
struct World {
    objects: BTreeMap<ObjectRef, Object>,
    settings: Settings,
    translator: Translator,
}

impl World {
    fn new(settings: Settings) -> Self {
        let mut translator = Translator::new(settings.clone());
        let first = translator.apply([]);
        // The first outcome compares with nothing at all.
        assert_eq!(
            first.changes,
            Changes::between(&RoutingModel::default(), translator.model())
        );
        Self {
            objects: BTreeMap::new(),
            translator,
            settings,
        }
    }

    /// Applies changes as a source does: Secrets that become wanted are delivered afterwards.
    fn apply(&mut self, changes: Vec<Change>) -> Result<(), TestCaseError> {
        for change in &changes {
            match change {
                Change::Apply(object) => {
                    self.objects.insert(object.reference(), object.clone());
                }
                Change::Delete(object) => {
                    self.objects.remove(object);
                }
            }
        }
        let outcome = self.step(changes)?;
        let wanted: Vec<Change> = outcome
            .secrets_wanted
            .iter()
            .filter_map(|name| self.objects.get(&name.reference(kinds::SECRET)))
            .cloned()
            .map(Change::Apply)
            .collect();
        let outcome = self.step(wanted)?;
        prop_assert!(outcome.secrets_wanted.is_empty());
        self.check()
    }

    /// One call, whose outcome names exactly what differs.
    fn step(&mut self, changes: Vec<Change>) -> Result<Outcome, TestCaseError> {
        let model = self.translator.model().clone();
        let report = self.translator.report().clone();
        let outcome = self.translator.apply(changes);
        prop_assert_eq!(
            &outcome.changes,
            &Changes::between(&model, self.translator.model())
        );
        prop_assert_eq!(
            &outcome.touched,
            &differing(&report, self.translator.report())
        );
        Ok(outcome)
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let translator = &self.translator;
        let whole = translate(translator.snapshot(), &self.settings);
        prop_assert_eq!(translator.model(), &whole.model);
        prop_assert_eq!(translator.report(), &whole.report);
        let serves_an_old_certificate = translator.wanted_secrets().iter().any(|name| {
            translator.snapshot().secret_fault(name).is_some()
                && translator.snapshot().certificate(name).is_some()
        });
        if !serves_an_old_certificate {
            let mut fresh = Translator::new(self.settings.clone());
            fresh.apply(self.objects.values().cloned().map(Change::Apply));
            prop_assert_eq!(translator.model(), fresh.model());
            prop_assert_eq!(translator.report(), fresh.report());
            prop_assert_eq!(translator.wanted_secrets(), fresh.wanted_secrets());
        }
        Ok(())
    }
}

fn differing(old: &Report, new: &Report) -> BTreeSet<ObjectRef> {
    let named = |report: &Report| -> BTreeSet<ObjectRef> {
        report
            .claimed()
            .chain(report.problems().map(|(object, _)| object))
            .chain(report.revocations().map(|(object, _)| object))
            .cloned()
            .collect()
    };
    let mut objects = named(old);
    objects.extend(named(new));
    objects.retain(|object| {
        old.claims(object) != new.claims(object)
            || old.problems_of(object) != new.problems_of(object)
            || old.revocation(object) != new.revocation(object)
    });
    objects
}

fn runner() -> TestRunner {
    let cases = std::env::var("LOCKGATE_PROPTEST_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(500);
    TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    })
}

#[test]
fn incremental_equals_from_nothing() {
    let mut runner = runner();
    let batches = prop::collection::vec(prop::collection::vec(edits::edits(), 1..5), 1..12);
    runner
        .run(&(batches, any::<bool>()), |(batches, folder)| {
            let mut world = crowded(folder)?;
            for batch in batches {
                world.apply(batch)?;
            }
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

/// A world in which nearly every setting names something.
fn crowded(folder: bool) -> Result<World, TestCaseError> {
    let mut world = World::new(Settings {
        configmap: Some(NamespacedName::new("a", "settings")),
        default_certificate_secret: Some(NamespacedName::new("b", "t1")),
        default_backend_service: Some(NamespacedName::new("a", "s1")),
        tcp_services: Some(NamespacedName::new("a", "tcp")),
        // The same object for two things.
        udp_services: Some(NamespacedName::new("a", "settings")),
        ssl_passthrough: folder,
        adopt_default_class: folder,
        allow_loopback_endpoints: folder,
        locality: Locality {
            node: Some("n1".into()),
            zone: Some("z1".into()),
        },
        ..Settings::default()
    });
    // Otherwise hardly any Ingress would be ours.
    world.apply(vec![Change::Apply(object(
        "{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: c1}, spec: {controller: lockgate.dev/ingress-controller}}",
    ))])?;
    Ok(world)
}

fn world() -> World {
    let mut world = World::new(Settings::default());
    let start = "
{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: lockgate}, spec: {controller: lockgate.dev/ingress-controller}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {ports: [{port: 80}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}, addressType: IPv4, ports: [{port: 8080}], endpoints: [{addresses: [10.0.0.1]}]}
---
{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: a, namespace: shop}, spec: {ingressClassName: lockgate, tls: [{hosts: [shop.test], secretName: t}], rules: [{host: shop.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}}
";
    let mut changes: Vec<Change> = manifests::parse(start)
        .objects
        .into_iter()
        .map(Change::Apply)
        .collect();
    changes.push(Change::Apply(secret("shop", "t", EC)));
    world.apply(changes).unwrap();
    assert_eq!(world.translator.report().problems().count(), 0);
    world
}

fn messages(world: &World) -> Vec<String> {
    world
        .translator
        .report()
        .problems()
        .map(|(object, problem)| format!("{object} {problem}"))
        .collect()
}

#[test]
fn an_endpoint_change_touches_its_endpoint_set_only() {
    let mut world = world();
    let hosts = world.translator.model().hosts.clone();
    let slice = object(
        "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}, addressType: IPv4, ports: [{port: 8080}], endpoints: [{addresses: [10.0.0.2]}]}",
    );
    let outcome = world.translator.apply([Change::Apply(slice)]);
    let Changes {
        hosts: changed_hosts,
        tls_hosts,
        backends,
        endpoints,
        certificates,
        streams,
        globals,
    } = outcome.changes;
    assert_eq!(endpoints.len(), 1);
    assert!(changed_hosts.is_empty() && tls_hosts.is_empty() && backends.is_empty());
    assert!(certificates.is_empty() && !streams && !globals && outcome.touched.is_empty());
    for (pattern, host) in &world.translator.model().hosts {
        assert!(Arc::ptr_eq(host, &hosts[pattern]), "shared, not copied");
    }
}

#[test]
fn a_secret_that_breaks_goes_on_serving_its_last_good_version() {
    let mut world = world();
    let certificates = world.translator.model().certificates.clone();
    for (change, fault) in [
        (
            Change::Apply(secret("shop", "t", (EC.0, OTHER.1))),
            "does not belong",
        ),
        (
            Change::Apply(secret("shop", "t", ("", ""))),
            "`tls.crt` is missing or empty",
        ),
        (
            Change::Delete(ObjectRef::new(kinds::SECRET, "shop", "t")),
            "it does not exist",
        ),
    ] {
        world.apply(vec![change]).unwrap();
        assert_eq!(world.translator.model().certificates, certificates);
        let [message] = messages(&world).try_into().unwrap();
        assert!(message.contains("Ingress shop/a") && message.contains("Secret shop/t"));
        assert!(message.contains(fault), "{message}");
        assert!(message.contains("its last good version goes on serving"));
    }
    world
        .apply(vec![Change::Apply(secret("shop", "t", WILD))])
        .unwrap();
    assert_ne!(world.translator.model().certificates, certificates);
    assert!(messages(&world)[0].contains("does not name host `shop.test`"));
    world
        .apply(vec![Change::Apply(secret("shop", "t", EC))])
        .unwrap();
    assert!(messages(&world).is_empty(), "healed");
}

#[test]
fn secrets_that_nobody_names_are_not_kept() {
    let mut world = world();
    let name = NamespacedName::new("shop", "t");
    let ingress = ObjectRef::new(kinds::INGRESS, "shop", "a");
    let outcome = world.translator.apply([Change::Delete(ingress.clone())]);
    assert_eq!(outcome.secrets_unwanted, BTreeSet::from([name.clone()]));
    assert!(world.translator.snapshot().certificate(&name).is_none());
    assert!(world.translator.model().certificates.is_empty());
    let outcome = world
        .translator
        .apply([Change::Apply(secret("shop", "t", EC))]);
    assert!(outcome.changes.is_empty());
    assert!(world.translator.snapshot().certificate(&name).is_none());
    let again = world.objects[&ingress].clone();
    let outcome = world.translator.apply([Change::Apply(again)]);
    assert_eq!(outcome.secrets_wanted, BTreeSet::from([name]));
}

#[test]
fn a_service_that_appears_heals_the_backend() {
    let mut world = world();
    let service = ObjectRef::new(kinds::SERVICE, "shop", "web");
    let before = world.translator.model().clone();
    world.apply(vec![Change::Delete(service)]).unwrap();
    assert!(messages(&world)[0].contains("Service shop/web does not exist"));
    let object = object(
        "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {ports: [{port: 80}]}}",
    );
    let outcome = world.translator.apply([Change::Apply(object)]);
    assert_eq!(
        outcome.touched,
        BTreeSet::from([ObjectRef::new(kinds::INGRESS, "shop", "a")])
    );
    assert_eq!(world.translator.model(), &before);
}

#[test]
fn a_class_that_comes_and_goes_adopts_and_drops_at_once() {
    let mut world = world();
    let class = ObjectRef::new(kinds::INGRESS_CLASS, "", "lockgate");
    let ingress = ObjectRef::new(kinds::INGRESS, "shop", "a");
    let mine = world.objects[&class].clone();
    let theirs = object(
        "{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: lockgate}, spec: {controller: other.test/x}}",
    );
    for (change, ours) in [
        (Change::Delete(class), false),
        (Change::Apply(mine.clone()), true),
        (Change::Apply(theirs), false),
        (Change::Apply(mine), true),
    ] {
        let outcome = world.translator.apply([change]);
        assert!(outcome.touched.contains(&ingress));
        assert_eq!(world.translator.report().claims(&ingress), ours);
        assert_eq!(world.translator.model().hosts.len(), usize::from(ours));
    }
}

#[test]
fn class_settings_decide_about_class_less_ingresses() {
    let ingress = object(
        "{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: a, namespace: shop}, spec: {rules: [{host: shop.test}]}}",
    );
    let class = |name: &str, controller: &str, day: u8| {
        object(&format!(
            "{{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {{name: {name}, creationTimestamp: '2026-01-0{day}T00:00:00Z', annotations: {{ingressclass.kubernetes.io/is-default-class: 'true'}}}}, spec: {{controller: {controller}}}}}"
        ))
    };
    let (ours, theirs) = ("lockgate.dev/ingress-controller", "other.test/x");
    let adopting = Settings {
        adopt_default_class: true,
        ..Settings::default()
    };
    let taking_all = Settings {
        watch_without_class: true,
        ..Settings::default()
    };
    let elsewhere = Settings {
        watch_without_class: true,
        watch_namespaces: BTreeSet::from(["blog".to_owned()]),
        ..Settings::default()
    };
    for (settings, classes, want, why) in [
        (
            Settings::default(),
            vec![class("a", ours, 1)],
            false,
            "admission would have set it",
        ),
        (adopting.clone(), vec![], false, "there is no default class"),
        (
            adopting.clone(),
            vec![class("a", ours, 1)],
            true,
            "the default class is ours",
        ),
        (
            adopting.clone(),
            vec![class("a", theirs, 1)],
            false,
            "it is not",
        ),
        (
            adopting.clone(),
            vec![class("a", ours, 1), class("b", theirs, 2)],
            false,
            "the newest counts",
        ),
        (
            adopting,
            vec![class("a", theirs, 1), class("b", ours, 2)],
            true,
            "the newest counts",
        ),
        (taking_all, vec![], true, "all class-less ones are taken"),
        (elsewhere, vec![], false, "another namespace is watched"),
    ] {
        let mut translator = Translator::new(settings);
        translator.apply(
            classes
                .into_iter()
                .chain([ingress.clone()])
                .map(Change::Apply),
        );
        assert_eq!(
            translator.report().claims(&ingress.reference()),
            want,
            "{why}"
        );
    }
}

#[test]
fn nothing_prints_a_private_key() {
    let world = world();
    let line = EC.1.lines().nth(1).unwrap();
    let snapshot = format!("{:?}", world.translator.snapshot());
    assert!(snapshot.contains("shop.test"));
    for text in [
        snapshot,
        format!("{:?}", world.translator),
        format!("{:?}", world.objects),
        serde_json::to_string(world.translator.model()).unwrap(),
    ] {
        assert!(!text.contains(line) && !text.contains("PRIVATE KEY"));
        assert!(text.contains("[redacted]") || text.contains("Object(Secret"));
    }
    let model = serde_json::to_value(world.translator.model()).unwrap();
    assert_eq!(model["certificates"]["shop/t"]["key"]["der"], "[redacted]");
}
