//! Which of several pods answers, from manifests on.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::manifest::{Authority, ingress};
use crate::origin::{Origin, nobody};
use crate::world::{World, put};

/// A Service with pods on this machine: their ports, and what their slices say about them.
fn service(pods: &[(u16, &str)]) -> String {
    let mut text = "apiVersion: v1
kind: Service
metadata: {name: web, namespace: test}
spec: {trafficDistribution: PreferSameZone, ports: [{name: web, port: 80}]}
"
    .to_owned();
    for (number, (port, said)) in pods.iter().enumerate() {
        let _ = write!(
            text,
            "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-{number}, namespace: test, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{name: web, port: {port}}}]
endpoints: [{{addresses: [127.0.0.1], {said}}}]
"
        );
    }
    text
}

async fn answers(world: &World) -> BTreeSet<String> {
    let mut answers = BTreeSet::new();
    for _ in 0..12 {
        let answer = world.get("shop.test", "/").await;
        assert_eq!(answer.status.as_u16(), 200);
        answers.insert(answer.body);
    }
    answers
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| format!("{name} /")).collect()
}

#[tokio::test]
async fn pods_for_our_zone_come_first() {
    let (here, there) = (Origin::start("here").await, Origin::start("there").await);
    let ours = "hints: {forZones: [{name: zone-a}]}";
    let others = "hints: {forZones: [{name: zone-b}]}";
    let ill = "conditions: {ready: false}, hints: {forZones: [{name: zone-a}]}";
    let nobodys = "conditions: {ready: true}";
    let both = service(&[(here.port, ours), (there.port, others)]);
    let shop = ingress("shop", "shop.test", &[("/", "web")]);
    let files = [("shop.yaml", shop.as_str()), ("web.yaml", both.as_str())];
    let mut world = World::start_with(Authority::new(), &files, |settings| {
        settings.translation.locality.zone = Some("zone-a".into());
    })
    .await;
    assert_eq!(answers(&world).await, set(&["here"]));
    let page = world.admin("/debug/routes?format=table").await.body;
    let of_far = format!("127.0.0.1:{}", there.port);
    let line = page.lines().find(|line| line.contains(&of_far)).unwrap();
    assert!(line.contains("ready, far"), "{page}");
    for (pods, want, why) in [
        (
            [(here.port, ill), (there.port, others)],
            &["there"][..],
            "not ready",
        ),
        (
            [(here.port, ours), (there.port, nobodys)],
            &["here", "there"],
            "one is meant for nobody",
        ),
        (
            [(here.port, others), (there.port, others)],
            &["here", "there"],
            "none is meant for us",
        ),
        (
            [(here.port, others), (there.port, ours)],
            &["there"],
            "the other one is",
        ),
    ] {
        // Not every one of these changes the routes.
        world
            .looked_at(|folder| put(folder, "web.yaml", &service(&pods)))
            .await;
        assert_eq!(answers(&world).await, set(want), "{why}");
    }
    // Meant for us, and gone without a word: the far one answers the same request.
    let (gone, _taken) = nobody();
    let ours_is_gone = service(&[(here.port, others), (gone, ours)]);
    world.write("web.yaml", &ours_is_gone).await;
    assert_eq!(answers(&world).await, set(&["here"]));
}
