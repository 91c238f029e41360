//! Hosts, paths, backends and certificates, as `kubectl` describes them and `curl` sees them.

use anyhow::{Result, ensure};
use e2e::client::curl;
use e2e::origin::{self, Origin};
use e2e::scene::Scene;
use e2e::wait::{SOON, eventually};

#[tokio::test]
async fn curl_sees_certificates_by_name_and_is_sent_to_https() -> Result<()> {
    let scene = Scene::new("serving-tls").await?;
    let origin = Origin::start("web").await?;
    scene.service("web", &[&origin]).await?;
    scene
        .certificate("one", &scene.authority.site(&["one.example.com"])?)
        .await?;
    scene
        .certificate("two", &scene.authority.site(&["*.two.example.com"])?)
        .await?;
    scene
        .ingress("one", "one.example.com", "web", "one")
        .await?;
    scene
        .ingress("two", "'*.two.example.com'", "web", "two")
        .await?;
    let gateway = scene.lockgate("serving-tls-0", &[]).await?;
    let trusted = scene.access.folder.join("sites.crt");
    std::fs::write(&trusted, scene.authority.certificate())?;
    let trusted = trusted.display().to_string();
    let address = gateway.address;

    for (host, version) in [
        ("one.example.com", "--http1.1"),
        ("one.example.com", "--http2"),
        ("a.two.example.com", "--http1.1"),
        ("b.two.example.com", "--http2"),
    ] {
        // curl checks the chain and the name.
        let resolve = format!("{host}:443:{address}");
        let url = format!("https://{host}/hello");
        let printed = curl(&[
            "--cacert",
            &trusted,
            "--resolve",
            &resolve,
            version,
            "--write-out",
            "%{http_code} %{http_version}",
            &url,
        ])
        .await?;
        ensure!(
            printed.starts_with("web /hello\n"),
            "{host} {version}: {printed}"
        );
        ensure!(
            printed.contains("x-forwarded-proto: https"),
            "{host} {version}: {printed}"
        );
        let expected = if version == "--http2" {
            "200 2"
        } else {
            "200 1.1"
        };
        ensure!(printed.ends_with(expected), "{host} {version}: {printed}");
    }

    let resolve = format!("one.example.com:80:{address}");
    let redirect = "%{http_code} %{redirect_url}";
    let url = "http://one.example.com/a?b=c";
    let printed = curl(&[
        "--resolve",
        &resolve,
        "--output",
        "/dev/null",
        "--write-out",
        redirect,
        url,
    ])
    .await?;
    assert_eq!(printed, "308 https://one.example.com/a?b=c");

    // A name without a certificate: the built-in one, which nobody trusts, and no route.
    let resolve = format!("other.example.com:443:{address}");
    let arguments = [
        "--resolve",
        &resolve,
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
    ];
    let url = "https://other.example.com/";
    ensure!(
        curl(&[&arguments[..], &["--cacert", &trusted, url]].concat())
            .await
            .is_err()
    );
    assert_eq!(
        curl(&[&arguments[..], &["--insecure", url]].concat()).await?,
        "404"
    );
    scene.finish([gateway]).await
}

#[tokio::test]
async fn routes_come_and_go_with_their_objects() -> Result<()> {
    let scene = Scene::new("serving-changes").await?;
    let (old, new) = (Origin::start("old").await?, Origin::start("new").await?);
    scene.service("old", &[&old]).await?;
    scene.service("new", &[&new]).await?;
    let gateway = scene.lockgate("serving-changes-0", &[]).await?;
    let client = scene.client(&gateway)?;
    let url = "http://changes.example.com/";
    let serves = async |expected: &str| {
        eventually(&format!("{url} answers {expected}"), SOON, async || {
            let reply = client.get(url).await?;
            let seen = format!("{} {}", reply.status.as_u16(), reply.origin());
            ensure!(seen.starts_with(expected), "{seen}");
            Ok(())
        })
        .await
    };

    serves("404").await?;
    scene
        .ingress("changes", "changes.example.com", "old", "")
        .await?;
    serves("200 old /").await?;
    scene
        .ingress("changes", "changes.example.com", "new", "")
        .await?;
    serves("200 new /").await?;
    scene
        .ingress("changes", "changes.example.com", "missing", "")
        .await?;
    serves("503").await?;
    scene.service("missing", &[&old]).await?;
    serves("200 old /").await?;
    scene.kubectl(&["delete", "ingress", "changes"]).await?;
    serves("404").await?;
    scene.finish([gateway]).await
}

#[tokio::test]
async fn the_shipped_sample_is_served_as_it_says() -> Result<()> {
    let scene = Scene::new("serving-sample").await?;
    let origin = Origin::start("sample").await?;
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/samples/web.yaml");
    scene
        .access
        .kubectl
        .run(&["apply", "--validate=strict", "--filename", sample])
        .await?;
    // What Kubernetes' own controllers would make of the Deployment's pods.
    let slice = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: web-1, labels: {{kubernetes.io/service-name: web}}}}\n\
         addressType: IPv4\nports: [{{name: http, port: {}}}]\nendpoints: [{{addresses: [{}]}}]\n",
        origin::PORT,
        origin.address(),
    );
    scene.access.kubectl.apply("sample", &slice).await?;
    let gateway = scene.lockgate("serving-sample-0", &[]).await?;
    let status = format!(
        r#"{{"status":{{"loadBalancer":{{"ingress":[{{"ip":"{}"}}]}}}}}}"#,
        gateway.address
    );
    // The cloud gives the shipped Service its address.
    let write = [
        "patch",
        "service",
        "lockgate",
        "--subresource=status",
        "--type=merge",
        "--patch",
        &status,
    ];
    scene.installation.kubectl(&write).await?;

    let address = eventually("the sample has an address", SOON, async || {
        let output = "-o=jsonpath={.status.loadBalancer.ingress[0].ip}";
        let arguments = ["--namespace", "sample", "get", "ingress", "web", output];
        let address = scene.access.kubectl.run(&arguments).await?;
        ensure!(address == gateway.address.to_string(), "{address:?}");
        Ok(address)
    })
    .await?;
    let resolve = format!("web.example.test:443:{address}");
    let printed = curl(&[
        "--insecure",
        "--resolve",
        &resolve,
        "https://web.example.test/",
    ])
    .await?;
    ensure!(printed.starts_with("sample /\n"), "{printed}");
    scene.finish([gateway]).await
}
