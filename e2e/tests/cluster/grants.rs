//! A Secret of another namespace: read once its owner grants it, and not before.

use anyhow::{Result, ensure};
use e2e::space::Space;
use e2e::wait::{SOON, eventually};
use serde_json::json;

const DEFINITION: &str = "crd/referencegrants.gateway.networking.k8s.io";

#[tokio::test]
async fn a_secret_of_another_namespace_is_read_while_its_owner_grants_it() -> Result<()> {
    let space = Space::new("grants").await?;
    let kubectl = &space.cluster.kubectl;
    // A cluster with the Gateway API has it.
    let missing = kubectl.run(&["get", DEFINITION]).await.is_err();
    if missing {
        let definition = include_str!("../reference-grant.yaml");
        kubectl
            .run_with_input(&["apply", "--filename", "-"], definition)
            .await?;
    }
    kubectl
        .run(&["wait", "--for=condition=Established", DEFINITION])
        .await?;

    let vault = format!("{}-vault", space.namespace);
    kubectl.run(&["create", "namespace", &vault]).await?;
    let users = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "users"},
        "stringData": {"auth": "foo:{SHA}C+7Hteo/D9vJXQ3UfzxbwnXaijM="},
    });
    kubectl.apply(&vault, &users.to_string()).await?;
    let host = space.host("www");
    space.origin("web", 1).await?;
    let guarded = json!({"metadata": {"annotations": {
        "nginx.ingress.kubernetes.io/auth-type": "basic",
        "nginx.ingress.kubernetes.io/auth-secret": format!("{vault}/users"),
    }}});
    space.ingress("web", &host, "web", &json!({})).await?;
    space.patch("ingress/web", &guarded).await?;
    let url = format!("http://{host}/");
    space.answers(&url, 503).await?;

    let grant = json!({
        "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant",
        "metadata": {"name": "shops"},
        "spec": {
            "from": [{
                "group": "networking.k8s.io", "kind": "Ingress", "namespace": space.namespace,
            }],
            "to": [{"group": "", "kind": "Secret", "name": "users"}],
        },
    });
    kubectl.apply(&vault, &grant.to_string()).await?;
    // A kind that was unknown is looked for now and then, by each replica when its time has come.
    eventually("the grant counts", SOON * 6, async || {
        // The load balancer asks both.
        for _ in 0..16 {
            let reply = space.client()?.get(&url).await?;
            ensure!(reply.status == 401, "{}", reply.status);
        }
        Ok(())
    })
    .await?;
    kubectl
        .run(&["delete", "referencegrant", "shops", "--namespace", &vault])
        .await?;
    space.answers(&url, 503).await?;
    kubectl
        .run(&["delete", "namespace", &vault, "--wait=false"])
        .await?;
    if missing {
        kubectl.run(&["delete", DEFINITION]).await?;
    }
    space.finish().await
}
