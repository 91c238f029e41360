//! What is shipped runs with as little power as it can: in the manifests, and in the image.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, and a broken manifest should say where"
)]

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(file: &str) -> String {
    let path = root().join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file of `config` that has manifests or patches, with its documents.
fn configuration() -> Vec<(PathBuf, Vec<Value>)> {
    fn search(folder: &Path, found: &mut Vec<(PathBuf, Vec<Value>)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                search(&path, found);
            } else if path.extension().is_some_and(|end| end == "yaml") {
                let text = std::fs::read_to_string(&path).unwrap();
                let documents = serde_saphyr::from_multiple(&text)
                    .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                found.push((path, documents));
            }
        }
    }
    let mut found = Vec::new();
    search(&root().join("config"), &mut found);
    found
}

/// Calls `look` with every field at any depth; text that is YAML itself (a patch of kustomize) is looked into.
fn each_field(value: &Value, look: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                look(name, field);
                each_field(field, look);
            }
        }
        Value::Array(list) => list.iter().for_each(|item| each_field(item, look)),
        Value::String(text) if text.contains('\n') => {
            if let Ok(inner @ (Value::Object(_) | Value::Array(_))) = serde_saphyr::from_str(text) {
                each_field(&inner, look);
            }
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// What is wrong with a field, if anything.
fn weakens(name: &str, value: &Value) -> bool {
    let is = |wanted: Value| *value == wanted;
    match name {
        "privileged"
        | "hostNetwork"
        | "hostPID"
        | "hostIPC"
        | "allowPrivilegeEscalation"
        | "shareProcessNamespace" => !is(json!(false)),
        "runAsNonRoot" | "readOnlyRootFilesystem" => !is(json!(true)),
        "runAsUser" | "runAsGroup" => is(json!(0)),
        "seccompProfile" => value.pointer("/type") != Some(&json!("RuntimeDefault")),
        "capabilities" => !is(json!({"drop": ["ALL"]})),
        "hostPath"
        | "procMount"
        | "volumes"
        | "volumeMounts"
        | "volumeDevices"
        | "ephemeralContainers"
        | "initContainers"
        | "lifecycle"
        | "sysctls" => true,
        // A patch of kustomize (JSON Patch) names what it changes by its path.
        "path" => value.as_str().is_some_and(|path| {
            path.contains("securityContext") || path.contains("serviceAccount")
        }),
        _ => false,
    }
}

#[test]
fn the_deployment_runs_with_as_little_as_it_can() {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(&read("config/manager/deployment.yaml")).unwrap();
    let pod = documents[0].pointer("/spec/template/spec").unwrap();
    let of_pod = pod.get("securityContext").unwrap();
    assert_eq!(of_pod["runAsNonRoot"], json!(true));
    assert_eq!(of_pod["runAsUser"], json!(65532));
    assert_eq!(of_pod["runAsGroup"], json!(65532));
    assert_eq!(of_pod["seccompProfile"], json!({"type": "RuntimeDefault"}));
    let containers = pod.get("containers").and_then(Value::as_array).unwrap();
    let [container] = containers.as_slice() else {
        panic!("one container: {containers:?}");
    };
    let expected = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    });
    assert_eq!(container["securityContext"], expected);
    let limit = container.pointer("/resources/limits/memory");
    assert!(limit.is_some(), "memory has a limit");
    // Ports below 1024 would need a capability.
    for port in container["ports"].as_array().unwrap() {
        assert!(port["containerPort"].as_u64().unwrap() >= 1024, "{port}");
    }
}

#[test]
fn the_namespace_admits_restricted_pods_only() {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(&read("config/manager/namespace.yaml")).unwrap();
    let labels = documents[0].pointer("/metadata/labels").unwrap();
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "restricted");
}

#[test]
fn nothing_that_is_shipped_weakens_it() {
    let files = configuration();
    assert!(files.len() > 15, "they were looked for in the wrong place");
    for (file, documents) in &files {
        for document in documents {
            each_field(document, &mut |name, value| {
                assert!(
                    !weakens(name, value),
                    "{}: `{name}: {value}` weakens what the Deployment has",
                    file.display()
                );
            });
        }
    }
}

#[test]
fn what_weakens_is_recognised_also_inside_a_patch() {
    for (weak, text) in [
        (true, "spec: {hostNetwork: true}"),
        (
            true,
            "a: [{securityContext: {capabilities: {drop: [ALL], add: [NET_ADMIN]}}}]",
        ),
        (
            true,
            "securityContext: {seccompProfile: {type: Unconfined}}",
        ),
        (true, "securityContext: {runAsUser: 0}"),
        (true, "spec: {volumes: [{hostPath: {path: /}}]}"),
        (
            true,
            "patches:\n- patch: |\n    - op: remove\n      path: /spec/template/spec/securityContext\n",
        ),
        (
            true,
            "patches:\n- patch: |\n    spec:\n      hostPID: true\n",
        ),
        (
            false,
            "securityContext: {runAsUser: 65532, runAsNonRoot: true}",
        ),
        (
            false,
            "patches:\n- patch: |\n    - op: add\n      path: /spec/replicas\n",
        ),
    ] {
        let value: Value = serde_saphyr::from_str(text).unwrap();
        let mut found = false;
        each_field(&value, &mut |name, field| found |= weakens(name, field));
        assert_eq!(found, weak, "{text}");
    }
}

/// No shell, no package manager, no other user: the binary and the certificate authorities.
#[test]
fn the_image_holds_the_binary_and_the_authorities_and_nothing_else() {
    let file = read("Dockerfile");
    let last = file.rsplit("\nFROM ").next().unwrap();
    assert!(last.starts_with("scratch\n"), "the last stage: {last}");
    let with = |word: &str| -> Vec<&str> {
        let lines = last.lines().filter_map(|line| line.strip_prefix(word));
        lines.map(str::trim).collect()
    };
    let targets: Vec<&str> = with("COPY ")
        .into_iter()
        .filter_map(|line| line.rsplit(' ').next())
        .collect();
    assert_eq!(targets, ["/etc/ssl/certs/ca-certificates.crt", "/lockgate"]);
    assert_eq!(with("USER "), ["65532:65532"]);
    assert_eq!(with("ENTRYPOINT "), ["[\"/lockgate\"]"]);
    for word in ["RUN ", "ADD ", "VOLUME ", "SHELL "] {
        assert!(with(word).is_empty(), "{word}");
    }
}
