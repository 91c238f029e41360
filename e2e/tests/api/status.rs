//! The address that `kubectl get ingress` shows.

use anyhow::{Result, ensure};
use e2e::origin::Origin;
use e2e::scene::Scene;
use e2e::wait::{SOON, eventually};

#[tokio::test]
async fn kubectl_shows_the_published_addresses() -> Result<()> {
    let scene = Scene::new("status").await?;
    let origin = Origin::start("web").await?;
    scene.service("web", &[&origin]).await?;
    scene
        .ingress("before", "before.example.com", "web", "")
        .await?;
    let flags = [(
        "--publish-status-address",
        "198.51.100.7,gateway.example.com",
    )];
    let gateway = scene.lockgate("status-0", &flags).await?;
    scene
        .ingress("after", "after.example.com", "web", "")
        .await?;

    for name in ["before", "after"] {
        eventually("kubectl shows the addresses", SOON, async || {
            let printed = scene.kubectl(&["get", "ingress", name]).await?;
            let shown = printed.contains("198.51.100.7") && printed.contains("gateway.example.com");
            ensure!(shown, "{printed}");
            Ok(())
        })
        .await?;
    }
    scene.finish([gateway]).await
}

#[tokio::test]
async fn the_status_follows_the_published_service_and_is_written_only_on_difference() -> Result<()>
{
    let scene = Scene::new("status-service").await?;
    let origin = Origin::start("web").await?;
    scene.service("web", &[&origin]).await?;
    scene.ingress("web", "web.example.com", "web", "").await?;
    scene
        .apply(
            "apiVersion: v1\nkind: Service\nmetadata: {name: front}\n\
             spec: {type: LoadBalancer, ports: [{port: 80}]}\n",
        )
        .await?;
    let balancer = async |address: &str| {
        let patch =
            format!(r#"{{"status":{{"loadBalancer":{{"ingress":[{{"ip":"{address}"}}]}}}}}}"#);
        let arguments = [
            "patch",
            "service",
            "front",
            "--subresource=status",
            "--type=merge",
            "--patch",
            &patch,
        ];
        scene.kubectl(&arguments).await
    };
    let shows = async |address: &str| {
        eventually(
            "the Ingress shows the Service's address",
            SOON,
            async || {
                let addresses = scene.addresses("web").await?;
                ensure!(addresses == [address], "{addresses:?}");
                Ok(())
            },
        )
        .await
    };

    balancer("198.51.100.1").await?;
    let flags = [("--publish-service", "status-service/front")];
    let gateway = scene.lockgate("status-service-0", &flags).await?;
    shows("198.51.100.1").await?;
    balancer("198.51.100.2").await?;
    shows("198.51.100.2").await?;

    // A change of the Ingress that leaves its status alone causes no write: the two above stay the only ones.
    scene
        .kubectl(&["annotate", "ingress", "web", "example.com/note=changed"])
        .await?;
    scene.ingress("next", "next.example.com", "web", "").await?;
    eventually("the next Ingress has its status", SOON, async || {
        ensure!(scene.addresses("next").await? == ["198.51.100.2"]);
        Ok(())
    })
    .await?;
    let audit = scene.access.audit()?;
    let user = scene.installation.user();
    let writes: Vec<&str> = audit
        .of(&user)
        .filter(|entry| entry.access.resource == "ingresses/status")
        .map(|entry| entry.uri.as_str())
        .filter(|uri| uri.contains("/namespaces/status-service/ingresses/web/"))
        .collect();
    assert_eq!(writes.len(), 2, "{writes:?}");
    scene.finish([gateway]).await
}
