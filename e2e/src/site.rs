//! A site that is asked over plain HTTP and over TLS while something happens.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::space::{Space, ingress_manifest, origin_manifests};
use crate::traffic::Traffic;
use crate::wait::{SOON, eventually};

/// The name of the site's Deployment, Service, Ingress and of the Service's port 80.
pub const NAME: &str = "web";

/// Pods of Lockgate that end have their shutdown delay and the connections that they drain.
pub const SETTLED: Duration = Duration::from_mins(6);

/// How long a pod of the site goes on after it was told to end: longer than it lingers.
const GRACE: Duration = Duration::from_secs(20);

/// The Deployment and the Service of a site, its pods spread over the nodes.
pub fn manifests(replicas: u32) -> Value {
    let mut list = origin_manifests(NAME, replicas);
    set(
        &mut list,
        "/items/0/spec/strategy",
        json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}),
    );
    let labels = json!({"matchLabels": {"app": NAME}});
    set(
        &mut list,
        "/items/0/spec/template/spec/topologySpreadConstraints",
        json!([{
            "topologyKey": "kubernetes.io/hostname", "maxSkew": 1,
            "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": labels,
        }]),
    );
    set(
        &mut list,
        "/items/0/spec/template/spec/terminationGracePeriodSeconds",
        json!(GRACE.as_secs()),
    );
    list
}

/// Sets a field whose parent is there.
pub fn set(value: &mut Value, pointer: &str, field: Value) {
    if let Some((parent, name)) = pointer.rsplit_once('/')
        && let Some(Value::Object(parent)) = value.pointer_mut(parent)
    {
        parent.insert(name.to_owned(), field);
    }
}

/// Serves `site` of `space` at the host `www`, with and without TLS, and waits until every pod of Lockgate does so. Pods that
/// an earlier test has told to end are gone then.
pub async fn serve(space: &Space, site: &Value) -> Result<Traffic> {
    settled(space, SETTLED).await?;
    space.apply(&site.to_string()).await?;
    let host = space.host("www");
    space
        .certificate("web-tls", &space.authority.site(&[&host])?)
        .await?;
    let mut ingress = ingress_manifest(NAME, &host, NAME);
    set(
        &mut ingress,
        "/metadata/annotations",
        json!({"nginx.ingress.kubernetes.io/ssl-redirect": "false"}),
    );
    set(
        &mut ingress,
        "/spec/tls",
        json!([{"hosts": [host], "secretName": "web-tls"}]),
    );
    space.apply(&ingress.to_string()).await?;
    space.rolled_out(NAME).await?;
    space.answers(&format!("https://{host}/"), 200).await?;
    space.answers(&format!("http://{host}/"), 200).await?;
    Traffic::new(space.gateway_address(), &host).trusting(&space.authority.certificate())
}

/// Waits until all of Lockgate's pods are ready and none is on its way out; returns how many there are.
pub async fn settled(space: &Space, deadline: Duration) -> Result<usize> {
    eventually("all pods of Lockgate are settled", deadline, async || {
        let pods = space.lockgate_pods().await?;
        let restless = pods.iter().find(|pod| !pod.ready || pod.terminating);
        anyhow::ensure!(!pods.is_empty() && restless.is_none(), "{restless:?}");
        Ok(pods.len())
    })
    .await
}

/// Waits until an Ingress of the space has an address in its status, and says how long that took.
pub async fn status_written(space: &Space, ingress: &str) -> Result<Duration> {
    let begun = std::time::Instant::now();
    eventually(
        &format!("the status of {ingress} is written"),
        SOON * 3,
        async || {
            anyhow::ensure!(!space.addresses(ingress).await?.is_empty(), "no address");
            Ok(())
        },
    )
    .await?;
    Ok(begun.elapsed())
}
