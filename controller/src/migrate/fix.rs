//! Typed replacements as files that a person reviews and applies. Nothing is applied here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use crds::{RoutePolicy, RoutePolicySpec, TargetRef};
use k8s_openapi::api::networking::v1::Ingress;
use serde_json::{Value, json};
use translate::{NamespacedName, annotation};

use super::MigrateError;

/// The replacements for one Ingress.
#[derive(Debug, Default)]
struct Fix {
    policy: Option<RoutePolicySpec>,
    /// The Ingress names a policy already, which stays.
    beside: bool,
    /// Annotations to set, or to remove.
    annotations: BTreeMap<String, Option<String>>,
}

/// Writes the replacements for these Ingresses; returns how many of them have some.
pub(super) fn write<'a>(
    folder: &Path,
    ingresses: impl Iterator<Item = (&'a NamespacedName, Ingress)>,
    prefixes: &[String],
) -> Result<usize, MigrateError> {
    let mut files: Vec<(PathBuf, String)> = Vec::new();
    let mut commands = String::new();
    let mut count = 0;
    for (name, ingress) in ingresses.filter(|(name, _)| is_plain(name)) {
        let fix = fix(name, &ingress, prefixes);
        if fix.annotations.is_empty() {
            continue;
        }
        count += 1;
        let NamespacedName { namespace, name } = name;
        if let Some(spec) = fix.policy {
            let called = if fix.beside {
                format!("{name}-snippets")
            } else {
                name.to_string()
            };
            let mut policy = RoutePolicy::new(&called, spec);
            policy.metadata.namespace = Some(namespace.to_string());
            let file = PathBuf::from(format!("{namespace}.{name}.policy.yaml"));
            let _ = writeln!(commands, "kubectl apply --filename {}", file.display());
            files.push((file, yaml(&policy)?));
        }
        let patch = json!({"metadata": {"annotations": fix.annotations}});
        let file = PathBuf::from(format!("{namespace}.{name}.patch.yaml"));
        let _ = writeln!(
            commands,
            "kubectl patch ingress {name} --namespace {namespace} --type merge --patch-file {}",
            file.display()
        );
        files.push((file, yaml(&patch)?));
    }
    if count > 0 {
        files.push((PathBuf::from("commands.txt"), commands));
    }
    let failed = |source: io::Error| MigrateError::Fix {
        folder: folder.to_owned(),
        source,
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    for (file, text) in files {
        std::fs::write(folder.join(file), text).map_err(failed)?;
    }
    Ok(count)
}

fn yaml(value: &impl serde::Serialize) -> Result<String, MigrateError> {
    // By way of JSON, which leaves out what is not there.
    let value: Value = serde_json::to_value(value)?;
    serde_saphyr::to_string(&value).map_err(|error| MigrateError::Yaml(error.to_string()))
}

/// Is it a name that an API server accepts? Others, which only files can have, must not get into names of files and
/// into commands.
fn is_plain(name: &NamespacedName) -> bool {
    [&name.namespace, &name.name].iter().all(|text| {
        let plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
        text.bytes().all(plain) && text.starts_with(|c: char| c.is_ascii_alphanumeric())
    })
}

fn fix(name: &NamespacedName, ingress: &Ingress, prefixes: &[String]) -> Fix {
    let mut fix = Fix::default();
    let Some(given) = &ingress.metadata.annotations else {
        return fix;
    };
    for (full, text) in given {
        let found = prefixes.iter().find_map(|prefix| {
            let short = full.strip_prefix(prefix.as_str())?.strip_prefix('/')?;
            Some((prefix, short))
        });
        let Some((prefix, short)) = found else {
            continue;
        };
        if let Some(spec) = translate::replacement(short, text) {
            let policy = fix.policy.get_or_insert_default();
            translate::merge(policy, spec);
            fix.annotations.insert(full.clone(), None);
        } else if let Some(meant) = annotation::meant_by(short) {
            fix.annotations.insert(full.clone(), None);
            let meant = format!("{prefix}/{}", meant.name);
            if !given.contains_key(&meant) {
                fix.annotations.insert(meant, Some(text.clone()));
            }
        }
    }
    let annotation = format!(
        "{}{}",
        crds::ANNOTATION_PREFIX,
        crds::ROUTE_POLICY_ANNOTATION
    );
    fix.beside = given.contains_key(&annotation);
    match &mut fix.policy {
        // It does only what is so anyway.
        Some(policy) if *policy == RoutePolicySpec::default() => fix.policy = None,
        Some(policy) if fix.beside => policy.target_refs.push(TargetRef {
            group: "networking.k8s.io".to_owned(),
            kind: "Ingress".to_owned(),
            name: name.name.to_string(),
        }),
        Some(_) => {
            fix.annotations
                .insert(annotation, Some(name.name.to_string()));
        }
        None => {}
    }
    fix
}
