//! Whose an Ingress is: `IngressClass`, the annotation from before it, the default class, and no class at all.

use anyhow::{Result, ensure};
use e2e::space::{Gateway, Second, Space, ingress_manifest, merged};
use e2e::wait::{SOON, eventually};
use serde_json::{Value, json};

const CONTROLLER: &str = "lockgate.dev/ingress-controller";

/// Waits until an Ingress is served and has its address, or neither.
async fn served(space: &Space, gateway: &Gateway, ingress: &str, served: bool) -> Result<()> {
    let url = format!("http://{}/", space.host(ingress));
    let address = gateway.address.to_string();
    let (status, expected): (u16, &[&str]) = if served {
        (200, &[&address])
    } else {
        (404, &[])
    };
    space
        .answers_of(&space.client_of(gateway)?, &url, status)
        .await?;
    space.has_addresses(ingress, expected).await
}

fn class(name: &str, controller: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
        "metadata": {"name": name}, "spec": {"controller": controller},
    })
}

/// An Ingress that names no class.
async fn classless(space: &Space, name: &str, annotations: &Value) -> Result<()> {
    let patch = json!({
        "spec": {"ingressClassName": null}, "metadata": {"annotations": annotations},
    });
    let ingress = merged(ingress_manifest(name, &space.host(name), "web"), &patch);
    space.apply(&ingress.to_string()).await
}

#[tokio::test]
async fn an_ingress_is_adopted_and_dropped_as_its_class_changes() -> Result<()> {
    let space = Space::new("class").await?;
    space.origin("web", 1).await?;
    let foreign = format!("foreign-{}", space.namespace);
    space
        .apply(&class(&foreign, "example.com/other").to_string())
        .await?;
    space
        .ingress("www", &space.host("www"), "web", &json!({}))
        .await?;
    let gateway = &space.gateway;
    served(&space, gateway, "www", true).await?;

    let choose = async |class: Value| {
        let patch = json!({"spec": {"ingressClassName": class}});
        space.patch("ingress/www", &patch).await
    };
    choose(json!(foreign)).await?;
    served(&space, gateway, "www", false).await?;
    choose(json!("lockgate")).await?;
    served(&space, gateway, "www", true).await?;
    choose(json!("nobody-knows-it")).await?;
    served(&space, gateway, "www", false).await?;

    // Without a class, but with the annotation that was used before there were classes.
    choose(Value::Null).await?;
    let annotation =
        |value: Value| json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": value}}});
    space
        .patch("ingress/www", &annotation(json!("lockgate")))
        .await?;
    served(&space, gateway, "www", true).await?;
    space.patch("ingress/www", &annotation(Value::Null)).await?;
    served(&space, gateway, "www", false).await?;

    // What another controller writes into the status stays.
    choose(json!(foreign)).await?;
    let status =
        json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.99"}]}}}).to_string();
    let write = ["--subresource=status", "--type=merge", "--patch", &status];
    space
        .kubectl(&[&["patch", "ingress", "www"], &write[..]].concat())
        .await?;
    space
        .ingress("marker", &space.host("marker"), "web", &json!({}))
        .await?;
    served(&space, gateway, "marker", true).await?;
    space.has_addresses("www", &["192.0.2.99"]).await?;

    space
        .cluster
        .kubectl
        .run(&["delete", "ingressclass", &foreign])
        .await?;
    space.finish().await
}

#[tokio::test]
async fn a_class_that_comes_and_goes_takes_its_ingresses_along() -> Result<()> {
    let space = Space::new("class-object").await?;
    space.origin("web", 1).await?;
    let late = format!("late-{}", space.namespace);
    let chosen = json!({"ingressClassName": late});
    space
        .ingress("www", &space.host("www"), "web", &chosen)
        .await?;
    let gateway = &space.gateway;
    served(&space, gateway, "www", false).await?;
    space.apply(&class(&late, CONTROLLER).to_string()).await?;
    served(&space, gateway, "www", true).await?;
    let delete = ["delete", "ingressclass", &late];
    space.cluster.kubectl.run(&delete).await?;
    served(&space, gateway, "www", false).await?;
    space.finish().await
}

/// Alone: while there is a default class, every new Ingress without one gets it, those of other tests too.
#[tokio::test]
async fn the_default_class_is_given_to_new_ingresses() -> Result<()> {
    let space = Space::alone("class-default").await?;
    space.origin("web", 1).await?;
    classless(&space, "before", &Value::Null).await?;
    let default = async |value: &str| {
        let annotation = format!("ingressclass.kubernetes.io/is-default-class{value}");
        let annotate = ["annotate", "ingressclass", "lockgate", &annotation];
        space.cluster.kubectl.run(&annotate).await
    };
    default("=true").await?;
    let outcome = async {
        eventually("the API server gives the class", SOON, async || {
            // Its cache of classes may be a moment behind.
            classless(&space, "www", &Value::Null).await?;
            let output = "--output=jsonpath={.spec.ingressClassName}";
            let given = space.kubectl(&["get", "ingress", "www", output]).await?;
            if given != "lockgate" {
                space.kubectl(&["delete", "ingress", "www"]).await?;
            }
            ensure!(given == "lockgate", "{given:?}");
            Ok(())
        })
        .await?;
        served(&space, &space.gateway, "www", true).await?;
        served(&space, &space.gateway, "before", false).await
    }
    .await;
    default("-").await?;
    outcome?;
    space.finish().await
}

#[tokio::test]
async fn an_ingress_without_a_class_is_served_where_that_is_asked_for() -> Result<()> {
    let space = Space::new("class-none").await?;
    space.origin("web", 1).await?;
    let watch = format!("--watch-namespace={}", space.namespace);
    let own = Second {
        flags: &[&watch, "--watch-ingress-without-class"],
        only: &[&space.namespace],
    };
    let own = own.install(&space).await?;
    classless(&space, "www", &Value::Null).await?;
    served(&space, &own, "www", true).await?;
    // The installed one, which is not asked for it, leaves it alone.
    let reply = space
        .answers(&format!("http://{}/", space.host("www")), 404)
        .await?;
    ensure!(reply.pod().is_empty(), "served by {}", reply.pod());

    // A class of somebody else is respected all the same.
    let foreign = json!({"kubernetes.io/ingress.class": "somebody-else"});
    classless(&space, "theirs", &foreign).await?;
    classless(&space, "marker", &Value::Null).await?;
    served(&space, &own, "marker", true).await?;
    served(&space, &own, "theirs", false).await?;
    space.finish().await
}
