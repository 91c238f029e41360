//! Certificates that change while they are in use.

use anyhow::{Result, ensure};
use e2e::load::Load;
use e2e::origin::Origin;
use e2e::scene::Scene;
use e2e::wait::{SOON, eventually};

const URL: &str = "https://rotating.example.com/";

#[tokio::test]
async fn a_broken_secret_leaves_the_last_good_certificate_in_place_and_tells_its_owner()
-> Result<()> {
    let scene = Scene::new("broken").await?;
    let origin = Origin::start("web").await?;
    scene.service("web", &[&origin]).await?;
    let good = scene.authority.site(&["rotating.example.com"])?;
    let other = scene.authority.site(&["rotating.example.com"])?;
    let repaired = scene.authority.site(&["rotating.example.com"])?;
    scene.certificate("rotating", &good).await?;
    scene
        .ingress("rotating", "rotating.example.com", "web", "rotating")
        .await?;
    let gateway = scene.lockgate("broken-0", &[]).await?;
    let client = scene.client(&gateway)?;
    client.get(URL).await?;

    let load = Load::start(&client, &[(URL, "web")])?;
    for (certificate, key, fault) in [
        (
            good.certificate.as_str(),
            other.key.as_str(),
            "a key of another certificate",
        ),
        ("garbage", good.key.as_str(), "no certificate"),
        (other.certificate.as_str(), "", "no key"),
    ] {
        let before = warnings(&scene).await?.len();
        let secret = serde_json::json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "rotating"},
            "type": "kubernetes.io/tls", "stringData": {"tls.crt": certificate, "tls.key": key},
        });
        scene.apply(&secret.to_string()).await?;
        eventually(&format!("the owner is told: {fault}"), SOON, async || {
            let warnings = warnings(&scene).await?;
            ensure!(warnings.len() > before, "{warnings:#?}");
            Ok(())
        })
        .await?;
        let connection = client.connect(URL).await?;
        assert!(
            connection.certificate() == Some(&good.der),
            "{fault}: the last good one serves"
        );
    }
    scene.kubectl(&["delete", "secret", "rotating"]).await?;
    load.proceed(100).await?;
    scene.certificate("rotating", &repaired).await?;
    eventually("the repaired Secret is used", SOON, async || {
        let connection = client.connect(URL).await?;
        ensure!(connection.certificate() == Some(&repaired.der));
        Ok(())
    })
    .await?;
    load.proceed(100).await?;
    let tally = load.stop().await?;
    tally.check("a Secret is broken, gone and repaired")?;
    assert!(
        tally.certificates == [good.der.clone(), repaired.der.clone()],
        "neither a broken one nor the built-in one was ever shown",
    );
    // No part of a key, in whatever encoding around it, is told to anybody.
    let told = [
        warnings(&scene).await?.concat(),
        gateway.log(),
        gateway.admin("/debug/routes").await?.body,
        gateway.admin("/metrics").await?.body,
    ];
    let keys = [&good.key, &other.key, &repaired.key];
    for line in keys
        .into_iter()
        .flat_map(|key| key.lines())
        .filter(|line| line.len() > 8)
    {
        ensure!(
            told.iter().all(|text| !text.contains(line)),
            "a line of a key was told"
        );
    }
    scene.finish([gateway]).await
}

/// The Warnings about the Ingress that name the Secret.
async fn warnings(scene: &Scene) -> Result<Vec<String>> {
    let events = scene.events("Ingress", "rotating").await?;
    Ok(events
        .into_iter()
        .filter(|event| event.kind == "Warning" && event.message.contains("rotating"))
        .map(|event| format!("{}: {}", event.reason, event.message))
        .collect())
}
