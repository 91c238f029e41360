//! What `config` says agrees with what the code does.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, and a broken manifest should say where"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use controller::args::{Cli, Command};
use controller::{Reach, permissions};
use serde::Deserialize;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    verbs: Vec<String>,
    resource_names: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Manifest {
    kind: String,
    rules: Vec<Rule>,
    role_ref: RoleRef,
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RoleRef {
    kind: String,
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    template: Template,
    controller: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Template {
    spec: Pod,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Pod {
    containers: Vec<Container>,
    termination_grace_period_seconds: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Container {
    args: Vec<String>,
    ports: Vec<Port>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Port {
    name: String,
    container_port: u16,
}

fn manifests(file: &str) -> Vec<Manifest> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../config")
        .join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rules(file: &str, kind: &str) -> Vec<Rule> {
    let of_kind = manifests(file)
        .into_iter()
        .filter(|manifest| manifest.kind == kind);
    let rules: Vec<Rule> = of_kind.flat_map(|manifest| manifest.rules).collect();
    assert!(!rules.is_empty(), "{file} has no rules of kind {kind}");
    rules
}

/// Verbs by group and resource.
type Grants = BTreeMap<(String, String), BTreeSet<String>>;

fn granted(rules: &[Rule]) -> Grants {
    let mut grants = Grants::new();
    for rule in rules {
        for group in &rule.api_groups {
            for resource in &rule.resources {
                let verbs = grants.entry((group.clone(), resource.clone())).or_default();
                verbs.extend(rule.verbs.iter().cloned());
            }
        }
    }
    grants
}

fn used(reach: Reach) -> Grants {
    let mut grants = Grants::new();
    for permission in permissions()
        .iter()
        .filter(|permission| permission.reach == reach)
    {
        let key = (permission.group.to_owned(), permission.resource.to_owned());
        let verbs = permission.verbs.iter().map(|verb| (*verb).to_owned());
        grants.entry(key).or_default().extend(verbs);
    }
    grants
}

/// Both directions: nothing is missing, and nothing is granted that no code uses.
#[test]
fn the_roles_grant_what_the_code_uses_and_nothing_else() {
    let watched = rules("rbac/watched.yaml", "ClusterRole");
    assert_eq!(granted(&watched), used(Reach::Watched));
    let own = rules("rbac/own-namespace.yaml", "Role");
    assert_eq!(granted(&own), used(Reach::OwnNamespace));
    for rule in watched.iter().chain(&own) {
        let all = [&rule.api_groups, &rule.resources, &rule.verbs];
        assert!(
            all.iter().all(|texts| !texts.contains(&"*".to_owned())),
            "{rule:?}"
        );
    }
}

#[test]
fn in_its_own_namespace_it_reaches_only_its_own_objects() {
    for rule in rules("rbac/own-namespace.yaml", "Role") {
        // What is created has no name yet when it is authorised.
        if rule.verbs != ["create"] {
            assert!(!rule.resource_names.is_empty(), "{rule:?}");
        }
    }
}

#[test]
fn the_roles_are_bound() {
    for (file, kind) in [
        ("rbac/watched.yaml", "ClusterRole"),
        ("rbac/own-namespace.yaml", "Role"),
    ] {
        let bound = manifests(file)
            .into_iter()
            .find(|manifest| manifest.kind == format!("{kind}Binding"));
        let role = bound.unwrap().role_ref;
        assert_eq!((role.kind.as_str(), role.name.as_str()), (kind, "lockgate"));
    }
}

/// The overlay adds flags and rights, and the rights are for the very objects that the flags name.
#[test]
fn the_overlay_for_streams_grants_what_its_flags_name() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/overlays/streams/kustomization.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let flags = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("value: --"))
        .map(|flag| format!("--{flag}"));
    let arguments = deployment().containers.remove(0).args.into_iter();
    let arguments = ["lockgate".to_owned()].into_iter().chain(arguments);
    let Command::Run(run) = Cli::try_parse_from(arguments.chain(flags)).unwrap().command else {
        panic!("the container does not run the controller");
    };
    let translation = run.settings().translation;
    assert!(translation.ssl_passthrough);
    let named: BTreeSet<String> = [translation.tcp_services, translation.udp_services]
        .map(|name| {
            let name = name.unwrap();
            assert_eq!(&*name.namespace, "lockgate", "the namespace of the Role");
            name.name.to_string()
        })
        .into();
    let [rule] = &rules("overlays/streams/rbac.yaml", "Role")[..] else {
        panic!("one rule is enough");
    };
    assert_eq!(rule.resources, ["configmaps"]);
    assert_eq!(
        rule.resource_names.iter().cloned().collect::<BTreeSet<_>>(),
        named
    );
    let ours = used(Reach::OwnNamespace);
    let key = (String::new(), "configmaps".to_owned());
    assert_eq!(granted(std::slice::from_ref(rule))[&key], ours[&key]);
}

fn deployment() -> Pod {
    let deployment = manifests("manager/deployment.yaml").remove(0);
    assert_eq!(deployment.kind, "Deployment");
    deployment.spec.template.spec
}

#[test]
fn the_deployment_starts_the_binary_with_flags_that_it_knows() {
    let mut pod = deployment();
    let container = pod.containers.remove(0);
    let arguments = ["lockgate".to_owned()].into_iter().chain(container.args);
    let Command::Run(run) = Cli::try_parse_from(arguments).unwrap().command else {
        panic!("the container does not run the controller");
    };
    let ends_within = run.shutdown.shutdown_delay.unwrap() + run.shutdown.drain_timeout;
    let grace = Duration::from_secs(pod.termination_grace_period_seconds);
    assert!(
        grace > ends_within + Duration::from_secs(10),
        "{grace:?} for {ends_within:?}"
    );

    let port = |name: &str| {
        let port = container.ports.iter().find(|port| port.name == name);
        port.map(|port| port.container_port)
    };
    assert_eq!(
        port("http"),
        run.listen
            .http_listen
            .first()
            .map(std::net::SocketAddr::port)
    );
    assert_eq!(
        port("https"),
        run.listen
            .https_listen
            .first()
            .map(std::net::SocketAddr::port)
    );
    assert_eq!(
        port("admin"),
        run.listen.admin_listen.map(|address| address.port())
    );

    // The names that the Role grants are those that the flags say.
    let own = rules("rbac/own-namespace.yaml", "Role");
    let names = |resource: &str| -> Vec<String> {
        let of_resource = own.iter().filter(|rule| rule.resources == [resource]);
        of_resource
            .flat_map(|rule| rule.resource_names.clone())
            .collect()
    };
    assert_eq!(names("leases"), [run.status.election_id]);
    assert_eq!(
        names("configmaps"),
        [run.scope.configmap.unwrap().name.to_string()]
    );
}

#[test]
fn the_shipped_class_is_the_one_that_is_served_by_default() {
    let class = manifests("ingressclass/ingressclass.yaml").remove(0);
    assert_eq!(
        class.spec.controller,
        translate::Settings::default().controller_name
    );
}

/// The admin port shows routes and certificates: nothing outside may reach it.
#[test]
fn no_service_exposes_the_admin_port() {
    let text = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/manager/service.yaml"),
    );
    let text = text.unwrap();
    assert!(!text.contains("admin") && !text.contains("10254"));
}

/// Only the composition root knows both sides.
#[test]
fn only_app_names_the_gateway() {
    fn search(folder: &Path, found: &mut BTreeSet<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                search(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let names = |line: &str| {
                    let code = line.split("//").next().unwrap_or_default();
                    code.contains("gateway::") && !code.contains("::gateway::")
                };
                if text.lines().any(names) {
                    found.insert(path);
                }
            }
        }
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeSet::new();
    search(&source, &mut found);
    assert!(found.contains(&source.join("app.rs")));
    found.retain(|path| *path != source.join("app.rs") && !path.starts_with(source.join("app")));
    assert_eq!(found, BTreeSet::new());
}
