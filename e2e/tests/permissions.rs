//! Runs after all the features and compares what Lockgate was granted with what it did.
//!
//! Started by `e2e/cluster/run.sh`.

use std::collections::BTreeSet;
use std::io::Write as _;

use anyhow::{Result, ensure};
use e2e::audit;
use e2e::cluster::Access;
use e2e::lockgate::Installation;
use serde_json::Value;

#[tokio::test]
async fn lockgate_did_only_what_it_was_granted() -> Result<()> {
    let access = Access::shared()?;
    let installation = Installation::read(&access).await?;
    let audit = access.audit()?;
    let user = installation.user();
    let forbidden = audit.forbidden(&user);
    ensure!(
        forbidden.is_empty(),
        "the shipped RBAC does not allow: {}",
        forbidden.join("; ")
    );

    let done = audit.used(&user);
    let granted = granted(&access, &installation).await?;
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
    let unused: Vec<String> = granted
        .difference(&done)
        .map(|access| format!("  {access}\n"))
        .collect();
    let mut report = std::io::stderr();
    writeln!(
        report,
        "permissions: {} granted, {} of them used",
        granted.len(),
        granted.len() - unused.len()
    )?;
    if !unused.is_empty() {
        write!(
            report,
            "granted, but not used in this run:\n{}",
            unused.concat()
        )?;
    }
    Ok(())
}

/// What the roles that are bound to the `ServiceAccount` allow.
async fn granted(access: &Access, installation: &Installation) -> Result<BTreeSet<audit::Access>> {
    let kinds = "clusterrolebindings,rolebindings,clusterroles,roles";
    let list = access
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
                && text(subject, "/name") == installation.service_account
                && text(subject, "/namespace") == installation.namespace
        });
        let roles = items.iter().filter(|role| {
            ours && text(role, "/kind") == text(binding, "/roleRef/kind")
                && text(role, "/metadata/name") == text(binding, "/roleRef/name")
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
