//! Entries that the table cannot hold: each is reported, and none takes another one down.

mod common;

use std::sync::Arc;

use http::StatusCode;
use model::{
    Action, CertificateId, Filter, HeaderChange, HeaderMatch, HttpsRedirect, KeyAlgorithm,
    ObjectRef, Origin, Redirect, Route, RouteMatch, RoutingModel, TextMatch, TlsPolicy,
    WeightedBackend,
};
use table::{CompiledAction, CompiledFilter, INVALID_ROUTE, compile};

use crate::common::{
    add_host, backend, certificate, empty_model, get, only, origin, path, pattern, route, tls_host,
    winner,
};

/// A model in which `/bad` of a.test is `bad` and everything else is in order.
fn around(bad: Route) -> RoutingModel {
    let mut model = empty_model();
    let good = |to: &str| route(RouteMatch::path(path("/")), to);
    add_host(&mut model, "a.test", vec![good("root"), bad, good("later")]);
    add_host(&mut model, "b.test", vec![good("other host")]);
    model
}

fn bad_route() -> Route {
    route(RouteMatch::path(path("/bad")), "bad")
}

#[test]
fn a_route_that_cannot_be_matched_is_left_out() {
    let with = |change: fn(&mut RouteMatch)| {
        let mut route = bad_route();
        change(&mut route.matches);
        route
    };
    for (bad, want) in [
        (
            with(|matches| matches.path = path("~ /bad(")),
            "regular expression `/bad(`: unclosed group at character 5; this route is not served",
        ),
        (
            with(|matches| matches.path = path("~ /(a{1000}){1000}")),
            "it takes more than 1048576 bytes when compiled; this route is not served",
        ),
        (
            with(|matches| matches.method = Some("G ET".to_owned())),
            "`G ET` is not a method; this route is not served",
        ),
        (
            with(|matches| {
                matches.headers = vec![HeaderMatch {
                    name: "a\nb".to_owned(),
                    value: TextMatch::Exact(String::new()),
                }];
            }),
            r"`a\nb` is not a header name; this route is not served",
        ),
        (
            with(|matches| {
                matches.headers = vec![HeaderMatch {
                    name: "ab".to_owned(),
                    value: TextMatch::Regex("[".to_owned()),
                }];
            }),
            "regular expression `[`: unclosed character class at character 1; this route is not served",
        ),
    ] {
        let compiled = compile(&around(bad));
        let [reject] = &compiled.rejects[..] else {
            panic!("{want}: {:?}", compiled.rejects);
        };
        assert!(reject.reason.ends_with(want), "{}", reject.reason);
        assert_eq!(reject.origin, origin("bad"));
        assert_eq!(winner(&compiled.table, "a.test", "/bad"), Some("root"));
        assert_eq!(winner(&compiled.table, "b.test", "/"), Some("other host"));
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn a_route_that_cannot_be_carried_out_is_closed_instead_of_bypassed() {
    let with = |change: fn(&mut Route)| {
        let mut route = bad_route();
        change(&mut route);
        route
    };
    let headers = |change: HeaderChange| Filter::RequestHeaders(change);
    let named = |name: &str| HeaderChange {
        remove: vec![name.to_owned()],
        ..HeaderChange::default()
    };
    let filtered = |filter: Filter| {
        let mut route = bad_route();
        route.filters = vec![filter].into();
        route
    };
    for (bad, want) in [
        (
            with(|route| {
                route.action = Action::Redirect(Box::new(Redirect {
                    status: 200,
                    ..Redirect::default()
                }));
            }),
            "status 200 is not one of 301, 302, 303, 307, 308",
        ),
        (
            with(|route| {
                route.action = Action::Redirect(Box::new(Redirect {
                    status: 302,
                    host: Some("a b".to_owned()),
                    ..Redirect::default()
                }));
            }),
            "redirect host `a b`: `a b` is not a DNS label",
        ),
        (
            with(|route| {
                route.action = Action::Redirect(Box::new(Redirect {
                    status: 302,
                    path: Some("/a\r\nSet-Cookie: b".to_owned()),
                    ..Redirect::default()
                }));
            }),
            "the path of a redirect has to start with `/` and to be printable ASCII",
        ),
        (
            with(|route| {
                route.action = Action::Redirect(Box::new(Redirect {
                    status: 302,
                    scheme: Some("javascript".to_owned()),
                    ..Redirect::default()
                }));
            }),
            "a redirect to the scheme `javascript` is not possible",
        ),
        (
            with(|route| {
                route.action = Action::Respond {
                    status: 101,
                    reason: String::new(),
                };
            }),
            "status 101 is not between 200 and 599",
        ),
        (
            filtered(Filter::HttpsRedirect(HttpsRedirect {
                status: 404,
                except: Vec::new(),
            })),
            "status 404 is not one of 301, 302, 303, 307, 308",
        ),
        (
            filtered(headers(named("a b"))),
            "`a b` is not a header name",
        ),
        (
            filtered(headers(HeaderChange {
                set: vec![("x-a".to_owned(), "a\nb".to_owned())],
                ..HeaderChange::default()
            })),
            "the value for header `x-a` is not a header value",
        ),
        (
            filtered(headers(named("Transfer-Encoding"))),
            "header `transfer-encoding` is not a route's to change",
        ),
    ] {
        let compiled = compile(&around(bad));
        let [reject] = &compiled.rejects[..] else {
            panic!("{want}: {:?}", compiled.rejects);
        };
        assert_eq!(
            reject.to_string(),
            format!(
                "Ingress shop/web bad: {want}; requests of this route are answered with status 503"
            )
        );
        let closed = get(&compiled.table, "a.test", "/bad").unwrap();
        assert_eq!(&*closed.origin.field, "bad");
        assert_eq!(
            closed.action,
            CompiledAction::Respond {
                status: StatusCode::SERVICE_UNAVAILABLE,
                reason: INVALID_ROUTE.into(),
            }
        );
        assert!(closed.filters.is_empty());
        assert_eq!(winner(&compiled.table, "a.test", "/"), Some("root"));
        assert_eq!(winner(&compiled.table, "b.test", "/"), Some("other host"));
    }
}

#[test]
fn a_listener_that_does_not_exist_takes_no_other_away() {
    let mut bad = bad_route();
    bad.listeners = only(&["http", "nowhere"]);
    let compiled = compile(&around(bad));
    assert_eq!(
        compiled.rejects[0].reason,
        "there is no listener `nowhere`; this route is not served there"
    );
    assert_eq!(winner(&compiled.table, "a.test", "/bad"), Some("bad"));
}

#[test]
fn weights_of_zero_and_missing_backends_are_no_rejects() {
    let mut idle = bad_route();
    idle.action = Action::Forward(vec![WeightedBackend {
        backend: backend("idle"),
        weight: 0,
    }]);
    let compiled = compile(&around(idle));
    assert!(compiled.rejects.is_empty());
    let target = |path: &str| match &get(&compiled.table, "a.test", path).unwrap().action {
        CompiledAction::Forward(targets) => targets.choose(0),
        other @ (CompiledAction::Redirect(_) | CompiledAction::Respond { .. }) => {
            panic!("{other:?}")
        }
    };
    assert_eq!(target("/bad"), None);
    assert!(compiled.table.backend(target("/").unwrap()).is_none());
}

#[test]
fn a_broken_fallback_answers_503() {
    let mut model = empty_model();
    let mut fallback = bad_route();
    fallback.action = Action::Respond {
        status: 1000,
        reason: String::new(),
    };
    model.fallback = Some(Arc::new(fallback));
    let compiled = compile(&model);
    assert_eq!(compiled.rejects.len(), 1);
    assert!(matches!(
        compiled.table.fallback().unwrap().action,
        CompiledAction::Respond {
            status: StatusCode::SERVICE_UNAVAILABLE,
            ..
        }
    ));
}

#[test]
fn filters_are_compiled_to_what_is_sent() {
    let mut route = bad_route();
    route.filters = vec![
        Filter::Hsts(model::Hsts {
            max_age: 31_536_000,
            include_subdomains: true,
            preload: true,
        }),
        Filter::ResponseHeaders(HeaderChange {
            add: vec![("X-Frame-Options".to_owned(), "DENY".to_owned())],
            ..HeaderChange::default()
        }),
    ]
    .into();
    let compiled = compile(&around(route));
    let [
        CompiledFilter::Hsts(value),
        CompiledFilter::ResponseHeaders(change),
    ] = &get(&compiled.table, "a.test", "/bad").unwrap().filters[..]
    else {
        panic!("two filters in their order");
    };
    assert_eq!(value, "max-age=31536000; includeSubDomains; preload");
    assert_eq!(change.add[0].0, "x-frame-options");
}

#[test]
fn certificates_and_policies_are_reported_one_by_one() {
    let mut model = empty_model();
    let good = certificate(KeyAlgorithm::Ecdsa, &["a.test"], "good");
    let mut mismatched = certificate(KeyAlgorithm::Ecdsa, &["a.test"], "mismatched");
    mismatched.key = good.key.clone();
    let mut empty = good.clone();
    empty.chain.clear();
    Arc::make_mut(&mut empty.origin.object).name = "empty".into();
    let mut garbage = certificate(KeyAlgorithm::Ecdsa, &["a.test"], "garbage");
    garbage.chain = vec![vec![0x30, 1, 2, 3]];
    let mut no_key = certificate(KeyAlgorithm::Ecdsa, &["a.test"], "no-key");
    no_key.key.format = model::KeyFormat::Pkcs1;
    for (id, certificate) in [
        ("a", good),
        ("b", mismatched),
        ("c", empty),
        ("d", garbage),
        ("e", no_key),
    ] {
        model
            .certificates
            .insert(CertificateId::new(id), Arc::new(certificate));
    }
    let strange = TlsPolicy {
        cipher_suites: vec!["TLS_NULL_WITH_NULL_NULL".to_owned()],
        ..TlsPolicy::default()
    };
    model.tls_hosts.insert(
        pattern("a.test"),
        tls_host(&["b", "a"], TlsPolicy::default()),
    );
    model
        .tls_hosts
        .insert(pattern("b.test"), tls_host(&["a"], strange));
    model.default_tls = Some(tls_host(&["a"], TlsPolicy::default()));
    let compiled = compile(&model);
    let secret = |name: &str| Origin::new(ObjectRef::new("Secret", "shop", name), "");
    let got: Vec<_> = compiled
        .rejects
        .iter()
        .map(|reject| {
            (
                reject.origin.clone(),
                reject.reason.split(';').next().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        got,
        [
            (
                origin("spec.tls[0]"),
                "`TLS_NULL_WITH_NULL_NULL` is not a cipher suite of Lockgate"
            ),
            (
                secret("mismatched"),
                "the private key does not belong to the certificate"
            ),
            (secret("empty"), "there is no certificate"),
            (
                secret("garbage"),
                "the certificate cannot be read: invalid peer certificate: BadEncoding"
            ),
            (
                secret("no-key"),
                "the private key cannot be read, or is of a kind that is not supported"
            ),
        ]
    );
    let table = compiled.table;
    assert!(
        table.tls(Some("a.test")).is_some(),
        "by its other certificate"
    );
    assert!(
        table.tls(Some("b.test")).is_none(),
        "not with a weaker policy"
    );
    assert!(table.tls(Some("c.test")).is_some(), "by the default");
}
