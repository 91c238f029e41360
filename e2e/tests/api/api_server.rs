//! The API server goes away and comes back while requests flow.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::client::Client;
use e2e::cluster::{Access, Cluster, PRIVATE, Programs, note};
use e2e::load::Load;
use e2e::lockgate::{Installation, Lockgate};
use e2e::origin::Origin;
use e2e::scene::Scene;
use e2e::wait::{SOON, eventually, throughout};

const FLAGS: [(&str, &str); 1] = [("--publish-status-address", "198.51.100.7")];
/// Watches come back with a growing pause between attempts.
const RETURN: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_lost_api_server_never_stops_serving() -> Result<()> {
    let folder = Access::shared()?.folder.join("private");
    let mut cluster = Cluster::start(Programs::from_environment()?, &folder, PRIVATE).await?;
    let installation = Installation::apply(cluster.access()).await?;
    let scene = Scene::within(cluster.access().clone(), installation, "loss").await?;
    let origin = Origin::start("web").await?;
    scene.service("web", &[&origin]).await?;
    scene
        .certificate("tls", &scene.authority.site(&["secure.example.com"])?)
        .await?;
    scene
        .ingress("plain", "plain.example.com", "web", "")
        .await?;
    scene
        .ingress("secure", "secure.example.com", "web", "tls")
        .await?;
    // While there is an API server to ask for a token.
    let kubeconfig = scene.installation.kubeconfig("loss-1").await?;
    let mut gateway = scene.lockgate("loss-0", &FLAGS).await?;
    let client = scene.client(&gateway)?;
    let targets = [
        ("http://plain.example.com/", "web"),
        ("https://secure.example.com/", "web"),
    ];
    let load = Load::start(&client, &targets)?;
    load.proceed(100).await?;

    // It hangs: connections stay open and nothing answers.
    cluster.freeze_api()?;
    stays_ready(&mut gateway, Duration::from_secs(12)).await?;
    cluster.thaw_api()?;
    cluster.ready().await?;
    picks_up(&scene, &client, "after-hanging").await?;

    // An API server that has just started refuses everybody until it knows its own roles: what it says now counts.
    scene.check_permissions()?;

    // It is gone: connections are refused.
    cluster.kill_api()?;
    stays_ready(&mut gateway, Duration::from_secs(5)).await?;

    // A replica that starts now knows nothing, and says so.
    let mut late = scene
        .installation
        .launch_with("loss-1", &FLAGS, kubeconfig)?;
    eventually(
        "the late replica answers on its admin port",
        SOON,
        async || {
            ensure!(late.admin("/healthz").await?.status == 200);
            Ok(())
        },
    )
    .await?;
    throughout(
        "the late replica is not ready",
        Duration::from_secs(5),
        async || {
            let status = late.admin("/readyz").await?.status;
            ensure!(status == 503, "/readyz: {status}");
            Ok(())
        },
    )
    .await?;
    late.check_running()?;

    cluster.restart_api().await?;
    picks_up(&scene, &client, "after-return").await?;
    let late = late.ready().await?;
    let reply = scene
        .client(&late)?
        .get("https://secure.example.com/")
        .await?;
    assert_eq!(reply.status, 200);

    let tally = load.stop().await?;
    tally.check("API server hangs, dies and comes back")?;
    gateway.stop().await?;
    late.stop().await
}

async fn stays_ready(gateway: &mut Lockgate, duration: Duration) -> Result<()> {
    gateway.check_running()?;
    throughout("it stays ready", duration, async || {
        let status = gateway.admin("/readyz").await?.status;
        ensure!(status == 200, "/readyz: {status}");
        Ok(())
    })
    .await
}

/// An Ingress that is made now is served, and gets its status.
async fn picks_up(scene: &Scene, client: &Client, name: &str) -> Result<()> {
    let host = format!("{name}.example.com");
    let start = Instant::now();
    scene.ingress(name, &host, "web", "").await?;
    eventually("a new Ingress is served", RETURN, async || {
        let status = client.get(&format!("http://{host}/")).await?.status;
        ensure!(status == 200, "{status}");
        Ok(())
    })
    .await?;
    let served = start.elapsed();
    eventually("a new Ingress has its address", RETURN, async || {
        let addresses = scene.addresses(name).await?;
        ensure!(addresses == ["198.51.100.7"], "{addresses:?}");
        Ok(())
    })
    .await?;
    let written = start.elapsed();
    note(&format!(
        "API server {name}: a change is served {served:.1?} after, its status written {written:.1?}"
    ))
}
