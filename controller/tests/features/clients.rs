//! Certificates of clients, from the Secret to the answer.

use std::sync::Arc;

use rustls::ClientConfig;
use tempfile::TempDir;

use crate::client::{self, Answer};
use crate::command::lockgate;
use crate::manifest::{Authority, Pair, ingress, secret, service};
use crate::origin::Origin;
use crate::world::{World, put};

pub(crate) const SHOP: &str = "shop.test";

/// A Secret with authorities, and revocation lists if there are some.
pub(crate) fn authorities(pem: &str, lists: Option<&str>) -> String {
    let indented = |pem: &str| pem.trim().replace('\n', "\n    ");
    let mut text = format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: clients, namespace: test}}
type: Opaque
stringData:
  ca.crt: |
    {}
",
        indented(pem)
    );
    if let Some(lists) = lists {
        text.push_str("  ca.crl: |\n    ");
        text.push_str(&indented(lists));
        text.push('\n');
    }
    text
}

/// An Ingress that asks for certificates of these authorities.
pub(crate) fn asking(annotations: &str) -> String {
    let text = ingress("shop", SHOP, &[("/", "web")]);
    let head = "metadata: {name: shop, namespace: test, annotations: {nginx.ingress.kubernetes.io/auth-tls-secret: test/clients";
    let text = text.replace(
        "metadata: {name: shop, namespace: test}",
        &format!("{head}{annotations}}}}}"),
    );
    format!("{text}  tls:\n  - {{hosts: [{SHOP}], secretName: shop-tls}}\n")
}

struct Shop {
    world: World,
    clients: Authority,
    _origin: Origin,
}

impl Shop {
    async fn start(annotations: &str) -> Self {
        let origin = Origin::start("web").await;
        let (servers, clients) = (Authority::new(), Authority::new());
        let files = [
            ("shop.yaml", asking(annotations)),
            ("web.yaml", service("web", &[origin.port])),
            ("tls.yaml", secret("shop-tls", &servers.sign(SHOP))),
            ("clients.yaml", authorities(&clients.pem(), None)),
        ];
        let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
        Self {
            world: World::start_with(servers, &files, |_| {}).await,
            clients,
            _origin: origin,
        }
    }

    fn client(&self, own: Option<&Pair>) -> Arc<ClientConfig> {
        let roots = self.world.authority.roots();
        match own {
            Some(own) => client::trusting_as(roots, own),
            None => client::trusting(roots),
        }
    }

    async fn get(&self, own: Option<&Pair>) -> Answer {
        let address = self.world.app.https_addresses()[0];
        client::get_tls(address, &self.client(own), SHOP, "/x")
            .await
            .unwrap()
    }

    /// Another Secret is there; waits until it counts.
    async fn secret(&mut self, text: &str) {
        self.world.write("clients.yaml", text).await;
    }
}

#[tokio::test]
async fn a_client_needs_a_certificate_of_the_authority_in_the_secret() {
    let mut shop = Shop::start("").await;
    assert_eq!(shop.world.problems().await, Vec::<String>::new());
    let own = shop.clients.sign("client");
    let foreign = Authority::new();
    let other = foreign.sign("client");
    assert_eq!(shop.get(Some(&own)).await.body, "web /x");
    assert_eq!(shop.get(None).await.status, 400);
    assert_eq!(shop.get(Some(&other)).await.status, 400);
    let plain = shop.world.get(SHOP, "/x").await;
    assert_eq!(plain.status, 308, "plain HTTP goes to https");

    // Both, then only the other one.
    let both = format!("{}{}", shop.clients.pem(), foreign.pem());
    shop.secret(&authorities(&both, None)).await;
    assert_eq!(shop.get(Some(&own)).await.body, "web /x");
    assert_eq!(shop.get(Some(&other)).await.body, "web /x");
    shop.secret(&authorities(&foreign.pem(), None)).await;
    assert_eq!(shop.get(Some(&own)).await.status, 400);
    assert_eq!(shop.get(Some(&other)).await.body, "web /x");
}

#[tokio::test]
async fn without_a_good_secret_the_host_is_closed() {
    let mut shop = Shop::start("").await;
    let own = shop.clients.sign("client");
    let good = authorities(&shop.clients.pem(), None);
    let crl = shop.clients.takes_back(&[], 2100);
    let cut = crl.replace("-----END", "");
    for (text, problem) in [
        (
            authorities("noise", None),
            "`ca.crt` has no certificate in it",
        ),
        (
            authorities(&shop.clients.pem(), Some(&cut)),
            "`ca.crl` is not PEM",
        ),
        (
            authorities(&shop.clients.sign("leaf").certificate, None),
            "certificate 1 of `ca.crt` is not the certificate of an authority",
        ),
    ] {
        shop.secret(&text).await;
        for own in [Some(&own), None] {
            assert_eq!(shop.get(own).await.status, 503, "{problem}");
        }
        let problems = shop.world.problems().await;
        assert!(
            problems.iter().any(|text| text.contains(problem)),
            "{problem} in {problems:?}"
        );
        shop.secret(&good).await;
        assert_eq!(shop.get(Some(&own)).await.body, "web /x");
    }
    shop.world
        .changed(|folder| std::fs::remove_file(folder.join("clients.yaml")).unwrap())
        .await;
    assert_eq!(shop.get(Some(&own)).await.status, 503);
    shop.secret(&good).await;
    assert_eq!(shop.get(Some(&own)).await.body, "web /x");
}

#[tokio::test]
async fn what_was_taken_back_does_not_pass() {
    let mut shop = Shop::start("").await;
    let pem = shop.clients.pem();
    let (kept, stolen) = (
        shop.clients.sign_numbered("kept", Some(7)),
        shop.clients.sign_numbered("stolen", Some(8)),
    );
    assert_eq!(shop.get(Some(&stolen)).await.body, "web /x");
    let list = shop.clients.takes_back(&[8], 2100);
    shop.secret(&authorities(&pem, Some(&list))).await;
    assert_eq!(shop.get(Some(&stolen)).await.status, 400);
    assert_eq!(shop.get(Some(&kept)).await.body, "web /x");
    let expired = shop.clients.takes_back(&[], 2021);
    shop.secret(&authorities(&pem, Some(&expired))).await;
    assert_eq!(shop.get(Some(&kept)).await.status, 400, "nobody knows");
    let early = shop.clients.takes_back_from(2100, &[], 2101);
    shop.secret(&authorities(&pem, Some(&early))).await;
    assert_eq!(shop.get(Some(&kept)).await.status, 400, "nor what will be");
    assert_eq!(shop.get(None).await.status, 400, "as without one");
}

#[test]
fn check_names_a_revocation_list_whose_time_is_over_or_has_not_come() {
    let clients = Authority::new();
    for (list, want, code) in [
        (
            clients.takes_back(&[], 2021),
            Some("in Secret test/clients expired at 2021-01-01T00:00:00Z"),
            1,
        ),
        (
            clients.takes_back_from(2100, &[], 2101),
            Some("in Secret test/clients is not valid before 2100-01-01T00:00:00Z"),
            1,
        ),
        (clients.takes_back(&[], 2100), None, 0),
    ] {
        let folder = TempDir::new().unwrap();
        let text = ingress("shop", SHOP, &[("/", "web")]).replace(
            "metadata: {name: shop, namespace: test}",
            "metadata: {name: shop, namespace: test, annotations: {nginx.ingress.kubernetes.io/auth-tls-secret: test/clients}}",
        );
        put(folder.path(), "shop.yaml", &text);
        put(folder.path(), "web.yaml", &service("web", &[9001]));
        let lists = authorities(&clients.pem(), Some(&list));
        put(folder.path(), "clients.yaml", &lists);
        let (got, out, error) = lockgate(&["check", "."], folder.path(), "");
        assert_eq!(got, Some(code), "{out}{error}");
        assert_eq!(
            out.contains("a revocation list (`ca.crl`)"),
            want.is_some(),
            "{out}"
        );
        assert!(want.is_none_or(|want| out.contains(want)), "{out}");
    }
}

#[tokio::test]
async fn an_optional_certificate_may_be_missing_but_not_wrong() {
    let shop = Shop::start(", nginx.ingress.kubernetes.io/auth-tls-verify-client: optional").await;
    let own = shop.clients.sign("client");
    let other = Authority::new().sign("client");
    assert_eq!(shop.get(Some(&own)).await.body, "web /x");
    assert_eq!(shop.get(None).await.body, "web /x");
    assert_eq!(shop.get(Some(&other)).await.status, 400);
}

#[tokio::test]
async fn a_host_without_a_tls_entry_is_asked_with_the_default_certificate() {
    let origin = Origin::start("web").await;
    let clients = Authority::new();
    let text = asking("");
    let (text, _) = text.split_once("  tls:").unwrap();
    let web = service("web", &[origin.port]);
    let lists = authorities(&clients.pem(), None);
    let files = [
        ("shop.yaml", text),
        ("web.yaml", &web),
        ("clients.yaml", &lists),
    ];
    let mut world = World::start(&files).await;
    assert_eq!(world.get_tls_from_anybody(SHOP, "/").await.status, 400);
    assert_eq!(
        world.get(SHOP, "/").await.status,
        400,
        "nothing sends it to https"
    );
    // Nobody asks any more.
    let open = ingress("shop", SHOP, &[("/", "web")]);
    world
        .changed(|folder| put(folder, "shop.yaml", &open))
        .await;
    assert_eq!(world.get_tls_from_anybody(SHOP, "/").await.body, "web /");
}
