//! Another Lockgate, in the namespace of a test, with other flags.
//!
//! It is what `config/default` makes of the shipped files, in another namespace, with its own class, controller name and
//! Lease, so that it leaves the installed one and other tests alone.

use std::path::Path;
use std::sync::atomic::Ordering;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Gateway, ROLLOUT, Space, check_forbidden};

/// How the other installation differs.
#[derive(Debug, Default)]
pub struct Second<'a> {
    /// Flags that replace those of the shipped Deployment, as `--name=value` or `--name`.
    pub flags: &'a [&'a str],
    /// The namespaces whose objects its `ServiceAccount` may see; where none is named, those of the whole cluster.
    pub only: &'a [&'a str],
}

impl Second<'_> {
    /// Its class, in the namespace of `space`.
    pub fn class(space: &Space) -> String {
        format!("lockgate-{}", space.namespace)
    }

    /// Installs it and waits until it is ready and has an address.
    pub async fn install(&self, space: &Space) -> Result<Gateway> {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/default");
        let folder = config.display().to_string();
        let render = [
            "create",
            "--dry-run=client",
            "--output=json",
            "--kustomize",
            &folder,
        ];
        let shipped = space.cluster.kubectl.run(&render).await?;
        let image = installed_image(space).await?;
        let mut objects = Vec::new();
        // One object after the other.
        for object in serde_json::Deserializer::from_str(&shipped).into_iter::<Value>() {
            objects.extend(self.adapt(space, &object?, &image)?);
        }
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        // Said before it is complete, so that a failure shows its logs.
        space.second.store(true, Ordering::SeqCst);
        space.apply(&list.to_string()).await?;
        Gateway::find(&space.cluster.kubectl, &space.namespace).await
    }

    /// Removes what is outside the namespace. Nothing may have been forbidden.
    pub(super) async fn uninstall(space: &Space) -> Result<()> {
        let namespace = &space.namespace;
        let deployment = ["delete", "deployment", "lockgate", "--cascade=foreground"];
        space.wait(ROLLOUT, &deployment).await?;
        let user = format!("system:serviceaccount:{namespace}:lockgate");
        check_forbidden(&space.cluster, &user)?;
        let kinds = "clusterroles,clusterrolebindings,ingressclasses";
        let selector = format!("--selector=e2e={}", Self::class(space));
        space
            .cluster
            .kubectl
            .run(&["delete", kinds, &selector])
            .await?;
        Ok(())
    }

    fn adapt(&self, space: &Space, object: &Value, image: &str) -> Result<Vec<Value>> {
        let namespace = space.namespace.as_str();
        let name = Self::class(space);
        let mut object = object.clone();
        let kind = object
            .get("kind")
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned();
        set(&mut object, "/metadata/labels/e2e", json!(name))?;
        match kind.as_str() {
            // They are there already.
            "Namespace" | "CustomResourceDefinition" => return Ok(Vec::new()),
            "IngressClass" => {
                set(&mut object, "/metadata/name", json!(name))?;
                set(
                    &mut object,
                    "/spec/controller",
                    json!(controller(namespace)),
                )?;
            }
            "ClusterRole" => {
                set(&mut object, "/metadata/name", json!(name))?;
                if !self.only.is_empty() {
                    return Ok(vec![classes_only(&object, &name)?, object]);
                }
            }
            "ClusterRoleBinding" => {
                set(&mut object, "/metadata/name", json!(name))?;
                set(&mut object, "/roleRef/name", json!(name))?;
                set(&mut object, "/subjects/0/namespace", json!(namespace))?;
                if !self.only.is_empty() {
                    return self.bind_where_it_watches(&object, &name);
                }
            }
            "RoleBinding" => {
                set(&mut object, "/metadata/namespace", json!(namespace))?;
                set(&mut object, "/subjects/0/namespace", json!(namespace))?;
            }
            "Deployment" => {
                set(&mut object, "/metadata/namespace", json!(namespace))?;
                set(&mut object, "/spec/replicas", json!(1))?;
                let container = "/spec/template/spec/containers/0";
                set(&mut object, &format!("{container}/image"), json!(image))?;
                let given = object.pointer(&format!("{container}/args")).cloned();
                let arguments = self.arguments(&given.unwrap_or_default(), space);
                set(&mut object, &format!("{container}/args"), json!(arguments))?;
            }
            _ => set(&mut object, "/metadata/namespace", json!(namespace))?,
        }
        Ok(vec![object])
    }

    /// The shipped arguments with what has to differ, and with the test's own flags.
    fn arguments(&self, shipped: &Value, space: &Space) -> Vec<String> {
        let namespace = &space.namespace;
        let own = [
            format!("--ingress-class={}", Self::class(space)),
            format!("--controller-name={}", controller(namespace)),
            format!("--configmap={namespace}/lockgate"),
            format!("--publish-service={namespace}/lockgate"),
            // Nobody waits for the end of its requests.
            "--shutdown-delay=0s".to_owned(),
            "--drain-timeout=5s".to_owned(),
        ];
        let wanted: Vec<String> = self.flags.iter().map(|&flag| flag.to_owned()).collect();
        let name = |flag: &str| flag.split('=').next().unwrap_or_default().to_owned();
        let mut arguments: Vec<String> = Vec::new();
        let shipped = shipped.as_array().into_iter().flatten();
        let shipped = shipped.filter_map(Value::as_str).map(str::to_owned);
        for group in [shipped.collect(), own.to_vec(), wanted] {
            arguments.retain(|before| !group.iter().any(|flag| name(flag) == name(before)));
            arguments.extend(group);
        }
        arguments
    }

    /// A Role's worth of the cluster's permissions: what is in the watched namespaces there, the classes everywhere.
    fn bind_where_it_watches(&self, binding: &Value, name: &str) -> Result<Vec<Value>> {
        let mut classes = binding.clone();
        set(
            &mut classes,
            "/metadata/name",
            json!(format!("{name}-classes")),
        )?;
        set(
            &mut classes,
            "/roleRef/name",
            json!(format!("{name}-classes")),
        )?;
        let mut bindings = vec![classes];
        for namespace in self.only {
            let mut inside = binding.clone();
            set(&mut inside, "/kind", json!("RoleBinding"))?;
            set(&mut inside, "/metadata/namespace", json!(namespace))?;
            bindings.push(inside);
        }
        Ok(bindings)
    }
}

/// The `spec.controller` of the class that a test's own installation serves.
fn controller(namespace: &str) -> String {
    format!("lockgate.dev/{namespace}")
}

/// The part of the shipped `ClusterRole` that is about objects without a namespace.
fn classes_only(role: &Value, name: &str) -> Result<Value> {
    let mut role = role.clone();
    let rules = role.pointer("/rules").and_then(Value::as_array);
    let of_cluster = [
        "ingressclasses",
        "gatewaypolicies",
        "gatewaypolicies/status",
    ];
    let about_classes = |rule: &&Value| {
        let resources = rule.get("resources");
        of_cluster
            .iter()
            .any(|name| resources == Some(&json!([name])))
    };
    let kept: Vec<Value> = rules
        .into_iter()
        .flatten()
        .filter(about_classes)
        .cloned()
        .collect();
    set(&mut role, "/rules", json!(kept))?;
    set(
        &mut role,
        "/metadata/name",
        json!(format!("{name}-classes")),
    )?;
    Ok(role)
}

/// The image of the installed Lockgate.
async fn installed_image(space: &Space) -> Result<String> {
    let output = "--output=jsonpath={.spec.template.spec.containers[0].image}";
    let arguments = ["get", "deployment", "lockgate", output];
    space.gateway.kubectl(&arguments).await
}

/// Sets a field of an object; the object around it has to be there.
fn set(object: &mut Value, pointer: &str, value: Value) -> Result<()> {
    let (around, field) = pointer.rsplit_once('/').context("not a pointer")?;
    let around = object
        .pointer_mut(around)
        .with_context(|| format!("no {around}"))?;
    match around {
        Value::Object(fields) => fields.insert(field.to_owned(), value),
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            anyhow::bail!("{pointer} is no field")
        }
    };
    Ok(())
}
