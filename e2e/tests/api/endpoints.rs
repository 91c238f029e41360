//! `EndpointSlices` that change.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
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
