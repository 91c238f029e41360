//! Which backend answers.

use std::fmt::Write;

use crate::manifest::{ingress, service};
use crate::origin::Origin;
use crate::world::World;

#[tokio::test]
async fn hosts_and_paths_lead_to_their_backends() {
    let (blue, green) = (Origin::start("blue").await, Origin::start("green").await);
    let shop = ingress("shop", "shop.test", &[("/", "blue"), ("/cart", "green")]);
    let world = World::start(&[
        ("shop.yaml", &shop),
        (
            "blog/blog.yaml",
            &ingress("blog", "blog.test", &[("/", "green")]),
        ),
        ("services/blue.yaml", &service("blue", &[blue.port])),
        ("services/green.yml", &service("green", &[green.port])),
    ])
    .await;
    for (host, path, want) in [
        ("shop.test", "/", "blue /"),
        ("shop.test", "/cart", "green /cart"),
        ("shop.test", "/cart/items", "green /cart/items"),
        ("shop.test", "/carts", "blue /carts"),
        ("blog.test", "/cart", "green /cart"),
        ("BLOG.test:8080", "/", "green /"),
    ] {
        let answer = world.get(host, path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.body.as_str()),
            (200, want),
            "{host}{path}"
        );
    }
    assert_eq!(world.get("other.test", "/").await.status, 404);
}

#[tokio::test]
async fn a_changed_route_is_served_at_once_and_a_deleted_one_is_gone() {
    let (blue, green) = (Origin::start("blue").await, Origin::start("green").await);
    let mut world = World::start(&[
        ("shop.yaml", &ingress("shop", "shop.test", &[("/", "blue")])),
        ("blue.yaml", &service("blue", &[blue.port])),
        ("green.yaml", &service("green", &[green.port])),
    ])
    .await;
    assert_eq!(world.get("shop.test", "/").await.body, "blue /");
    world
        .write(
            "shop.yaml",
            &ingress("shop", "shop.test", &[("/", "green")]),
        )
        .await;
    assert_eq!(world.get("shop.test", "/").await.body, "green /");
    world
        .changed(|folder| std::fs::remove_file(folder.join("shop.yaml")).unwrap())
        .await;
    assert_eq!(world.get("shop.test", "/").await.status, 404);
}

#[tokio::test]
async fn endpoints_come_and_go() {
    let (one, two) = (Origin::start("one").await, Origin::start("two").await);
    let mut world = World::start(&[
        ("shop.yaml", &ingress("shop", "shop.test", &[("/", "web")])),
        ("web.yaml", &service("web", &[])),
    ])
    .await;
    let none = world.get("shop.test", "/").await;
    assert_eq!(none.status, 503, "a Service without endpoints");
    world
        .write("web.yaml", &service("web", &[one.port, two.port]))
        .await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(world.get("shop.test", "/").await.body);
    }
    seen.sort();
    assert_eq!(seen, ["one /", "one /", "two /", "two /"], "in turn");
    world.write("web.yaml", &service("web", &[two.port])).await;
    for _ in 0..3 {
        assert_eq!(world.get("shop.test", "/").await.body, "two /");
    }
}

#[tokio::test]
async fn the_default_backend_takes_what_no_route_matches() {
    let origin = Origin::start("rest").await;
    let text = service("rest", &[origin.port]);
    let mut world = World::start_with(
        crate::manifest::Authority::new(),
        &[("rest.yaml", &text)],
        |settings| {
            settings.translation.default_backend_service = Some("test/rest".parse().unwrap());
        },
    )
    .await;
    assert_eq!(world.get("anything.test", "/x").await.body, "rest /x");
    world.write("rest.yaml", &service("rest", &[])).await;
    let answer = world.get("anything.test", "/x").await;
    assert_eq!(answer.status, 404, "without endpoints the built-in page");
}

#[tokio::test]
async fn of_two_owners_of_a_path_the_older_serves_and_the_other_is_told() {
    let (blue, green) = (Origin::start("blue").await, Origin::start("green").await);
    let aged = |text: String, date: &str| {
        text.replace(
            "namespace: test}",
            &format!("namespace: test, creationTimestamp: \"{date}\"}}"),
        )
    };
    let young = aged(
        ingress("a-young", "shop.test", &[("/", "green")]),
        "2025-02-02T00:00:00Z",
    );
    let old = aged(
        ingress("z-old", "shop.test", &[("/", "blue")]),
        "2025-01-01T00:00:00Z",
    );
    let mut world = World::start(&[
        ("young.yaml", &young),
        ("blue.yaml", &service("blue", &[blue.port])),
        ("green.yaml", &service("green", &[green.port])),
    ])
    .await;
    assert_eq!(world.get("shop.test", "/").await.body, "green /");
    world.write("old.yaml", &old).await;
    assert_eq!(world.get("shop.test", "/").await.body, "blue /");
    let problems = world.problems().await;
    assert!(
        problems
            .iter()
            .any(|text| text.starts_with("Ingress test/a-young:") && text.contains("test/z-old")),
        "{problems:?}"
    );
    world
        .changed(|folder| std::fs::remove_file(folder.join("old.yaml")).unwrap())
        .await;
    assert_eq!(world.get("shop.test", "/").await.body, "green /");
    assert!(world.problems().await.is_empty());
}

#[tokio::test]
async fn ten_thousand_hosts_in_one_ingress_and_hostile_paths_harm_nobody_else() {
    let origin = Origin::start("web").await;
    let mut many = ingress("many", "h0.test", &[("/", "web")]);
    for number in 1..10_000 {
        let _ = writeln!(
            many,
            "  - host: h{number}.test\n    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}"
        );
    }
    let long = format!("/{}", "x".repeat(64 * 1024));
    let paths = ["\"/a\\\"b;}\"", "\"/a\\nb\"", "\"/a%00b\"", &long, "/good"];
    let hostile = ingress("hostile", "hostile.test", &paths.map(|path| (path, "web")));
    let world = World::start(&[
        ("many.yaml", &many),
        ("hostile.yaml", &hostile),
        ("web.yaml", &service("web", &[origin.port])),
    ])
    .await;
    for host in ["h0.test", "h5000.test", "h9999.test"] {
        assert_eq!(world.get(host, "/").await.body, "web /", "{host}");
    }
    assert_eq!(world.get("hostile.test", "/good").await.body, "web /good");
    assert_eq!(world.get("hostile.test", "/a%00b").await.status, 400);
}
