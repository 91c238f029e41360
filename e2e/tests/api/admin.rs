//! The admin port: metrics, and what is served.

use anyhow::{Result, ensure};
use e2e::cluster::note;
use e2e::origin::Origin;
use e2e::scene::Scene;
use e2e::wait::{SOON, eventually};

#[tokio::test]
async fn the_admin_port_tells_what_is_served_and_the_gateway_does_not() -> Result<()> {
    let scene = Scene::new("admin").await?;
    let origin = Origin::start("web").await?;
    scene.service("web", &[&origin]).await?;
    scene
        .certificate("tls", &scene.authority.site(&["admin.example.com"])?)
        .await?;
    scene
        .ingress("web", "admin.example.com", "web", "tls")
        .await?;
    let flags = [("--publish-status-address", "198.51.100.7")];
    let gateway = scene.lockgate("admin-0", &flags).await?;
    let client = scene.client(&gateway)?;
    let before = gateway.metric("lockgate_table_generation").await?;
    for _ in 0..10 {
        client.get("https://admin.example.com/").await?;
    }
    scene
        .ingress("broken", "broken.example.com", "absent", "")
        .await?;
    eventually("the metrics follow", SOON, async || {
        for (metric, least) in [
            ("lockgate_requests_total", 10.0),
            ("lockgate_tls_handshakes_total", 10.0),
            ("lockgate_leader", 1.0),
            ("lockgate_problems", 1.0),
            ("lockgate_events_total", 1.0),
            ("lockgate_status_writes_total", 2.0),
            ("lockgate_table_generation", before + 1.0),
        ] {
            let value = gateway.metric(metric).await?;
            ensure!(value >= least, "{metric} is {value}, not {least}");
        }
        Ok(())
    })
    .await?;
    let (changes, seconds) = (
        gateway.metric("lockgate_publish_seconds_count").await?,
        gateway.metric("lockgate_publish_seconds_sum").await?,
    );
    note(&format!(
        "from event to published table: {:.1} ms on average of {changes} changes",
        seconds / changes * 1000.0
    ))?;

    let routes = gateway.admin("/debug/routes").await?.body;
    let address = origin.address().to_string();
    for text in [
        "admin.example.com",
        "broken.example.com",
        "admin/web",
        address.as_str(),
    ] {
        ensure!(routes.contains(text), "{text} is not in:\n{routes}");
    }
    for path in ["/metrics", "/debug/routes", "/healthz", "/readyz"] {
        let reply = client
            .get(&format!("http://{}{path}", gateway.address))
            .await?;
        assert_eq!(reply.status, 404, "{path} through the gateway");
    }
    scene.finish([gateway]).await
}
