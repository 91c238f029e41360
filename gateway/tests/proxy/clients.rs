//! Certificates of clients: who passes, what a backend learns, and that nothing that was shown elsewhere counts.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::{
    AskedCertificate, CertificateId, ClientAuth, ClientCertificate, EnoughCertificate, Filter,
    HostPattern, RoutingModel, TlsHost, TlsPolicy,
};
use rcgen::KeyPair;
use rustls::HandshakeKind;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::{TLS12, TLS13};

use crate::support::*;

#[path = "identities.rs"]
mod identities;

use self::identities::{Client, Hosts, Identity, Issuer, authority, hosts};

fn auth(by: &[&Issuer]) -> Arc<ClientAuth> {
    let authorities: Vec<_> = by.iter().map(|by| by.der().to_vec()).collect();
    let marks: Vec<_> = authorities.iter().map(|der| mark(der)).collect();
    Arc::new(ClientAuth {
        fingerprint: marks.concat().into(),
        authorities: Arc::new(authorities),
        revoked: Arc::default(),
        depth: 1,
    })
}

/// The end of a certificate is a signature: no two are the same.
fn mark(der: &[u8]) -> String {
    let (_, end) = der.split_at(der.len() - 16);
    format!("{:032x}", u128::from_be_bytes(end.try_into().unwrap()))
}

fn asked(auth: &ClientAuth, enough: EnoughCertificate) -> ClientCertificate {
    ClientCertificate {
        asked: Some(AskedCertificate {
            fingerprint: auth.fingerprint.clone(),
            enough,
        }),
        ..ClientCertificate::default()
    }
}

/// Serves a host, and asks clients for this.
fn ask(
    model: &mut RoutingModel,
    host: &str,
    auth: Option<&Arc<ClientAuth>>,
    wanted: Option<ClientCertificate>,
) {
    let pattern = HostPattern::parse(host).unwrap();
    model.hosts.remove(&pattern);
    add_route_with(model, host, "/", forward("web"), |route| {
        route
            .filters
            .extend(wanted.map(|wanted| Filter::ClientCertificate(Arc::new(wanted))));
    });
    let policy = TlsPolicy {
        client_auth: auth.cloned(),
        ..TlsPolicy::default()
    };
    let tls = TlsHost {
        certificates: vec![CertificateId::new("all")],
        policy,
        origin: origin("tls"),
    };
    model.tls_hosts.insert(pattern, Arc::new(tls));
}

async fn get(
    sender: &mut http1::SendRequest<Full<Bytes>>,
    host: &str,
    fields: &[(&str, &str)],
) -> Answer {
    let mut request = Request::get(format!("/{host}")).header("host", host);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::new())).unwrap();
    Answer::read(soon(sender.send_request(request)).await.unwrap()).await
}

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&TLS13, &TLS12];

#[tokio::test]
async fn a_client_passes_with_what_the_host_wants() {
    let (own, foreign) = (authority("own"), authority("foreign"));
    let names = [
        "good.test",
        "optional.test",
        "any.test",
        "off.test",
        "open.test",
    ];
    let Hosts { mut model, roots } = hosts(&names);
    add_backend(&mut model, "web", &[echo("web").await]);
    let auth = auth(&[&own]);
    for (host, enough) in [
        ("good.test", EnoughCertificate::Good),
        ("optional.test", EnoughCertificate::GoodOrNone),
        ("any.test", EnoughCertificate::AnyAuthority),
    ] {
        ask(&mut model, host, Some(&auth), Some(asked(&auth, enough)));
    }
    ask(
        &mut model,
        "off.test",
        None,
        Some(ClientCertificate::default()),
    );
    ask(&mut model, "open.test", None, None);
    let site = Site::start(model);
    let identities = [
        ("none", None),
        ("good", Some(Identity::issued(&own, "good"))),
        ("old", Some(Identity::of_version_1(&own, "old"))),
        ("foreign", Some(Identity::issued(&foreign, "client"))),
        (
            "expired",
            Some(Identity::issued_until(&own, "expired", 2020)),
        ),
    ]
    .map(|(name, identity)| (name, identity.map(Arc::new)));
    let unknown = "FAILED:unable to verify the first certificate";
    for (host, wants) in [
        ("good.test", ["400", "SUCCESS", "SUCCESS", "400", "400"]),
        (
            "optional.test",
            ["NONE", "SUCCESS", "SUCCESS", "400", "400"],
        ),
        ("any.test", ["NONE", "SUCCESS", "SUCCESS", unknown, "400"]),
        ("off.test", ["NONE"; 5]),
        ("open.test", [""; 5]),
    ] {
        for ((name, identity), want) in identities.iter().zip(wants) {
            for (version, versions) in [(12, &BOTH[1..]), (13, &BOTH[..1])] {
                let what = format!("{name} on {host} with TLS 1.{}", version - 10);
                let client = Client::new(&roots, identity.as_ref(), "http/1.1", versions);
                let mut sender = client.http1(&site, host).await;
                let answer = get(&mut sender, host, &[]).await;
                if want == "400" {
                    assert_eq!(answer.status, 400, "{what}");
                    assert_eq!(answer.header("connection"), Some("close"), "{what}");
                } else {
                    assert_eq!(answer.status, 200, "{what}");
                    let seen = answer.seen_header("ssl-client-verify").join(",");
                    assert_eq!(seen, want, "{what}");
                }
            }
        }
    }
    let missing = site
        .log
        .line(|line| line["reason"] == "client-certificate-missing");
    assert_eq!(missing.await["status"], 400);
    let invalid = site
        .log
        .line(|line| line["reason"] == "client-certificate-invalid");
    assert_eq!(invalid.await["ssl_client_verify"], unknown);
}

#[tokio::test]
async fn a_certificate_without_its_key_gets_nowhere() {
    let own = authority("own");
    let Hosts { mut model, roots } = hosts(&["any.test"]);
    add_backend(&mut model, "web", &[echo("web").await]);
    let auth = auth(&[&own]);
    let wanted = asked(&auth, EnoughCertificate::AnyAuthority);
    ask(&mut model, "any.test", Some(&auth), Some(wanted));
    let site = Site::start(model);
    let stolen = Identity::issued(&own, "alice").der().clone();
    let thief = Identity::new(vec![stolen], &KeyPair::generate().unwrap());
    let thief = Arc::new(thief);
    for versions in [&BOTH[..1], &BOTH[1..]] {
        let client = Client::new(&roots, Some(&thief), "http/1.1", versions);
        // With TLS 1.3 a client learns it from the first read.
        let Ok(stream) = client.connect(&site, "any.test").await else {
            continue;
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get("/").header("host", "any.test");
        let request = request.body(Full::new(Bytes::new())).unwrap();
        assert!(soon(sender.send_request(request)).await.is_err());
    }
}

#[tokio::test]
async fn a_backend_learns_what_was_verified_and_nothing_that_a_client_says() {
    let own = authority("own, root");
    let Hosts { mut model, roots } = hosts(&["a.test", "passed.test", "open.test"]);
    add_backend(&mut model, "web", &[echo("web").await]);
    // Even whoever may speak for clients may not say this.
    model.trust.forwarded_headers_from = vec!["127.0.0.0/8".parse().unwrap()];
    let auth = auth(&[&own]);
    let wanted = asked(&auth, EnoughCertificate::GoodOrNone);
    let passed = ClientCertificate {
        passed_on: true,
        ..wanted.clone()
    };
    ask(&mut model, "a.test", Some(&auth), Some(wanted));
    ask(&mut model, "passed.test", Some(&auth), Some(passed));
    ask(&mut model, "open.test", None, None);
    let site = Site::start(model);
    let identity = Arc::new(Identity::issued(&own, "Zoë"));
    let lies = [
        ("ssl-client-verify", "SUCCESS"),
        ("ssl-client-subject-dn", "CN=root"),
        ("ssl-client-issuer-dn", "CN=root"),
        ("ssl-client-cert", "lies"),
        ("ssl_client_verify", "SUCCESS"),
    ];
    let names = [
        "ssl-client-verify",
        "ssl-client-subject-dn",
        "ssl-client-issuer-dn",
    ];
    for (host, identity, want) in [
        (
            "a.test",
            Some(&identity),
            ["SUCCESS", "CN=Zo\\C3\\AB", "CN=own\\, root"],
        ),
        ("a.test", None, ["NONE", "", ""]),
        (
            "passed.test",
            Some(&identity),
            ["SUCCESS", "CN=Zo\\C3\\AB", "CN=own\\, root"],
        ),
        ("passed.test", None, ["NONE", "", ""]),
    ] {
        let client = Client::new(&roots, identity, "http/1.1", BOTH);
        let mut sender = client.http1(&site, host).await;
        let answer = get(&mut sender, host, &lies).await;
        for (name, want) in names.iter().zip(want) {
            assert_eq!(answer.seen_header(name).join("|"), want, "{host} {name}");
        }
        let certificate = answer.seen_header("ssl-client-cert").join("|");
        if host == "passed.test"
            && let Some(identity) = identity
        {
            let text = certificate
                .replace("%20", " ")
                .replace("%0A", "\n")
                .replace("%2B", "+")
                .replace("%2F", "/")
                .replace("%3D", "=");
            assert!(!text.contains('%'), "{certificate}");
            let read = CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
            assert_eq!(&read, identity.der());
        } else {
            assert_eq!(certificate, "", "{host}");
        }
        assert_eq!(answer.seen_header("ssl_client_verify").join("|"), "");
    }
    let plain = site.get_with("a.test", "/", &lies).await;
    assert_eq!(plain.seen_header("ssl-client-verify"), ["NONE"]);
    assert!(plain.seen_header("ssl-client-cert").is_empty());
}

#[tokio::test]
async fn the_subject_decides_and_others_are_sent_elsewhere() {
    let own = authority("own");
    let Hosts { mut model, roots } = hosts(&["named.test", "page.test", "nobody.test"]);
    add_backend(&mut model, "web", &[echo("web").await]);
    let auth = auth(&[&own]);
    let named = ClientCertificate {
        subject: Some("CN=al[a-z]+$".to_owned()),
        error_page: Some("https://help.test/certificates".to_owned()),
        ..asked(&auth, EnoughCertificate::GoodOrNone)
    };
    let page = ClientCertificate {
        subject: None,
        ..ClientCertificate {
            asked: asked(&auth, EnoughCertificate::Good).asked,
            ..named.clone()
        }
    };
    let nobody = ClientCertificate {
        asked: None,
        ..named.clone()
    };
    ask(&mut model, "named.test", Some(&auth), Some(named));
    ask(&mut model, "page.test", Some(&auth), Some(page));
    ask(&mut model, "nobody.test", None, Some(nobody));
    let site = Site::start(model);
    let alice = Arc::new(Identity::issued(&own, "alice"));
    let mallory = Arc::new(Identity::issued(&own, "mallory"));
    for (host, identity, want, why) in [
        ("named.test", Some(&alice), 200, ""),
        ("named.test", Some(&mallory), 403, "another name"),
        ("named.test", None, 403, "no certificate has no name"),
        ("page.test", Some(&mallory), 200, "any name"),
        ("page.test", None, 302, "the error page"),
        ("nobody.test", Some(&alice), 403, "nobody is asked"),
    ] {
        let client = Client::new(&roots, identity, "http/1.1", BOTH);
        let mut sender = client.http1(&site, host).await;
        let answer = get(&mut sender, host, &[]).await;
        assert_eq!(answer.status, want, "{host}: {why}");
        if want == 302 {
            assert_eq!(
                answer.header("location"),
                Some("https://help.test/certificates")
            );
        }
    }
}

#[tokio::test]
async fn what_was_shown_for_one_name_does_not_count_for_another() {
    let (own, other) = (authority("own"), authority("other"));
    let names = ["own.test", "same.test", "other.test", "open.test"];
    let Hosts { mut model, roots } = hosts(&names);
    add_backend(&mut model, "web", &[echo("web").await]);
    let own_auth = auth(&[&own]);
    let other_auth = auth(&[&other]);
    for (host, auth) in [
        ("own.test", &own_auth),
        ("same.test", &own_auth),
        ("other.test", &other_auth),
    ] {
        let wanted = asked(auth, EnoughCertificate::Good);
        ask(&mut model, host, Some(auth), Some(wanted));
    }
    ask(&mut model, "open.test", None, None);
    let site = Site::start(model);
    let identity = Arc::new(Identity::issued(&own, "client"));
    let cases = [
        ("own.test", "own.test", 200),
        ("own.test", "OWN.test.:443", 200),
        ("own.test", "same.test", 200),
        ("own.test", "other.test", 421),
        ("own.test", "open.test", 421),
        ("open.test", "own.test", 421),
        ("open.test", "OWN.TEST.", 421),
        ("other.test", "own.test", 421),
    ];
    for (name, host, want) in cases {
        let client = Client::new(&roots, Some(&identity), "http/1.1", BOTH);
        let mut sender = client.http1(&site, name).await;
        let first = get(&mut sender, name, &[]).await;
        let answer = if sender.is_closed() || first.header("connection") == Some("close") {
            let mut sender = client.http1(&site, name).await;
            get(&mut sender, host, &[]).await
        } else {
            get(&mut sender, host, &[]).await
        };
        assert_eq!(answer.status, want, "HTTP/1.1 for {name} to {host}");

        let client = Client::new(&roots, Some(&identity), "h2", BOTH);
        let stream = client.connect(&site, name).await.unwrap();
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        for (host, want) in [(name, None), (host, Some(want)), (name, None)] {
            let request = Request::get(format!("https://{host}/"));
            let request = request.body(Full::new(Bytes::new())).unwrap();
            let response = soon(sender.send_request(request)).await.unwrap();
            if let Some(want) = want {
                assert_eq!(response.status(), want, "HTTP/2 for {name} to {host}");
            }
        }
    }
}

#[tokio::test]
async fn a_connection_that_meets_a_new_authority_is_judged_anew() {
    let (old, new) = (authority("old"), authority("new"));
    let Hosts { mut model, roots } = hosts(&["a.test"]);
    add_backend(&mut model, "web", &[echo("web").await]);
    let publish = |model: &mut RoutingModel, by: &[&Issuer]| {
        let auth = auth(by);
        let wanted = asked(&auth, EnoughCertificate::Good);
        ask(model, "a.test", Some(&auth), Some(wanted));
    };
    publish(&mut model, &[&old]);
    let mut site = Site::start(model);
    let client = |identity: &Arc<Identity>| Client::new(&roots, Some(identity), "http/1.1", BOTH);
    let (of_old, of_new) = (
        Arc::new(Identity::issued(&old, "client")),
        Arc::new(Identity::issued(&new, "client")),
    );
    let mut kept = client(&of_old).http1(&site, "a.test").await;
    assert_eq!(get(&mut kept, "a.test", &[]).await.status, 200);

    site.change(|model| publish(model, &[&old, &new]));
    assert_eq!(
        get(&mut kept, "a.test", &[]).await.status,
        200,
        "both are listed"
    );
    let mut fresh = client(&of_new).http1(&site, "a.test").await;
    assert_eq!(get(&mut fresh, "a.test", &[]).await.status, 200);

    site.change(|model| publish(model, &[&new]));
    assert_eq!(get(&mut fresh, "a.test", &[]).await.status, 200);
    assert_eq!(
        get(&mut kept, "a.test", &[]).await.status,
        400,
        "taken off the list"
    );
    let mut again = client(&of_old).http1(&site, "a.test").await;
    assert_eq!(get(&mut again, "a.test", &[]).await.status, 400);

    site.change(|model| ask(model, "a.test", None, None));
    assert_eq!(
        get(&mut fresh, "a.test", &[]).await.status,
        200,
        "nobody is asked any more"
    );
}

#[tokio::test]
async fn a_connection_that_was_not_asked_is_misdirected_once_its_host_asks() {
    let own = authority("own");
    let Hosts { mut model, roots } = hosts(&["a.test"]);
    add_backend(&mut model, "web", &[echo("web").await]);
    ask(&mut model, "a.test", None, None);
    let mut site = Site::start(model);
    let identity = Arc::new(Identity::issued(&own, "client"));
    let client = Client::new(&roots, Some(&identity), "http/1.1", BOTH);
    let mut kept = client.http1(&site, "a.test").await;
    assert_eq!(get(&mut kept, "a.test", &[]).await.status, 200);
    site.change(|model| {
        let auth = auth(&[&own]);
        let wanted = asked(&auth, EnoughCertificate::GoodOrNone);
        ask(model, "a.test", Some(&auth), Some(wanted));
    });
    let answer = get(&mut kept, "a.test", &[]).await;
    assert_eq!(answer.status, 421);
    assert_eq!(
        answer.header("connection"),
        Some("close"),
        "it has to come again"
    );
    let mut fresh = client.http1(&site, "a.test").await;
    assert_eq!(get(&mut fresh, "a.test", &[]).await.status, 200);
}

#[tokio::test]
async fn sessions_are_resumed_only_where_nobody_is_asked() {
    let own = authority("own");
    let Hosts { mut model, roots } = hosts(&["asks.test", "open.test"]);
    add_backend(&mut model, "web", &[echo("web").await]);
    let auth = auth(&[&own]);
    let wanted = asked(&auth, EnoughCertificate::GoodOrNone);
    ask(&mut model, "asks.test", Some(&auth), Some(wanted));
    ask(&mut model, "open.test", None, None);
    let site = Site::start(model);
    let identity = Arc::new(Identity::issued(&own, "client"));
    for versions in [&BOTH[..1], &BOTH[1..]] {
        let client = Client::new(&roots, Some(&identity), "http/1.1", versions);
        for (host, want) in [
            ("open.test", HandshakeKind::Resumed),
            ("asks.test", HandshakeKind::Full),
        ] {
            let mut kind = None;
            for _ in 0..2 {
                let stream = client.connect(&site, host).await.unwrap();
                kind = stream.get_ref().1.handshake_kind();
                let (mut sender, connection) =
                    http1::handshake(TokioIo::new(stream)).await.unwrap();
                tokio::spawn(connection);
                assert_eq!(get(&mut sender, host, &[]).await.status, 200);
            }
            assert_eq!(kind, Some(want), "{host}");
        }
    }
}

#[tokio::test]
async fn over_plain_http_nobody_has_a_certificate() {
    let own = authority("own");
    let Hosts { mut model, .. } = hosts(&["good.test"]);
    add_backend(&mut model, "web", &[echo("web").await]);
    let auth = auth(&[&own]);
    let good = asked(&auth, EnoughCertificate::Good);
    let challenge = ClientCertificate {
        open_without_tls: true,
        ..good.clone()
    };
    ask(&mut model, "good.test", Some(&auth), Some(good.clone()));
    ask(&mut model, "challenge.test", Some(&auth), Some(challenge));
    ask(
        &mut model,
        "optional.test",
        Some(&auth),
        Some(asked(&auth, EnoughCertificate::GoodOrNone)),
    );
    let site = Site::start(model);
    for (host, want) in [
        ("good.test", 400),
        ("challenge.test", 200),
        ("optional.test", 200),
    ] {
        let answer = site.get(host, "/").await;
        assert_eq!(answer.status, want, "{host}");
    }
}
