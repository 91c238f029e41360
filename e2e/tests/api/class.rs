//! An Ingress changes its class while Lockgate runs.

use anyhow::{Result, ensure};
use e2e::origin::Origin;
use e2e::scene::Scene;
use e2e::wait::{SOON, eventually};

#[tokio::test]
async fn ingresses_are_adopted_and_dropped_at_run_time() -> Result<()> {
    let scene = Scene::new("class").await?;
    let origin = Origin::start("web").await?;
    scene.service("web", &[&origin]).await?;
    scene
        .apply(
            "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: foreign}\n\
             spec: {controller: example.com/other}\n",
        )
        .await?;
    scene.ingress("ours", "ours.example.com", "web", "").await?;
    scene
        .ingress("theirs", "theirs.example.com", "web", "")
        .await?;
    let class = async |ingress: &str, class: &str| {
        let patch = format!(r#"{{"spec":{{"ingressClassName":{class}}}}}"#);
        scene
            .kubectl(&[
                "patch",
                "ingress",
                ingress,
                "--type=merge",
                "--patch",
                &patch,
            ])
            .await
    };
    class("theirs", r#""foreign""#).await?;
    // What another controller has written has to stay.
    let status = r#"{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.99"}]}}}"#;
    let write = ["--subresource=status", "--type=merge", "--patch", status];
    scene
        .kubectl(&[&["patch", "ingress", "theirs"], &write[..]].concat())
        .await?;

    let flags = [("--publish-status-address", "198.51.100.7")];
    let gateway = scene.lockgate("class-0", &flags).await?;
    let client = scene.client(&gateway)?;
    let shows = async |ingress: &str, code: u16, expected: &[&str]| {
        eventually(
            &format!("{ingress}: {code} {expected:?}"),
            SOON,
            async || {
                let reply = client
                    .get(&format!("http://{ingress}.example.com/"))
                    .await?;
                let addresses = scene.addresses(ingress).await?;
                ensure!(
                    reply.status == code && addresses == expected,
                    "{} {addresses:?}",
                    reply.status
                );
                Ok(())
            },
        )
        .await
    };

    shows("ours", 200, &["198.51.100.7"]).await?;
    shows("theirs", 404, &["192.0.2.99"]).await?;

    class("ours", r#""foreign""#).await?;
    shows("ours", 404, &[]).await?;
    class("ours", r#""unknown""#).await?;
    class("theirs", r#""lockgate""#).await?;
    shows("theirs", 200, &["198.51.100.7"]).await?;
    // What came before has been dealt with: the class that nobody knows was not adopted.
    shows("ours", 404, &[]).await?;

    class("ours", "null").await?;
    scene
        .kubectl(&[
            "annotate",
            "ingress",
            "ours",
            "kubernetes.io/ingress.class=lockgate",
        ])
        .await?;
    shows("ours", 200, &["198.51.100.7"]).await?;
    scene
        .kubectl(&[
            "annotate",
            "ingress",
            "ours",
            "kubernetes.io/ingress.class-",
        ])
        .await?;
    shows("ours", 404, &[]).await?;
    scene.finish([gateway]).await
}

#[tokio::test]
async fn an_ingress_class_that_comes_and_goes_takes_its_ingresses_along() -> Result<()> {
    let scene = Scene::new("class-object").await?;
    let origin = Origin::start("web").await?;
    scene.service("web", &[&origin]).await?;
    scene.ingress("late", "late.example.com", "web", "").await?;
    let patch = r#"{"spec":{"ingressClassName":"late"}}"#;
    scene
        .kubectl(&["patch", "ingress", "late", "--type=merge", "--patch", patch])
        .await?;
    let flags = [("--publish-status-address", "198.51.100.7")];
    let gateway = scene.lockgate("class-object-0", &flags).await?;
    let client = scene.client(&gateway)?;
    let shows = async |code: u16, expected: &[&str]| {
        eventually(&format!("{code} {expected:?}"), SOON, async || {
            let reply = client.get("http://late.example.com/").await?;
            let addresses = scene.addresses("late").await?;
            ensure!(
                reply.status == code && addresses == expected,
                "{} {addresses:?}",
                reply.status
            );
            Ok(())
        })
        .await
    };

    shows(404, &[]).await?;
    scene
        .apply(
            "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: late}\n\
             spec: {controller: lockgate.dev/ingress-controller}\n",
        )
        .await?;
    shows(200, &["198.51.100.7"]).await?;
    scene.kubectl(&["delete", "ingressclass", "late"]).await?;
    shows(404, &[]).await?;
    scene.finish([gateway]).await
}
