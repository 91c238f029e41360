//! Certificates and what they bring along.

use crate::manifest::{Authority, ingress_tls, secret, service};
use crate::origin::Origin;
use crate::world::World;

const SHOP: &str = "shop.test";
const BLOG: &str = "blog.test";

async fn two_hosts() -> (World, Origin) {
    let origin = Origin::start("web").await;
    let authority = Authority::new();
    let secrets = [
        secret("shop-tls", &authority.sign(SHOP)),
        secret("blog-tls", &authority.sign(BLOG)),
    ];
    let files = [
        ("shop.yaml", ingress_tls("shop", SHOP, "web", "shop-tls")),
        ("blog.yaml", ingress_tls("blog", BLOG, "web", "blog-tls")),
        ("web.yaml", service("web", &[origin.port])),
        ("secrets/shop.yaml", secrets[0].clone()),
        ("secrets/blog.yaml", secrets[1].clone()),
    ];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    (World::start_with(authority, &files, |_| {}).await, origin)
}

#[tokio::test]
async fn the_server_name_selects_the_certificate() {
    let (world, _origin) = two_hosts().await;
    let mut certificates = Vec::new();
    for host in [SHOP, BLOG] {
        // The client checks that the certificate is for this name.
        let answer = world.get_tls(host, "/x").await.unwrap();
        assert_eq!(answer.body, "web /x", "{host}");
        certificates.push(answer.certificate);
    }
    assert_ne!(certificates[0], certificates[1]);
}

#[tokio::test]
async fn plain_http_is_redirected_but_for_certificate_challenges() {
    let (world, _origin) = two_hosts().await;
    let redirect = world.get(SHOP, "/cart?id=7").await;
    assert_eq!(redirect.status, 308);
    assert_eq!(redirect.header("location"), "https://shop.test/cart?id=7");
    let challenge = world.get(SHOP, "/.well-known/acme-challenge/token").await;
    assert_eq!(challenge.body, "web /.well-known/acme-challenge/token");
    let secure = world.get_tls(SHOP, "/").await.unwrap();
    assert_eq!(
        secure.header("strict-transport-security"),
        "max-age=31536000; includeSubDomains"
    );
}

#[tokio::test]
async fn the_configmap_switches_headers_and_redirects_while_it_runs() {
    let (mut world, _origin) = two_hosts().await;
    let settings = "apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: test}
data: {ssl-redirect: \"false\", hsts: \"false\", server-tokens: \"true\"}
";
    world.write("settings.yaml", settings).await;
    assert_eq!(world.get(SHOP, "/").await.body, "web /");
    let secure = world.get_tls(SHOP, "/").await.unwrap();
    assert_eq!(secure.header("strict-transport-security"), "");
    assert_eq!(secure.header("server"), "lockgate");
    world
        .changed(|folder| std::fs::remove_file(folder.join("settings.yaml")).unwrap())
        .await;
    assert_eq!(world.get(SHOP, "/").await.status, 308);
}

#[tokio::test]
async fn a_new_certificate_serves_at_once_and_a_broken_one_never() {
    let (mut world, _origin) = two_hosts().await;
    let first = world.get_tls(SHOP, "/").await.unwrap().certificate;
    let renewed = world.authority.sign(SHOP);
    let text = secret("shop-tls", &renewed);
    world.write("secrets/shop.yaml", &text).await;
    let served = world.get_tls(SHOP, "/").await.unwrap().certificate;
    assert_ne!(served, first);
    assert_eq!(served, renewed.der);

    let mut mismatch = world.authority.sign(SHOP);
    mismatch.key = world.authority.sign(SHOP).key;
    let text = secret("shop-tls", &mismatch);
    world
        .looked_at(|folder| crate::world::put(folder, "secrets/shop.yaml", &text))
        .await;
    let served = world.get_tls(SHOP, "/").await.unwrap().certificate;
    assert_eq!(served, renewed.der, "the last good one goes on serving");
    let problems = world.problems().await;
    assert!(
        problems
            .iter()
            .any(|text| text.contains("shop-tls") && text.contains("does not belong")),
        "{problems:?}"
    );
}

#[tokio::test]
async fn a_secret_that_comes_before_its_ingress_is_not_lost() {
    let origin = Origin::start("web").await;
    let authority = Authority::new();
    let text = secret("late-tls", &authority.sign("late.test"));
    let web = service("web", &[origin.port]);
    let files = [("secret.yaml", text.as_str()), ("web.yaml", web.as_str())];
    let mut world = World::start_with(authority, &files, |_| {}).await;
    world
        .write(
            "late.yaml",
            &ingress_tls("late", "late.test", "web", "late-tls"),
        )
        .await;
    assert_eq!(world.get_tls("late.test", "/").await.unwrap().body, "web /");
    assert!(world.problems().await.is_empty());
}

#[tokio::test]
async fn unknown_names_get_the_default_certificate() {
    let (world, _origin) = two_hosts().await;
    assert!(
        world.get_tls("other.test", "/").await.is_err(),
        "nobody trusts it"
    );
    let answer = world.get_tls_from_anybody("other.test", "/").await;
    assert_eq!(answer.status, 404);
    let shown = String::from_utf8_lossy(&answer.certificate).into_owned();
    assert!(shown.contains("Lockgate Default Certificate"));
}

#[tokio::test]
async fn the_default_certificate_can_come_from_a_secret() {
    let authority = Authority::new();
    let pair = authority.sign("other.test");
    let text = secret("default-tls", &pair);
    let world = World::start_with(authority, &[("default.yaml", &text)], |settings| {
        settings.translation.default_certificate_secret = Some("test/default-tls".parse().unwrap());
    })
    .await;
    assert_eq!(
        world.get_tls("other.test", "/").await.unwrap().certificate,
        pair.der
    );
}
