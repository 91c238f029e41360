//! Where ingress-nginx and the specification of Ingress disagree: docs/compat.md, row by row, in every profile.

use translate::Compat;

use crate::client::Answer;
use crate::manifest::{Authority, secret, service};
use crate::origin::Origin;
use crate::world::World;

const MANIFESTS: &str = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: plain, namespace: test}
spec:
  ingressClassName: lockgate
  rules:
  - host: plain.test
    http:
      paths:
      - {path: /p/, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
      - {path: /e/, pathType: Exact, backend: {service: {name: web, port: {number: 80}}}}
      - {path: /both/, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
      - {path: /both, pathType: Exact, backend: {service: {name: other, port: {number: 80}}}}
      - {path: /target, pathType: Prefix, backend: {service: {name: web, port: {number: 8080}}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: regex
  namespace: test
  annotations: {nginx.ingress.kubernetes.io/use-regex: 'true'}
spec:
  ingressClassName: lockgate
  rules:
  - host: regex.test
    http:
      paths:
      - {path: '/v[0-9]+', pathType: ImplementationSpecific, backend: {service: {name: web, port: {number: 80}}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: beside, namespace: test}
spec:
  ingressClassName: lockgate
  rules:
  - host: regex.test
    http:
      paths:
      - {path: /exact, pathType: Exact, backend: {service: {name: other, port: {number: 80}}}}
      - {path: /prefix, pathType: Prefix, backend: {service: {name: other, port: {number: 80}}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: default, namespace: test}
spec:
  ingressClassName: lockgate
  defaultBackend: {service: {name: other, port: {number: 80}}}
  rules:
  - host: default.test
    http:
      paths:
      - {path: /x, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: tls, namespace: test}
spec:
  ingressClassName: lockgate
  tls: [{hosts: [tls.test], secretName: tls}]
  rules:
  - host: tls.test
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
";

/// What an answer shows: its status, who made it or where it leads to, and its `Server`.
fn shown(answer: &Answer) -> String {
    let status = answer.status.as_u16();
    let location = answer.header("location");
    if !location.is_empty() {
        return format!("{status} to {location}");
    }
    match answer.body.split_once(' ') {
        Some((name @ ("web" | "other"), _)) => format!("{status} from {name}"),
        _ => status.to_string(),
    }
}

/// A request, what it shows without a profile, with nginx's and with the strict one, and what the row is about.
type Row = (&'static str, &'static str, [String; 3], &'static str);

fn rows() -> Vec<Row> {
    let slash = |path: &str| format!("301 to http://plain.test{path}");
    let same = |text: &str| [text, text, text].map(str::to_owned);
    let by = |texts: [&str; 3]| texts.map(str::to_owned);
    vec![
        (
            "plain.test",
            "/p?q=1",
            [
                "200 from web".to_owned(),
                slash("/p/?q=1"),
                "200 from web".to_owned(),
            ],
            "a prefix that ends with a slash",
        ),
        ("plain.test", "/p/x", same("200 from web"), "below it"),
        ("plain.test", "/e/", same("200 from web"), "the path itself"),
        (
            "plain.test",
            "/e",
            ["404".to_owned(), slash("/e/"), "404".to_owned()],
            "an exact path that ends with a slash",
        ),
        (
            "plain.test",
            "/both",
            same("200 from other"),
            "a path of its own comes first",
        ),
        (
            "plain.test",
            "/target",
            by(["200 from web", "200 from web", "503"]),
            "a number that is the targetPort of a port only",
        ),
        (
            "regex.test",
            "/V12/x",
            same("200 from web"),
            "a regular expression, whatever the case",
        ),
        (
            "regex.test",
            "/exact/more",
            by(["200 from other", "200 from other", "404"]),
            "Exact on a host with regular expressions",
        ),
        (
            "regex.test",
            "/prefixed",
            by(["200 from other", "200 from other", "404"]),
            "Prefix on a host with regular expressions",
        ),
        (
            "regex.test",
            "/PREFIX/x",
            by(["200 from other", "200 from other", "404"]),
            "the case of Prefix on such a host",
        ),
        (
            "regex.test",
            "/prefix/x",
            same("200 from other"),
            "what it means either way",
        ),
        (
            "default.test",
            "/nowhere",
            same("200 from other"),
            "the default backend for a host of the rules",
        ),
        (
            "nobody.test",
            "/",
            by(["404", "404", "200 from other"]),
            "the default backend for any other host",
        ),
        (
            "tls.test",
            "/",
            by([
                "308 to https://tls.test/",
                "308 to https://tls.test/",
                "200 from web",
            ]),
            "plain HTTP to a host with a certificate",
        ),
    ]
}

#[tokio::test]
async fn every_profile_follows_whom_it_says() {
    let (web, other) = (Origin::start("web").await, Origin::start("other").await);
    // Port 8080 is one of the pods alone.
    let web = service("web", &[web.port]).replacen(
        "{name: web, port: 80}",
        "{name: web, port: 80, targetPort: 8080}",
        1,
    );
    let other = service("other", &[other.port]);
    let profiles = [None, Some(Compat::Nginx), Some(Compat::Strict)];
    let mut worlds = Vec::new();
    for compat in profiles {
        let authority = Authority::new();
        let pair = authority.sign("tls.test");
        let files = [
            ("all.yaml", MANIFESTS.to_owned()),
            ("web.yaml", web.clone()),
            ("other.yaml", other.clone()),
            ("secret.yaml", secret("tls", &pair)),
        ];
        let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
        let world = World::start_with(authority, &files, |settings| {
            settings.translation.compat = compat;
        });
        worlds.push(world.await);
    }
    for (host, path, want, why) in rows() {
        for ((world, want), profile) in worlds.iter().zip(want).zip(profiles) {
            let answer = world.get(host, path).await;
            assert_eq!(shown(&answer), want, "{profile:?} {host}{path}: {why}");
        }
    }
    for (world, want) in worlds.iter().zip(["origin/1", "", "lockgate"]) {
        let answer = world.get("plain.test", "/p/").await;
        assert_eq!(answer.header("server"), want);
    }
}

#[tokio::test]
async fn a_setting_prevails_over_the_profile() {
    let web = Origin::start("web").await;
    let authority = Authority::new();
    let pair = authority.sign("tls.test");
    let settings = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, namespace: test}\n\
        data: {ssl-redirect: 'true', server-tokens: 'false'}\n";
    let files = [
        ("all.yaml", MANIFESTS.to_owned()),
        ("web.yaml", service("web", &[web.port])),
        ("secret.yaml", secret("tls", &pair)),
        ("settings.yaml", settings.to_owned()),
    ];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let world = World::start_with(authority, &files, |settings| {
        settings.translation.compat = Some(Compat::Strict);
    })
    .await;
    assert_eq!(world.get("tls.test", "/").await.status.as_u16(), 308);
    let answer = world.get("plain.test", "/p/").await;
    assert_eq!(answer.header("server"), "origin/1");
}
