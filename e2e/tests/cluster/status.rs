//! The addresses in the status of Ingresses, as `kubectl get ingress` prints them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use e2e::space::{Second, Space, ingress_manifest, merged};
use e2e::wait::{SOON, eventually};
use serde_json::{Value, json};

/// Ingresses that are changed at the same time.
const BUSY: usize = 100;

#[tokio::test]
async fn kubectl_prints_class_hosts_address_and_ports() -> Result<()> {
    let space = Space::new("status").await?;
    let (plain, secure) = (space.host("plain"), space.host("secure"));
    space.origin("web", 1).await?;
    let identity = space.authority.site(&[&secure])?;
    space.certificate("web-tls", &identity).await?;
    space.ingress("plain", &plain, "web", &json!({})).await?;
    space
        .secure_ingress("secure", &secure, "web", "web-tls")
        .await?;

    let address = space.gateway_address().to_string();
    for (name, host, ports) in [("plain", &plain, "80"), ("secure", &secure, "80, 443")] {
        space.has_addresses(name, &[&address]).await?;
        let printed = space.kubectl(&["get", "ingress", name]).await?;
        let (head, row) = printed.split_once('\n').context("no second line")?;
        // Columns begin where their names do.
        let column = |title: &str, next: &str| {
            let start = head.find(title)?;
            Some(row.get(start..head.find(next)?)?.trim())
        };
        let shown = [
            column("NAME", "CLASS"),
            column("CLASS", "HOSTS"),
            column("HOSTS", "ADDRESS"),
            column("ADDRESS", "PORTS"),
            column("PORTS", "AGE"),
        ];
        let expected = [name, "lockgate", host, &address, ports].map(Some);
        ensure!(shown == expected, "{printed}");
    }
    space.finish().await
}

#[tokio::test]
async fn the_status_follows_the_service_that_is_published() -> Result<()> {
    let space = Space::new("status-service").await?;
    let gateway = Second::default().install(&space).await?;
    let class = json!({"ingressClassName": Second::class(&space)});
    space
        .ingress("web", &space.host("www"), "absent", &class)
        .await?;
    let balancer = gateway.address.to_string();
    space.has_addresses("web", &[&balancer]).await?;

    let service = "service/lockgate";
    space
        .patch(service, &json!({"spec": {"externalIPs": ["192.0.2.77"]}}))
        .await?;
    eventually("both addresses are shown", SOON, async || {
        let shown: BTreeSet<String> = space.addresses("web").await?.into_iter().collect();
        let expected = BTreeSet::from([balancer.clone(), "192.0.2.77".to_owned()]);
        ensure!(shown == expected, "{shown:?}");
        Ok(())
    })
    .await?;

    let inside = json!({"spec": {
        "type": "ClusterIP", "externalIPs": null, "externalTrafficPolicy": null,
    }});
    space.patch(service, &inside).await?;
    let output = "--output=jsonpath={.spec.clusterIP}";
    let cluster_ip = space.kubectl(&["get", service, output]).await?;
    space.has_addresses("web", &[&cluster_ip]).await?;

    space.kubectl(&["delete", service]).await?;
    // Unknown is not the same as none: what was right a moment ago stays.
    space
        .ingress("marker", &space.host("marker"), "absent", &class)
        .await?;
    eventually("the marker's owner is told", SOON, async || {
        ensure!(!space.events("Ingress", "marker").await?.is_empty());
        Ok(())
    })
    .await?;
    space.has_addresses("web", &[&cluster_ip]).await?;
    space.has_addresses("marker", &[]).await?;
    space.finish().await
}

/// As certificate managers, DNS controllers and people do: they change Ingresses while statuses are being written.
#[tokio::test]
async fn statuses_are_written_although_others_keep_changing_the_ingresses() -> Result<()> {
    let space = Space::new("status-busy").await?;
    let class = format!("busy-{}", space.namespace);
    let chosen = json!({"spec": {"ingressClassName": class}});
    let mut ingresses = String::new();
    for index in 0..BUSY {
        let name = format!("busy-{index}");
        let ingress = merged(
            ingress_manifest(&name, &space.host(&name), "absent"),
            &chosen,
        );
        write!(ingresses, "{ingress}\n---\n")?;
    }
    space.apply(&ingresses).await?;
    let ours = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
        "metadata": {"name": class}, "spec": {"controller": "lockgate.dev/ingress-controller"},
    });
    let delete = ["delete", "ingressclass", &class];

    // The class comes and goes, and with it all the statuses; meanwhile every Ingress is changed.
    let mut changes = 0;
    for turn in 1.. {
        ensure!(turn <= 30, "no write met a conflict in 30 turns");
        for appears in [true, false] {
            changes += 1;
            let note = format!("example.com/note={changes}");
            let annotate = ["annotate", "ingresses", "--all", "--overwrite", &note];
            let switch = async {
                if appears {
                    space.apply(&ours.to_string()).await
                } else {
                    space.cluster.kubectl.run(&delete).await.map(drop)
                }
            };
            tokio::try_join!(space.kubectl(&annotate), switch)?;
            all_have(&space, appears, changes).await?;
        }
        // Without an audit log there is nothing to look for.
        if conflicts(&space)?.is_none_or(|conflicts| conflicts > 0) {
            break;
        }
    }
    space.finish().await
}

/// Waits until every Ingress has the address, or none has, and checks that the others' change is still there.
async fn all_have(space: &Space, address: bool, change: u32) -> Result<()> {
    let expected = space.gateway_address().to_string();
    eventually("all the statuses are written", SOON, async || {
        let list = space.json(&["get", "ingresses"]).await?;
        let items = list.get("items").and_then(Value::as_array);
        let items = items.context("no list")?;
        ensure!(items.len() == BUSY, "{} Ingresses", items.len());
        for item in items {
            let shown = item.pointer("/status/loadBalancer/ingress/0/ip");
            let right = if address {
                shown == Some(&json!(expected))
            } else {
                shown.is_none()
            };
            ensure!(right, "{shown:?}");
            let note = item.pointer("/metadata/annotations/example.com~1note");
            ensure!(note == Some(&json!(change.to_string())), "{note:?}");
        }
        Ok(())
    })
    .await
}

/// How many writes of the test's statuses met a newer version; `None` without an audit log.
fn conflicts(space: &Space) -> Result<Option<usize>> {
    let user = space.user();
    let Some(audit) = space.cluster.audit()? else {
        return Ok(None);
    };
    let writes = audit.of(&user).filter(|entry| {
        entry.access.resource == "ingresses/status" && entry.uri.contains(&space.namespace)
    });
    Ok(Some(writes.filter(|entry| entry.code == 409).count()))
}
