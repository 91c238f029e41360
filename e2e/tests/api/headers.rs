//! ConfigMaps with headers: each is read by its name, with a permission for that name alone.

use anyhow::{Result, ensure};
use e2e::origin::Origin;
use e2e::scene::Scene;
use e2e::wait::{SOON, eventually};

/// What an operator adds for a ConfigMap in another namespace.
fn permission(user: &str, namespace: &str) -> String {
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: lockgate-headers}}
rules:
- {{apiGroups: [''], resources: [configmaps], resourceNames: [frames], verbs: [list, watch]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: lockgate-headers}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: lockgate-headers}}
subjects: [{{kind: ServiceAccount, name: {user}, namespace: {namespace}}}]
"
    )
}

fn frames(value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: frames}}\ndata: {{X-Frame-Options: {value}}}\n"
    )
}

const SHOP: &str = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: shop
  annotations: {nginx.ingress.kubernetes.io/custom-headers: headers/frames}
spec:
  ingressClassName: lockgate
  rules:
  - host: shop.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
";

#[tokio::test]
async fn a_configmap_with_headers_is_followed_by_its_name() -> Result<()> {
    let scene = Scene::new("headers").await?;
    let origin = Origin::start("web").await?;
    scene.service("web", &[&origin]).await?;
    let installation = &scene.installation;
    let role = permission(&installation.service_account, &installation.namespace);
    scene.apply(&role).await?;
    scene.apply(SHOP).await?;
    let allow = async |names: &str| {
        let data = format!(r#"{{"global-allowed-response-headers":{names}}}"#);
        installation.configure("lockgate", &data).await
    };
    allow(r#""X-Frame-Options""#).await?;
    let flags = [("--header-configmaps", "headers/frames")];
    let gateway = scene.lockgate("headers-0", &flags).await?;
    let client = scene.client(&gateway)?;
    let answers = async |status: u16, header: &str| {
        let what = format!("it answers {status} with {header:?}");
        eventually(&what, SOON, async || {
            let reply = client.get("http://shop.example.com/").await?;
            let sent = reply.headers.get("x-frame-options");
            let sent = sent.map_or(Ok(""), |value| value.to_str())?;
            ensure!(reply.status == status, "{}", reply.status);
            ensure!(sent == header, "{sent:?}");
            Ok(())
        })
        .await
    };
    // What an Ingress asks for and does not get closes it.
    answers(503, "").await?;
    scene.apply(&frames("DENY")).await?;
    answers(200, "DENY").await?;
    scene.apply(&frames("SAMEORIGIN")).await?;
    answers(200, "SAMEORIGIN").await?;
    allow("null").await?;
    answers(503, "").await?;
    allow(r#""X-Frame-Options""#).await?;
    answers(200, "SAMEORIGIN").await?;
    scene.kubectl(&["delete", "configmap", "frames"]).await?;
    answers(503, "").await?;
    allow("null").await?;
    scene.finish([gateway]).await
}
