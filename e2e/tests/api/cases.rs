//! The cases of `e2e/cases`, against an API server: what it accepts is answered as they say.
//!
//! Objects that the API server itself refuses (a host that is none, a path without a slash) never reach a controller, and
//! it writes the times of their creation itself: only a folder shows what becomes of such cases.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::lockgate::{Installation, Lockgate};
use e2e::origin::Origin;
use e2e::scene::Scene;
use e2e::wait::{SOON, eventually};
use serde_json::Value;

#[expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "cases that cannot be read end the test"
)]
#[path = "../../cases/runner.rs"]
mod shared;

/// The ConfigMaps with headers that cases name.
const HEADERS: [&str; 7] = [
    "broken", "frame", "nowhere", "other", "question", "request", "response",
];

/// Cases that depend on which of two Ingresses is older, against the order of their names.
const BY_AGE: [&str; 1] = ["an Ingress of another namespace does not decide"];

/// Cases speak of clients on loopback.
const GATEWAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);

/// How long kinds that are watched one by one may differ. What is wrong stays wrong.
const SETTLED: Duration = Duration::from_secs(5);

#[tokio::test]
async fn every_case_is_answered_as_it_says() -> Result<()> {
    let scene = Scene::new("test").await?;
    let kubectl = &scene.access.kubectl;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let files = shared::read(&folder);
    for namespace in namespaces(&files) {
        kubectl.run(&["create", "namespace", namespace]).await?;
    }
    let definition = include_str!("../reference-grant.yaml");
    kubectl
        .run_with_input(&["apply", "--filename", "-"], definition)
        .await?;
    for kind in [
        "referencegrants.gateway.networking.k8s.io",
        "gatewaypolicies.lockgate.dev",
        "routepolicies.lockgate.dev",
    ] {
        let established = [
            "wait",
            "--for=condition=Established",
            &format!("crd/{kind}"),
        ];
        kubectl.run(&established).await?;
    }
    // An address on which nothing else listens on this machine.
    let origin = Origin::start("marker").await?;
    let backends = shared::Backends::start(origin.address()).await;
    scene.service("marker", &[&origin]).await?;
    for (name, ports) in &backends.services {
        scene
            .apply(&service(name, ports, &origin.address().to_string()))
            .await?;
    }
    let listen = format!("0.0.0.0:{}", GATEWAY.port());
    may_read_headers(&scene).await?;
    let headers = HEADERS.map(|name| format!("test/{name}")).join(",");
    let flags = [
        ("--http-listen", listen.as_str()),
        ("--header-configmaps", &headers),
    ];
    let gateway = scene.lockgate("cases-0", &flags).await?;
    let (mut cases, mut requests, mut refused, mut failures) = (0, 0, 0, String::new());
    for (round, file) in files.into_iter().enumerate() {
        let start = Instant::now();
        let accepted = apply(&scene, &file.cases).await?;
        let applied = start.elapsed();
        refused += file.cases.len() - accepted.len();
        settle(&scene, &gateway, round).await?;
        for case in &accepted {
            cases += 1;
            requests += case.requests.len();
            let found = answered(&gateway, case).await?;
            if !found.is_empty() {
                let name = file.path.display();
                writeln!(failures, "{name}: {}\n{found}", case.name)?;
            }
        }
        eprintln!(
            "{}: {} of {} cases applied after {applied:.1?}, answered after {:.1?}",
            file.path.display(),
            accepted.len(),
            file.cases.len(),
            start.elapsed()
        );
        for kind in ["ingresses", "routepolicies", "referencegrants"] {
            let all = ["delete", kind, "--all", "--all-namespaces", "--wait=false"];
            kubectl.run_within(APPLYING, &all, "").await?;
        }
        // Those belong to no namespace, and bind the hosts of the files that follow until they are gone.
        let all = ["delete", "gatewaypolicies", "--all"];
        kubectl.run_within(APPLYING, &all, "").await?;
        if file
            .cases
            .iter()
            .any(|case| case.manifest.contains(SETTINGS))
        {
            Installation::apply(&scene.access).await?;
        }
    }
    // As it was, for the tests that follow.
    let definition = ["delete", "crd/referencegrants.gateway.networking.k8s.io"];
    kubectl.run(&definition).await?;
    ensure!(failures.is_empty(), "\n{failures}");
    ensure!(
        cases > 9 * refused,
        "{refused} cases cannot be told to an API server, {cases} can"
    );
    eprintln!(
        "{cases} cases with {requests} requests; {refused} others cannot be told to an API server"
    );
    scene.finish([gateway]).await
}

/// The namespaces that cases use besides `test`.
fn namespaces(files: &[shared::CaseFile]) -> BTreeSet<&str> {
    let cases = files.iter().flat_map(|file| &file.cases);
    let named = cases.flat_map(|case| case.manifest.split("namespace: ").skip(1));
    let name = |text: &'_ str| {
        let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
        end.unwrap_or(text.len())
    };
    named
        .filter_map(|text| text.get(..name(text)))
        .filter(|namespace| *namespace != "test")
        .collect()
}

/// Grants what `--header-configmaps` needs in another namespace.
async fn may_read_headers(scene: &Scene) -> Result<()> {
    let names = HEADERS.join(", ");
    let account = &scene.installation.service_account;
    let namespace = &scene.installation.namespace;
    scene
        .apply(&format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: headers}}\nrules:\n\
             - {{apiGroups: [''], resources: [configmaps], resourceNames: [{names}], verbs: [list, watch]}}\n---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: headers}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: headers}}\n\
             subjects: [{{kind: ServiceAccount, name: {account}, namespace: {namespace}}}]\n"
        ))
        .await
}

/// What of a case is not as it says once everything is there.
async fn answered(gateway: &Lockgate, case: &shared::Case) -> Result<String> {
    let start = Instant::now();
    loop {
        let problems = problems(gateway).await?;
        let found = shared::failures(case, GATEWAY, &problems).await;
        if found.is_empty() || start.elapsed() > SETTLED {
            return Ok(found);
        }
    }
}

/// A Service whose pods listen on different ports of one address.
fn service(name: &str, ports: &[u16], address: &str) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: None, ports: [{{name: web, port: 80}}]}}\n"
    );
    for (number, port) in ports.iter().enumerate() {
        let _ = write!(
            text,
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: {name}-{number}, labels: {{kubernetes.io/service-name: {name}}}}}\n\
             addressType: IPv4\nports: [{{name: web, port: {port}}}]\n\
             endpoints: [{{addresses: [\"{address}\"], conditions: {{ready: true}}}}]\n"
        );
    }
    text
}

/// How long so many objects may take.
const APPLYING: Duration = Duration::from_mins(2);

/// The settings, as a folder has them.
const SETTINGS: &str = "{name: settings, namespace: test}";

/// The manifest for this installation.
fn manifest(scene: &Scene, case: &shared::Case) -> String {
    let namespace = &scene.installation.namespace;
    let settings = format!("{{name: lockgate, namespace: {namespace}}}");
    case.manifest.replace(SETTINGS, &settings)
}

/// Applies the objects of all cases; returns those that the API server takes.
async fn apply<'a>(scene: &Scene, cases: &'a [shared::Case]) -> Result<Vec<&'a shared::Case>> {
    const APPLY: [&str; 3] = ["apply", "--filename", "-"];
    let kubectl = &scene.access.kubectl;
    let by_age = |case: &&shared::Case| BY_AGE.contains(&case.name.as_str());
    let cases: Vec<&shared::Case> = cases.iter().filter(|case| !by_age(case)).collect();
    let all: Vec<String> = cases.iter().map(|case| manifest(scene, case)).collect();
    let all = all.join("\n---\n");
    if kubectl.run_within(APPLYING, &APPLY, &all).await.is_ok() {
        return Ok(cases);
    }
    let mut accepted = Vec::new();
    for case in cases {
        let manifest = manifest(scene, case);
        match kubectl.run_with_input(&APPLY, &manifest).await {
            Ok(_) => accepted.push(case),
            Err(error) => {
                let text = format!("{error:#}");
                let refused = text.contains("is invalid") || text.contains("denied");
                ensure!(refused, "{}: {text}", case.name);
                // What came before the refused object in the same case goes as well.
                let delete = ["delete", "--ignore-not-found", "--filename", "-"];
                kubectl.run_with_input(&delete, &manifest).await?;
            }
        }
    }
    Ok(accepted)
}

/// Waits until everything that was applied is served: an Ingress and a policy that are applied last are told last, and
/// the one needs the other.
async fn settle(scene: &Scene, gateway: &Lockgate, round: usize) -> Result<()> {
    let host = format!("marker-{round}.example.com");
    scene
        .apply(&format!(
            "apiVersion: lockgate.dev/v1alpha1\nkind: RoutePolicy\nmetadata: {{name: marker-{round}}}\n\
             spec: {{responseHeaders: {{set: [{{name: x-marker, value: here}}]}}}}\n---\n\
             apiVersion: networking.k8s.io/v1\nkind: Ingress\n\
             metadata:\n  name: marker-{round}\n  annotations:\n    lockgate.dev/route-policy: marker-{round}\n    \
             nginx.ingress.kubernetes.io/enable-global-auth: 'false'\n    lockgate.dev/accept-without-waf: 'true'\n\
             spec:\n  ingressClassName: lockgate\n  rules:\n  - host: {host}\n    \
             http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: marker, port: {{name: http}}}}}}}}]}}\n"
        ))
        .await?;
    let client = scene.client(gateway)?;
    eventually("the last Ingress is served", SOON, async || {
        let reply = client
            .get(&format!("http://{host}:{}/", GATEWAY.port()))
            .await?;
        ensure!(reply.status == 200, "{}", reply.status);
        Ok(())
    })
    .await
}

async fn problems(gateway: &Lockgate) -> Result<Vec<String>> {
    let page: Value = serde_json::from_str(&gateway.admin("/debug/routes").await?.body)?;
    let problems = page
        .get("problems")
        .and_then(Value::as_array)
        .context("no problems")?;
    let text = |problem: &Value, key: &str| {
        problem
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    Ok(problems
        .iter()
        .map(|problem| {
            let concerns = text(problem, "concerns");
            format!("{concerns}: {}", text(problem, "message"))
        })
        .collect())
}
