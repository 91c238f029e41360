//! Certificates from Secrets that change while they are in use.

use anyhow::{Result, ensure};
use e2e::load::Load;
use e2e::pki::Identity;
use e2e::space::Space;
use e2e::wait::{SOON, eventually};
use serde_json::json;

/// As cert-manager renews: the same Secret, certificate and key replaced at once by a server-side apply, with its
/// annotations and the authority's certificate beside them.
async fn issue(space: &Space, identity: &Identity, revision: usize) -> Result<()> {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {
            "name": "web-tls",
            "annotations": {
                "cert-manager.io/certificate-name": "web-tls",
                "cert-manager.io/issuer-name": "e2e",
                "example.com/revision": revision.to_string(),
            },
            "labels": {"controller.cert-manager.io/fao": "true"},
        },
        "stringData": {
            "tls.crt": identity.certificate,
            "tls.key": identity.key,
            "ca.crt": space.authority.certificate(),
        },
    });
    let apply = [
        "--namespace",
        &space.namespace,
        "apply",
        "--server-side",
        "--field-manager=cert-manager-certificates-issuing",
        "--filename=-",
    ];
    let kubectl = &space.cluster.kubectl;
    kubectl
        .run_with_input(&apply, &secret.to_string())
        .await
        .map(drop)
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_and_no_request_is_lost() -> Result<()> {
    let space = Space::new("certificates").await?;
    let host = space.host("www");
    let url = format!("https://{host}/");
    space.origin("web", 2).await?;
    let identities: Vec<Identity> = (0..4)
        .map(|_| space.authority.site(&[&host]))
        .collect::<Result<_>>()?;
    // The Ingress comes first, as with an issuer that watches Ingresses.
    space.secure_ingress("web", &host, "web", "web-tls").await?;
    let client = space.client()?;
    // Every pod shows it: one that does not would be met by one of so many connections.
    let shown = async |identity: &Identity| {
        eventually("the certificate is shown", SOON, async || {
            for _ in 0..16 {
                let connection = client.connect(&url).await?;
                ensure!(
                    connection.certificate() == Some(&identity.der),
                    "another one"
                );
            }
            Ok(())
        })
        .await
    };
    issue(&space, &identities[0], 0).await?;
    shown(&identities[0]).await?;
    space.answers(&url, 200).await?;

    let load = Load::start(&client, &[(&url, "web")])?;
    load.proceed(100).await?;
    for (revision, identity) in identities.iter().enumerate().skip(1) {
        issue(&space, identity, revision).await?;
        shown(identity).await?;
        load.proceed(100).await?;
    }
    let tally = load.stop().await?;
    tally.check("three renewals of a certificate, to pods")?;
    // Two pods may not change in the same moment: each certificate appears, none but these, and in order.
    let order: Vec<_> = identities
        .into_iter()
        .map(|identity| identity.der)
        .collect();
    ensure!(
        tally.certificates == order,
        "not each of them once, in order"
    );

    let lines = space.kubectl(&["get", "events"]).await?;
    ensure!(!lines.contains("Invalid"), "{lines}");
    space.finish().await
}

/// A Secret that nobody referred to is not kept; it is read when the first Ingress does.
#[tokio::test]
async fn a_secret_that_was_there_before_its_ingress_is_used_at_once() -> Result<()> {
    let space = Space::new("certificates-early").await?;
    let host = space.host("www");
    space.origin("web", 1).await?;
    let identity = space.authority.site(&[&host])?;
    space.certificate("early", &identity).await?;
    // Everything that came before this Ingress has been seen when it is served.
    space
        .ingress("marker", &space.host("marker"), "web", &json!({}))
        .await?;
    space
        .answers(&format!("http://{}/", space.host("marker")), 200)
        .await?;
    space.secure_ingress("web", &host, "web", "early").await?;
    let client = space.client()?;
    let url = format!("https://{host}/");
    eventually("the certificate is shown", SOON, async || {
        let connection = client.connect(&url).await?;
        ensure!(connection.certificate() == Some(&identity.der));
        Ok(())
    })
    .await?;
    space.answers(&url, 200).await?;
    let told = space.events("Ingress", "web").await?;
    ensure!(told.is_empty(), "it was there all the time: {told:#?}");
    space.finish().await
}
