//! `EndpointSlices` that change.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use e2e::load::Load;
use e2e::origin::Origin;
use e2e::scene::Scene;
use e2e::wait::{SOON, eventually};

const URL: &str = "http://endpoints.example.com/";

#[tokio::test]
async fn requests_follow_the_endpoints() -> Result<()> {
    let scene = Scene::new("endpoints").await?;
    let origins = [
        Origin::start("a").await?,
        Origin::start("b").await?,
        Origin::start("c").await?,
    ];
    let [a, b, c] = &origins;
    scene.service("web", &[]).await?;
    scene
        .ingress("web", "endpoints.example.com", "web", "")
        .await?;
    let gateway = scene.lockgate("endpoints-0", &[]).await?;
    let client = scene.client(&gateway)?;
    // The answers of a dozen requests: on every worker's own turn, each ready endpoint is reached.
    let reached = async |expected: &[&str]| {
        eventually(&format!("{expected:?} answer"), SOON, async || {
            let mut seen = BTreeSet::new();
            for _ in 0..12 {
                let reply = client.get(URL).await?;
                seen.insert(match reply.status.as_u16() {
                    200 => reply.origin().to_owned(),
                    status => status.to_string(),
                });
            }
            ensure!(
                seen.iter().map(String::as_str).eq(expected.iter().copied()),
                "{seen:?}"
            );
            Ok(())
        })
        .await
    };

    reached(&["503"]).await?;
    scene.service("web", &[a]).await?;
    reached(&["a /"]).await?;
    scene.service("web", &[a, b]).await?;
    reached(&["a /", "b /"]).await?;
    // A second slice of the same Service, with an address that is in the first one too.
    let (second, third) = (b.address(), c.address());
    scene
        .apply(&format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: web-2, labels: {{kubernetes.io/service-name: web}}}}\n\
             addressType: IPv4\nports: [{{name: http, port: 8080}}]\n\
             endpoints: [{{addresses: [{second}]}}, {{addresses: [{third}], conditions: {{ready: true}}}}]\n",
        ))
        .await?;
    reached(&["a /", "b /", "c /"]).await?;
    // Not ready: no request.
    scene
        .apply(&format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: web-2, labels: {{kubernetes.io/service-name: web}}}}\n\
             addressType: IPv4\nports: [{{name: http, port: 8080}}]\n\
             endpoints: [{{addresses: [{third}], conditions: {{ready: false, serving: true, terminating: true}}}}]\n",
        ))
        .await?;
    reached(&["a /", "b /"]).await?;
    // Nothing is ready: what still serves while it terminates.
    scene.service("web", &[]).await?;
    reached(&["c /"]).await?;
    scene.kubectl(&["delete", "endpointslice", "web-2"]).await?;
    reached(&["503"]).await?;
    scene.finish([gateway]).await
}

#[tokio::test]
async fn a_rollout_under_requests_loses_none() -> Result<()> {
    let scene = Scene::new("rollout").await?;
    // Three generations of pods with the same answer; the ones before stay up until requests have left them.
    let mut origins = Vec::new();
    for _ in 0..6 {
        origins.push(Origin::start("web").await?);
    }
    scene.service("web", &[&origins[0], &origins[1]]).await?;
    scene
        .ingress("web", "endpoints.example.com", "web", "")
        .await?;
    let gateway = scene.lockgate("rollout-0", &[]).await?;
    let load = Load::start(&scene.client(&gateway)?, &[(URL, "web")])?;
    load.proceed(100).await?;
    for pair in origins.windows(2) {
        scene.service("web", &[&pair[0], &pair[1]]).await?;
        load.proceed(50).await?;
    }
    let last: Vec<&Origin> = origins.last().into_iter().collect();
    scene.service("web", &last).await?;
    let last = last[0].address().to_string();
    eventually("only the last endpoint is left", SOON, async || {
        let routes = gateway.admin("/debug/routes").await?.body;
        ensure!(routes.contains(&last), "{last} is not there");
        for origin in &origins[..5] {
            ensure!(
                !routes.contains(&origin.address().to_string()),
                "{}",
                origin.address()
            );
        }
        Ok(())
    })
    .await?;
    origins.drain(..5);
    load.proceed(100).await?;
    load.stop().await?.check("a rollout of endpoints")?;
    scene.finish([gateway]).await
}
