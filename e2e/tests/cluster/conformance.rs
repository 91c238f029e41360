//! The 30 runs of the public conformance suite for Ingress controllers, written anew from what its features demand, each
//! feature behind an installation of its own: the suite's Ingresses claim every host and name no class.
//!
//! Each run is made twice: with what is shipped, and with the profile of settings that docs/conformance.md lists. That
//! page is a result of this test; `LOCKGATE_WRITE_DOCS=1` writes it.

mod page;
mod suite;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use e2e::client::Client;
use e2e::space::{Gateway, Second, Space, origin_manifests};
use e2e::wait::{SOON, eventually};
use http::Request;
use hyper::body::Bytes;
use serde_json::{Value, json};

use suite::{Case, Feature};

/// What a run showed.
struct Outcome {
    case: &'static Case,
    /// With the settings of the profile.
    profile: String,
    /// With what is shipped.
    shipped: String,
}

/// The settings that differ from what is shipped, for the `ConfigMap`; an Ingress without a class is served too.
const PROFILE: [(&str, &str); 2] = [("server-tokens", "true"), ("ssl-redirect", "false")];

#[tokio::test]
async fn all_runs_of_the_public_suite_pass_and_the_page_says_so() -> Result<()> {
    let (paths, hosts, fallback) = tokio::join!(
        path_rules(),
        host_rules_and_class(),
        default_backend_and_load_balancing(),
    );
    let outcomes = [paths?, hosts?, fallback?].concat_outcomes();
    ensure!(outcomes.len() == 30, "{} runs", outcomes.len());
    let page = page::render(&outcomes)?;
    let failed: Vec<String> = outcomes
        .iter()
        .filter(|outcome| outcome.profile != outcome.case.expected)
        .map(|outcome| {
            let case = outcome.case;
            format!(
                "{} {}: {}, not {}",
                case.method, case.url, outcome.profile, case.expected
            )
        })
        .collect();
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    e2e::cluster::note("conformance: 30 of 30 runs pass")?;

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/conformance.md");
    if std::env::var_os("LOCKGATE_WRITE_DOCS").is_some() {
        std::fs::write(&path, &page)?;
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    ensure!(
        kept == page,
        "docs/conformance.md is not what this run showed: run `make conformance`\n{page}"
    );
    Ok(())
}

/// One list of several.
trait Concat {
    fn concat_outcomes(self) -> Vec<Outcome>;
}

impl<const N: usize> Concat for [Vec<Outcome>; N] {
    fn concat_outcomes(self) -> Vec<Outcome> {
        self.into_iter().flatten().collect()
    }
}

/// An installation for one feature.
struct Stage {
    space: Space,
    gateway: Gateway,
    client: Client,
}

impl Stage {
    async fn new(name: &str) -> Result<Self> {
        let space = Space::new(name).await?;
        let watch = format!("--watch-namespace={}", space.namespace);
        let second = Second {
            flags: &[&watch, "--watch-ingress-without-class"],
            only: &[&space.namespace],
        };
        let gateway = second.install(&space).await?;
        let client = space.client_of(&gateway)?;
        Ok(Self {
            space,
            gateway,
            client,
        })
    }

    async fn services(&self, names: &[&str]) -> Result<()> {
        for name in names {
            let manifests = origin_manifests(name, 1).to_string();
            self.space.apply(&manifests).await?;
        }
        for name in names {
            self.space.rolled_out(name).await?;
        }
        Ok(())
    }

    /// Applies an Ingress, with the class of this installation or, as the suite does, without any, and waits until the
    /// status shows the address.
    async fn ingress(&self, name: &str, spec: &Value, with_class: bool) -> Result<()> {
        let mut spec = spec.clone();
        if let (true, Value::Object(fields)) = (with_class, &mut spec) {
            fields.insert(
                "ingressClassName".to_owned(),
                Second::class(&self.space).into(),
            );
        }
        // Anew each time, so that the address is written each time.
        let delete = ["delete", "ingress", name, "--ignore-not-found"];
        self.space.kubectl(&delete).await?;
        let manifest = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": name}, "spec": spec,
        });
        self.space.apply(&manifest.to_string()).await?;
        let address = self.gateway.address.to_string();
        self.space.has_addresses(name, &[&address]).await
    }

    /// Switches the profile on and waits until it is in force: `url` is one that a backend answers.
    async fn profile(&self, url: &str) -> Result<()> {
        let data: Value = PROFILE
            .iter()
            .map(|&(key, value)| (key.to_owned(), value))
            .collect();
        self.space
            .patch("configmap/lockgate", &json!({"data": data}))
            .await?;
        eventually("the profile is in force", SOON, async || {
            let reply = self.client.get(url).await?;
            ensure!(!reply.header("server").is_empty(), "{:?}", reply.headers);
            Ok(())
        })
        .await
    }

    /// Sends the request of every case.
    async fn observe(&self, cases: &[&'static Case]) -> Result<Vec<String>> {
        let mut seen = Vec::new();
        for case in cases {
            seen.push(self.send(case).await.with_context(|| case.url)?);
        }
        Ok(seen)
    }

    /// What a request shows, in the words of [`Case::expected`].
    async fn send(&self, case: &Case) -> Result<String> {
        // A request for no host of its own is for the address.
        let url = case
            .url
            .replace("ADDRESS", &self.gateway.address.to_string());
        let request = Request::builder()
            .method(case.method)
            .uri(&url)
            .header("user-agent", "conformance/1")
            .body(Bytes::new())?;
        let reply = self.client.send(request).await?;
        let status = reply.status.as_u16();
        if status != 200 {
            return Ok(status.to_string());
        }
        let seen = reply.json()?;
        let text = |pointer: &str| seen.pointer(pointer).and_then(Value::as_str).unwrap_or("");
        let mut shown = format!("200 from {}", text("/service"));
        let uri: http::Uri = url.parse()?;
        for (what, found, sent) in [
            ("host", text("/host"), uri.host().unwrap_or("")),
            ("path", text("/path"), uri.path()),
            ("method", text("/method"), case.method),
            ("protocol", text("/protocol"), "HTTP/1.1"),
            ("User-Agent", text("/headers/user-agent/0"), "conformance/1"),
        ] {
            if found != sent {
                write!(shown, ", {what} {found}")?;
            }
        }
        if case.feature == Feature::DefaultBackend {
            for name in ["Content-Length", "Content-Type", "Date", "Server"] {
                if reply.header(name).is_empty() {
                    write!(shown, ", no {name}")?;
                }
            }
        }
        Ok(shown)
    }
}

fn outcomes(cases: Vec<&'static Case>, shipped: Vec<String>, profile: Vec<String>) -> Vec<Outcome> {
    let seen = shipped.into_iter().zip(profile);
    let both = cases.into_iter().zip(seen);
    both.map(|(case, (shipped, profile))| Outcome {
        case,
        profile,
        shipped,
    })
    .collect()
}

async fn path_rules() -> Result<Vec<Outcome>> {
    let stage = Stage::new("conformance-paths").await?;
    stage.services(&suite::PATH_SERVICES).await?;
    let cases = Feature::PathRules.cases();
    let spec = suite::path_rules();
    let url = "http://prefix.paths.example.com/foo";
    stage.ingress("path-rules", &spec, true).await?;
    let shipped = stage.observe(&cases).await?;
    stage.profile(url).await?;
    stage.ingress("path-rules", &spec, false).await?;
    let profile = stage.observe(&cases).await?;
    stage.space.finish().await?;
    Ok(outcomes(cases, shipped, profile))
}

async fn host_rules_and_class() -> Result<Vec<Outcome>> {
    let stage = Stage::new("conformance-hosts").await?;
    stage.services(&suite::HOST_SERVICES).await?;
    let space = &stage.space;
    let identity = space.authority.site(&[suite::TLS_HOST])?;
    space.certificate("conformance-tls", &identity).await?;
    let cases = Feature::HostRules.cases();
    let spec = suite::host_rules();
    let url = format!("https://{}/", suite::TLS_HOST);
    stage.ingress("host-rules", &spec, true).await?;
    space.answers_of(&stage.client, &url, 200).await?;
    let shipped = stage.observe(&cases).await?;
    let shipped_class = unknown_class(&stage, &spec, true).await?;
    stage.profile(&url).await?;
    stage.ingress("host-rules", &spec, false).await?;
    space.answers_of(&stage.client, &url, 200).await?;
    let profile = stage.observe(&cases).await?;
    let class = unknown_class(&stage, &spec, false).await?;
    stage.space.finish().await?;

    let mut list = outcomes(cases, shipped, profile);
    let cases = Feature::IngressClass.cases();
    list.extend(outcomes(cases, vec![shipped_class], vec![class]));
    Ok(list)
}

/// The status of an Ingress whose class nobody knows, after that of a younger Ingress of ours was written.
async fn unknown_class(stage: &Stage, spec: &Value, with_class: bool) -> Result<String> {
    let space = &stage.space;
    let class = json!({"ingressClassName": "some-class-that-is-not-there"});
    space
        .ingress("unknown", "unknown.class.example.com", "wildcard", &class)
        .await?;
    stage.ingress("host-rules", spec, with_class).await?;
    let addresses = space.addresses("unknown").await?;
    Ok(if addresses.is_empty() {
        "no address".to_owned()
    } else {
        addresses.join(", ")
    })
}

async fn default_backend_and_load_balancing() -> Result<Vec<Outcome>> {
    let stage = Stage::new("conformance-default").await?;
    stage.services(&["echo"]).await?;
    let cases = Feature::DefaultBackend.cases();
    let spec = suite::default_backend();
    let url = "http://any.example.com/";
    stage.ingress("default-backend", &spec, true).await?;
    let shipped = stage.observe(&cases).await?;

    let scale = ["scale", "deployment/echo", "--replicas=10"];
    stage.space.kubectl(&scale).await?;
    stage.space.rolled_out("echo").await?;
    let shipped_pods = hundred_requests(&stage).await?;

    stage.profile(url).await?;
    stage.ingress("default-backend", &spec, false).await?;
    let profile = stage.observe(&cases).await?;
    let pods = hundred_requests(&stage).await?;
    stage.space.finish().await?;

    let mut list = outcomes(cases, shipped, profile);
    let cases = Feature::LoadBalancing.cases();
    list.extend(outcomes(cases, vec![shipped_pods], vec![pods]));
    Ok(list)
}

/// How many pods answer a hundred requests; repeated while the tenth has not been heard of yet.
async fn hundred_requests(stage: &Stage) -> Result<String> {
    let mut shown = String::new();
    let waited = eventually("ten pods answer", SOON, async || {
        let mut pods = BTreeSet::new();
        for _ in 0..100 {
            let reply = stage
                .client
                .get("http://load-balancing.example.com/")
                .await?;
            ensure!(reply.status == 200, "{}", reply.status);
            pods.insert(reply.pod().to_owned());
        }
        shown = format!("{} pods", pods.len());
        ensure!(pods.len() == 10, "{shown}");
        Ok(())
    })
    .await;
    // Fewer pods are a result, anything else is none.
    if shown.is_empty() {
        waited?;
    }
    Ok(shown)
}
