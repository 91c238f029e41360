//! The admission webhook, as an API server asks it.

use std::sync::Arc;

use http::{Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use rustls::ClientConfig;
use rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};

use crate::client::{self, Answer};
use crate::manifest::{Authority, ingress, secret, service};
use crate::world::World;

/// As a Service in the namespace of Lockgate is called.
const NAME: &str = "lockgate-admission.lockgate.svc";

struct Webhook {
    world: World,
    client: Arc<ClientConfig>,
}

/// What became of a review.
struct Verdict {
    allowed: bool,
    message: String,
    warnings: Vec<String>,
}

impl Webhook {
    /// With these files beside the certificate and the Service `web`.
    async fn start(files: &[(&str, &str)]) -> Self {
        let authority = Authority::new();
        let certificate = secret("admission", &authority.sign(NAME));
        let web = service("web", &[]);
        let mut all = vec![("admission.yaml", certificate.as_str()), ("web.yaml", &web)];
        all.extend(files);
        let client = client::trusting(authority.roots());
        let world = World::start_with(authority, &all, |settings| {
            settings.listen.admission = Some("127.0.0.1:0".parse().unwrap());
            settings.translation.admission_secret = Some("test/admission".parse().unwrap());
        })
        .await;
        Self { world, client }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let address = self.world.app.admission_address().unwrap();
        client::send_tls(address, &self.client, NAME, request).await
    }

    async fn post(&self, body: impl Into<Bytes>) -> Answer {
        let request = Request::post("/validate")
            .header("host", NAME)
            .header("content-type", "application/json")
            .body(Full::new(body.into()));
        self.send(request.unwrap()).await.unwrap()
    }

    async fn review(&self, review: &Value) -> Verdict {
        let answer = self.post(review.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.header("content-type"), "application/json");
        let answer: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(answer["kind"], "AdmissionReview");
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        let response = &answer["response"];
        assert_eq!(response["uid"], review["request"]["uid"]);
        assert!(response["patch"].is_null());
        let warnings = response["warnings"].as_array();
        let allowed = response["allowed"].as_bool().unwrap();
        if !allowed {
            assert_eq!(response["status"]["code"], 403);
        }
        Verdict {
            allowed,
            message: response["status"]["message"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            warnings: warnings
                .into_iter()
                .flatten()
                .map(|warning| warning.as_str().unwrap().to_owned())
                .collect(),
        }
    }

    async fn create(&self, object: &Value) -> Verdict {
        self.review(&review("CREATE", object, &Value::Null)).await
    }

    async fn update(&self, old: &Value, new: &Value) -> Verdict {
        self.review(&review("UPDATE", new, old)).await
    }
}

impl Verdict {
    fn refused_for(&self, text: &str) {
        assert!(!self.allowed, "it is allowed: {text}");
        assert!(self.message.contains(text), "{text} in {}", self.message);
    }

    fn allowed_with(&self, warnings: &[&str]) {
        assert!(self.allowed, "{}", self.message);
        assert_eq!(self.warnings.len(), warnings.len(), "{:?}", self.warnings);
        for (warning, want) in self.warnings.iter().zip(warnings) {
            assert!(warning.contains(want), "{want} in {warning}");
        }
    }
}

/// A review as API servers send them, of which the webhook needs a part.
fn review(operation: &str, object: &Value, old: &Value) -> Value {
    let given = if object.is_null() { old } else { object };
    let version = given["apiVersion"].as_str().unwrap();
    let (group, version) = version.split_once('/').unwrap();
    let kind = json!({"group": group, "version": version, "kind": given["kind"]});
    let resource = json!({"group": group, "version": version, "resource": "things"});
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": kind,
            "resource": resource,
            "requestKind": kind,
            "requestResource": resource,
            "name": given["metadata"]["name"].as_str().unwrap_or_default(),
            "namespace": given["metadata"]["namespace"],
            "operation": operation,
            "userInfo": {"username": "somebody", "groups": ["system:authenticated"]},
            "object": object,
            "oldObject": old,
            "dryRun": false,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
        },
    })
}

/// An Ingress of our class with one path, made now.
fn shop(annotations: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": "shop",
            "namespace": "test",
            "creationTimestamp": "2026-03-01T12:00:00Z",
            "annotations": annotations,
        },
        "spec": {
            "ingressClassName": "lockgate",
            "rules": [{"host": "shop.test", "http": {"paths": [{
                "path": "/",
                "pathType": "Prefix",
                "backend": {"service": {"name": "web", "port": {"number": 80}}},
            }]}}],
        },
    })
}

fn nginx(name: &str, value: &str) -> Value {
    json!({format!("nginx.ingress.kubernetes.io/{name}"): value})
}

#[tokio::test]
async fn what_only_its_owner_can_solve_is_refused_with_field_and_consequence() {
    let older = ingress("older", "taken.test", &[("/", "web")]);
    let older = older.replace(
        "namespace: test",
        "namespace: test, creationTimestamp: '2020-01-01T00:00:00Z'",
    );
    let policy = "{apiVersion: lockgate.dev/v1alpha1, kind: GatewayPolicy, metadata: {name: p}, spec: {hosts: [bank.test], namespaces: [bank], denyAnnotations: [app-root]}}
---
{apiVersion: lockgate.dev/v1alpha1, kind: GatewayPolicy, metadata: {name: all}, spec: {denyAnnotations: [app-root]}}
";
    let webhook = Webhook::start(&[("older.yaml", &older), ("policy.yaml", policy)]).await;
    for (annotations, want) in [
        (
            nginx("configuration-snippet", "internal;"),
            "metadata.annotations[nginx.ingress.kubernetes.io/configuration-snippet]: ",
        ),
        (
            nginx("whitelist-source-range", "10.0.0.0/99"),
            "the routes of this Ingress answer 503 rather than without it",
        ),
        (
            nginx("limit-rps", "many"),
            "metadata.annotations[nginx.ingress.kubernetes.io/limit-rps]: `many` cannot be used",
        ),
        (
            nginx("app-root", "/home"),
            "GatewayPolicy all does not let this namespace use `app-root`",
        ),
    ] {
        webhook.create(&shop(&annotations)).await.refused_for(want);
    }
    for (place, value, want) in [
        (
            "/spec/rules/0/host",
            "taken.test",
            "Ingress test/older, which is older, has the same host `taken.test`",
        ),
        (
            "/spec/rules/0/host",
            "bank.test",
            "host `bank.test` belongs to other namespaces, as GatewayPolicy p says",
        ),
        (
            "/spec/rules/0/host",
            "bad host",
            "spec.rules[0].host: `bad host` is not a host name",
        ),
    ] {
        let mut object = shop(&json!({}));
        *object.pointer_mut(place).unwrap() = json!(value);
        webhook.create(&object).await.refused_for(want);
    }
    let mut large = shop(&nginx("use-regex", "true"));
    large["spec"]["rules"][0]["http"]["paths"][0]["path"] = json!("/(([a-z]{100}){100}){100}");
    large["spec"]["rules"][0]["http"]["paths"][0]["pathType"] = json!("ImplementationSpecific");
    let verdict = webhook.create(&large).await;
    verdict.refused_for("spec.rules[0].http.paths[0]");
    verdict.refused_for("bytes when compiled; this route is not served");

    let mut several = shop(&nginx("limit-rps", "many"));
    several["spec"]["rules"][0]["host"] = json!("taken.test");
    let verdict = webhook.create(&several).await;
    verdict.refused_for("2 faults:\n- ");
    verdict.refused_for("limit-rps");
    verdict.refused_for("taken.test");
    // Nothing of all this has left a trace.
    assert_eq!(webhook.world.generation(), 1);
    webhook.create(&shop(&json!({}))).await.allowed_with(&[]);
    let metrics = webhook.world.admin("/metrics").await.body;
    for outcome in ["allowed", "refused"] {
        let series = format!("lockgate_admission_reviews_total{{outcome=\"{outcome}\"}}");
        assert!(metrics.contains(&series), "{series} in {metrics}");
    }
}

#[tokio::test]
async fn what_others_may_still_bring_is_a_warning() {
    let webhook = Webhook::start(&[]).await;
    for (annotations, warnings) in [
        (json!({}), &[][..]),
        (
            nginx("auth-secret", "bank/users"),
            &["Ingress test/shop: metadata.annotations: `auth-secret` names Secret bank/users"],
        ),
        (
            nginx("custom-headers", "test/nowhere"),
            &["ConfigMap test/nowhere does not exist"],
        ),
        (
            nginx("no-such-thing-at-all", "true"),
            &["there is no such annotation; it has no effect"],
        ),
        (
            nginx("enable-rewrite-log", "true"),
            &["nginx.ingress.kubernetes.io/enable-rewrite-log"],
        ),
        (
            json!({"lockgate.dev/route-policy": "later"}),
            &["RoutePolicy test/later does not exist"],
        ),
        (
            nginx("canary", "true"),
            &["no other Ingress has this host, path and type"],
        ),
        // Nobody has named it yet, so nobody knows whether it is there.
        (nginx("auth-secret", "users"), &[]),
    ] {
        let verdict = webhook.create(&shop(&annotations)).await;
        verdict.allowed_with(warnings);
    }
    let mut without_service = shop(&json!({}));
    without_service["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] =
        json!("later");
    let verdict = webhook.create(&without_service).await;
    verdict
        .allowed_with(&["Service test/later does not exist; requests to it are answered with 503"]);
    let mut without_name = shop(&json!({}));
    without_name["metadata"] = json!({"generateName": "shop-", "namespace": "test"});
    webhook.create(&without_name).await.allowed_with(&[]);
}

#[tokio::test]
async fn nobody_else_is_held_up() {
    let webhook = Webhook::start(&[]).await;
    let bad = shop(&nginx("limit-rps", "many"));
    let with = |place: &str, value: Value| {
        let mut object = bad.clone();
        let (parent, field) = place.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[field] = value;
        object
    };
    let foreign = with("/spec/ingressClassName", json!("other"));
    webhook.create(&foreign).await.allowed_with(&[]);
    let leaving = with("/metadata/deletionTimestamp", json!("2026-03-02T12:00:00Z"));
    webhook.update(&bad, &leaving).await.allowed_with(&[]);
    let labelled = with("/metadata/labels", json!({"a": "b"}));
    webhook.update(&bad, &labelled).await.allowed_with(&[]);
    let deleted = review("DELETE", &Value::Null, &bad);
    webhook.review(&deleted).await.allowed_with(&[]);
    let mut status = review("UPDATE", &with("/spec/defaultBackend", json!({})), &bad);
    status["request"]["subResource"] = json!("status");
    webhook.review(&status).await.allowed_with(&[]);
    let pod = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}});
    webhook.create(&pod).await.allowed_with(&[]);
    // Somebody who takes it over answers for it.
    webhook
        .update(&foreign, &bad)
        .await
        .refused_for("limit-rps");
}

#[tokio::test]
async fn an_error_that_is_there_already_holds_nobody_up() {
    let text = ingress("shop", "shop.test", &[("/", "web")]).replace(
        "namespace: test",
        "namespace: test, annotations: {nginx.ingress.kubernetes.io/limit-rps: many}",
    );
    let webhook = Webhook::start(&[("shop.yaml", &text)]).await;
    let before = shop(&nginx("limit-rps", "many"));
    let mut after = before.clone();
    after["spec"]["rules"][0]["http"]["paths"][0]["path"] = json!("/cart");
    let verdict = webhook.update(&before, &after).await;
    verdict.allowed_with(&["(this is so already)"]);
    after["metadata"]["annotations"] = nginx("limit-rps", "too many");
    webhook
        .update(&before, &after)
        .await
        .refused_for("`too many`");
    after["metadata"]["annotations"] = nginx("limit-rps", "10");
    webhook.update(&before, &after).await.allowed_with(&[]);
}

#[tokio::test]
async fn policies_are_reviewed_as_well() {
    let text = ingress("shop", "shop.test", &[("/", "web")]);
    let webhook = Webhook::start(&[("shop.yaml", &text)]).await;
    let route = |spec: Value| {
        json!({
            "apiVersion": "lockgate.dev/v1alpha1",
            "kind": "RoutePolicy",
            "metadata": {"name": "p", "namespace": "test"},
            "spec": spec,
        })
    };
    let bad = route(json!({"deny": [{"path": {"regex": "("}}]}));
    webhook.create(&bad).await.refused_for("spec.deny[0]");
    let good = json!({"deny": [{"path": {"prefix": "/metrics"}}]});
    webhook.create(&route(good)).await.allowed_with(&[]);
    let bad = json!({"targetRefs": [{"name": "shop"}], "rewrite": "no path"});
    let verdict = webhook.create(&route(bad)).await;
    verdict.refused_for("spec.rewrite");

    let gateway = |spec: Value| {
        json!({
            "apiVersion": "lockgate.dev/v1alpha1",
            "kind": "GatewayPolicy",
            "metadata": {"name": "p"},
            "spec": spec,
        })
    };
    let bad = gateway(json!({"hosts": ["no host"]}));
    webhook.create(&bad).await.refused_for("spec.hosts[0]");
    let strict = gateway(json!({"namespaces": ["test"], "hosts": ["other.test"]}));
    let verdict = webhook.create(&strict).await;
    verdict.allowed_with(&["1 Ingress asks for more than it permits"]);
}

#[tokio::test]
async fn bad_reviews_get_an_error_and_not_a_verdict() {
    let webhook = Webhook::start(&[]).await;
    let good = review("CREATE", &shop(&json!({})), &Value::Null);
    let with = |place: &str, value: Value| {
        let mut review = good.clone();
        *review.pointer_mut(place).unwrap() = value;
        review.to_string()
    };
    let large = with("/request/object/metadata/name", json!("x".repeat(4 << 20)));
    for (body, status, want) in [
        ("{".to_owned(), 400, "this is no AdmissionReview"),
        ("[]".to_owned(), 400, "this is no AdmissionReview"),
        (
            with("/apiVersion", json!("admission.k8s.io/v1beta1")),
            400,
            "`admission.k8s.io/v1beta1` is not read",
        ),
        (with("/kind", json!("Ingress")), 400, "Ingress of"),
        (with("/request", Value::Null), 400, "it has no `request`"),
        (with("/request/object", Value::Null), 422, "no `object`"),
        (
            with("/request/object/spec/rules", json!(7)),
            422,
            "the object cannot be read",
        ),
        (large, 413, "too large"),
    ] {
        let answer = webhook.post(body).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.body);
        assert!(answer.body.contains(want), "{want} in {}", answer.body);
    }
    for (request, status) in [
        (Request::get("/validate"), StatusCode::METHOD_NOT_ALLOWED),
        (Request::post("/other"), StatusCode::NOT_FOUND),
        (
            Request::post("/validate").header("content-type", "text/plain"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ),
    ] {
        let request = request.header("host", NAME).body(Full::default()).unwrap();
        assert_eq!(webhook.send(request).await.unwrap().status, status);
    }
    // It goes on.
    webhook.review(&good).await.allowed_with(&[]);
}

#[tokio::test]
async fn the_certificate_is_that_of_the_secret_and_rotates() {
    let mut webhook = Webhook::start(&[]).await;
    let good = review("CREATE", &shop(&json!({})), &Value::Null).to_string();
    let first = webhook.post(good.clone()).await.certificate;
    let renewed = webhook.world.authority.sign(NAME);
    let text = secret("admission", &renewed);
    webhook.world.write("admission.yaml", &text).await;
    let second = webhook.post(good.clone()).await.certificate;
    assert_ne!(first, second);
    assert_eq!(second, renewed.der);
    for version in [&TLS12, &TLS13] {
        let config = ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(webhook.world.authority.roots())
            .with_no_client_auth();
        webhook.client = Arc::new(config);
        assert_eq!(webhook.post(good.clone()).await.status, 200, "{version:?}");
    }
    // What breaks does not take away what works.
    let broken = text.replace("BEGIN CERTIFICATE", "BEGIN NOTHING");
    webhook
        .world
        .looked_at(|folder| crate::world::put(folder, "admission.yaml", &broken))
        .await;
    assert_eq!(webhook.post(good).await.certificate, renewed.der);
    let problems = webhook.world.problems().await;
    assert!(
        problems.iter().any(|text| text
            .starts_with("Secret test/admission: the certificate of the admission webhook")),
        "{problems:?}"
    );
}

#[tokio::test]
async fn without_a_certificate_nobody_is_answered() {
    let authority = Authority::new();
    let client = client::trusting(authority.roots());
    let world = World::start_with(authority, &[], |settings| {
        settings.listen.admission = Some("127.0.0.1:0".parse().unwrap());
        settings.translation.admission_secret = Some("test/admission".parse().unwrap());
    })
    .await;
    let mut webhook = Webhook { world, client };
    let good = review("CREATE", &shop(&json!({})), &Value::Null).to_string();
    let request = || {
        Request::post("/validate")
            .header("host", NAME)
            .header("content-type", "application/json")
            .body(Full::new(good.clone().into()))
            .unwrap()
    };
    assert!(webhook.send(request()).await.is_err());
    let text = secret("admission", &webhook.world.authority.sign(NAME));
    webhook.world.write("admission.yaml", &text).await;
    assert_eq!(webhook.send(request()).await.unwrap().status, 200);
}
