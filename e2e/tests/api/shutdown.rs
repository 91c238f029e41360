//! SIGTERM, as the kubelet sends it.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::client::Version;
use e2e::origin::Origin;
use e2e::scene::Scene;
use e2e::wait::{SOON, eventually, throughout};

const URL: &str = "https://draining.example.com";

#[tokio::test]
async fn requests_in_flight_finish_and_the_exit_code_is_zero() -> Result<()> {
    let scene = Scene::new("draining").await?;
    let origin = Origin::start("web").await?;
    scene.service("web", &[&origin]).await?;
    scene
        .certificate("tls", &scene.authority.site(&["draining.example.com"])?)
        .await?;
    scene
        .ingress("web", "draining.example.com", "web", "tls")
        .await?;
    let delay = ("--shutdown-delay", "3s");
    let mut gateway = scene.lockgate("draining-0", &[delay]).await?;
    let client = scene.client(&gateway)?;

    let mut waiting = Vec::new();
    for version in [Version::Http1, Version::Http2] {
        let mut connection = client
            .clone()
            .speaking(version)?
            .connect(&format!("{URL}/hold"))
            .await?;
        waiting.push(tokio::spawn(async move {
            connection.get(&format!("{URL}/hold")).await
        }));
    }
    eventually("both requests are held", SOON, async || {
        ensure!(origin.held() == 2, "{}", origin.held());
        Ok(())
    })
    .await?;

    gateway.terminate()?;
    eventually(
        "it is not ready any more",
        Duration::from_secs(2),
        async || {
            let status = gateway.admin("/readyz").await?.status;
            ensure!(status == 503, "{status}");
            Ok(())
        },
    )
    .await?;
    // Load balancers need time to notice: until then it goes on accepting.
    throughout(
        "new connections are served",
        Duration::from_secs(1),
        async || {
            let reply = client.get(&format!("{URL}/")).await?;
            ensure!(reply.status == 200, "{}", reply.status);
            Ok(())
        },
    )
    .await?;
    eventually("no connection is accepted any more", SOON, async || {
        ensure!(client.connect(URL).await.is_err(), "still accepting");
        Ok(())
    })
    .await?;
    gateway.check_running()?;
    assert_eq!(origin.held(), 2, "the requests still wait");
    origin.release(2);
    for request in waiting {
        let reply = request.await??;
        assert_eq!((reply.status.as_u16(), reply.origin()), (200, "web /hold"));
    }
    gateway.ended().await?;
    scene.finish([]).await
}

#[tokio::test]
async fn what_does_not_finish_is_cut_off_at_the_end_of_the_drain() -> Result<()> {
    let scene = Scene::new("cut-off").await?;
    let origin = Origin::start("web").await?;
    scene.service("web", &[&origin]).await?;
    scene
        .ingress("web", "cut-off.example.com", "web", "")
        .await?;
    let drain = ("--drain-timeout", "1s");
    let mut gateway = scene.lockgate("cut-off-0", &[drain]).await?;
    let url = "http://cut-off.example.com/hold";
    let mut connection = scene.client(&gateway)?.connect(url).await?;
    let waiting = tokio::spawn(async move { connection.get(url).await });
    eventually("the request is held", SOON, async || {
        ensure!(origin.held() == 1);
        Ok(())
    })
    .await?;
    gateway.terminate()?;
    gateway.ended().await?;
    ensure!(
        waiting.await?.is_err(),
        "an answer that the origin did not give"
    );
    scene.finish([]).await
}
