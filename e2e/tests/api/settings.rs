//! Flags and the `ConfigMap`, where they are about the cluster.

use anyhow::{Result, ensure};
use e2e::origin::Origin;
use e2e::scene::Scene;
use e2e::wait::{SOON, eventually};

#[tokio::test]
async fn the_configmap_takes_effect_at_run_time() -> Result<()> {
    let scene = Scene::new("settings").await?;
    let origin = Origin::start("web").await?;
    scene.service("web", &[&origin]).await?;
    scene
        .certificate("tls", &scene.authority.site(&["settings.example.com"])?)
        .await?;
    scene
        .ingress("web", "settings.example.com", "web", "tls")
        .await?;
    let gateway = scene.lockgate("settings-0", &[]).await?;
    let client = scene.client(&gateway)?;
    let configure = async |data: &str| scene.installation.configure("lockgate", data).await;
    let answers = async |status: u16| {
        eventually(&format!("http:// answers {status}"), SOON, async || {
            let reply = client.get("http://settings.example.com/").await?;
            ensure!(reply.status == status, "{}", reply.status);
            Ok(())
        })
        .await
    };

    answers(308).await?;
    configure(r#"{"http-redirect-code":"301"}"#).await?;
    answers(301).await?;
    configure(r#"{"ssl-redirect":"false"}"#).await?;
    answers(200).await?;
    configure("null").await?;
    answers(308).await?;
    scene.finish([gateway]).await
}

#[tokio::test]
async fn defaults_stand_in_where_an_ingress_says_nothing() -> Result<()> {
    let scene = Scene::new("defaults").await?;
    let (web, fallback) = (
        Origin::start("web").await?,
        Origin::start("fallback").await?,
    );
    scene.service("web", &[&web]).await?;
    scene.service("fallback", &[&fallback]).await?;
    let default = scene.authority.site(&["*.example.com"])?;
    scene.certificate("default-tls", &default).await?;
    scene.ingress("web", "web.example.com", "web", "").await?;
    scene
        .apply(
            r"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: classless}
spec:
  rules:
  - host: classless.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
",
        )
        .await?;
    let flags = [
        ("--default-ssl-certificate", "defaults/default-tls"),
        ("--default-backend-service", "defaults/fallback"),
        ("--watch-ingress-without-class", ""),
    ];
    let gateway = scene.lockgate("defaults-0", &flags).await?;
    let client = scene.client(&gateway)?;

    for (url, origin) in [
        ("https://web.example.com/", "web /"),
        ("https://nobody.example.com/", "fallback /"),
        ("http://nobody.example.com/", "fallback /"),
        ("http://classless.example.com/", "web /"),
    ] {
        let reply = client.get(url).await?;
        assert_eq!(
            (reply.status.as_u16(), reply.origin()),
            (200, origin),
            "{url}"
        );
    }
    scene.finish([gateway]).await
}
