//! Runs after all the tests of the cluster tier and compares what Lockgate was granted with what it did: nothing may have
//! been refused, and nothing granted in vain.
//!
//! Started by `e2e/cluster/run.sh`.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use e2e::audit;
use e2e::cluster::{Running, note};
use serde_json::Value;

/// Where it is installed, and as whom.
const NAMESPACE: &str = "lockgate";
const SERVICE_ACCOUNT: &str = "lockgate";

#[tokio::test]
async fn lockgate_did_all_and_only_what_it_was_granted() -> Result<()> {
    let cluster = Running::from_environment()?;
    let Some(audit) = cluster.audit()? else {
        eprintln!("skipped: this cluster keeps no audit log for the tests");
        return Ok(());
    };
    let user = format!("system:serviceaccount:{NAMESPACE}:{SERVICE_ACCOUNT}");
    let forbidden = audit.forbidden(&user);
    ensure!(
        forbidden.is_empty(),
        "the shipped RBAC does not allow: {}",
        forbidden.join("; ")
    );

    let done = audit.used(&user);
    let granted = granted(&cluster).await?;
    // Otherwise the audit log, or the user's name, is not what this test takes it for.
    for (group, resource, verb) in [
        ("networking.k8s.io", "ingresses", "watch"),
        ("networking.k8s.io", "ingresses/status", "patch"),
        ("", "secrets", "list"),
    ] {
        let expected = audit::Access {
            group: group.to_owned(),
            resource: resource.to_owned(),
            verb: verb.to_owned(),
        };
        ensure!(done.contains(&expected), "{expected} was never asked for");
        ensure!(granted.contains(&expected), "{expected} is not granted");
    }
    let unused: Vec<String> = granted.difference(&done).map(ToString::to_string).collect();
    ensure!(
        unused.is_empty(),
        "granted and never used: {}. Every test of the cluster tier has to have run before this one",
        unused.join("; ")
    );
    note(&format!(
        "permissions: {} granted, all of them used, nothing refused",
        granted.len()
    ))
}

/// What the roles that are bound to the `ServiceAccount` allow.
async fn granted(cluster: &Running) -> Result<BTreeSet<audit::Access>> {
    let kinds = "clusterrolebindings,rolebindings,clusterroles,roles";
    let list = cluster
        .kubectl
        .json(&["get", kinds, "--all-namespaces"])
        .await?;
    let items: Vec<&Value> = array(&list, "/items").collect();
    let text = |value: &Value, pointer: &str| {
        value
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let mut granted = BTreeSet::new();
    for binding in &items {
        let ours = array(binding, "/subjects").any(|subject| {
            text(subject, "/kind") == "ServiceAccount"
                && text(subject, "/name") == SERVICE_ACCOUNT
                && text(subject, "/namespace") == NAMESPACE
        });
        let roles = items.iter().filter(|role| {
            let bound = binding.pointer("/metadata/namespace");
            ours && text(role, "/kind") == text(binding, "/roleRef/kind")
                && text(role, "/metadata/name") == text(binding, "/roleRef/name")
                && (text(role, "/kind") == "ClusterRole"
                    || role.pointer("/metadata/namespace") == bound)
        });
        for rule in roles.flat_map(|role| array(role, "/rules")) {
            for group in array(rule, "/apiGroups") {
                for resource in array(rule, "/resources") {
                    for verb in array(rule, "/verbs") {
                        granted.insert(audit::Access {
                            group: text(group, ""),
                            resource: text(resource, ""),
                            verb: text(verb, ""),
                        });
                    }
                }
            }
        }
    }
    Ok(granted)
}

fn array<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}
