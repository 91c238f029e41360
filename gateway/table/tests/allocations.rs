//! Looking up allocates nothing. A test binary of its own, because it counts for the whole process.

mod common;

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use model::{HeaderMatch, ListenerName, QueryMatch, RouteMatch, TextMatch, TlsPolicy};
use table::{CompiledAction, Lookup, channel, compile};

use crate::common::{
    ALGORITHMS, add_host, certificate, empty_model, only, path, pattern, route, tls_host,
};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

#[test]
fn a_lookup_allocates_nothing() {
    let mut model = empty_model();
    for n in 0..2000 {
        let host = format!("host-{n}.example.test");
        add_host(
            &mut model,
            &host,
            vec![route(RouteMatch::path(path("/")), "a")],
        );
        model
            .tls_hosts
            .insert(pattern(&host), tls_host(&["c"], TlsPolicy::default()));
    }
    let mut picky = RouteMatch::path(path("/picky"));
    picky.method = Some("GET".to_owned());
    picky.headers = vec![HeaderMatch {
        name: "x-version".to_owned(),
        value: TextMatch::Regex("v[0-9]+,v[0-9]+".to_owned()),
    }];
    picky.query = vec![QueryMatch {
        name: "debug".to_owned(),
        value: TextMatch::Exact("1".to_owned()),
    }];
    let mut routes = vec![
        route(picky, "picky"),
        route(
            RouteMatch::path(path("~ /api/v[0-9]+/(users|groups)")),
            "regex",
        ),
    ];
    for n in 0..50 {
        let mut prefix = route(RouteMatch::path(path(&format!("/prefix/{n}/"))), "a");
        prefix.listeners = only(&["http"]);
        routes.push(prefix);
        routes.push(route(RouteMatch::path(path(&format!("= /exact/{n}"))), "a"));
    }
    add_host(&mut model, "**.many.test", routes);
    let key = certificate(ALGORITHMS[0].0, &["a.test"], "c");
    model
        .certificates
        .insert(model::CertificateId::new("c"), Arc::new(key));
    for service in ["a", "picky", "regex"] {
        model
            .endpoints
            .insert(common::backend(service), Arc::default());
    }
    let (_writer, reader) = channel(compile(&model).table);

    let mut headers = HeaderMap::new();
    for value in ["v1", "v2"] {
        headers.append(
            HeaderName::from_static("x-version"),
            HeaderValue::from_static(value),
        );
    }
    let requests = [
        ("host-7.example.test", "/", true),
        ("unknown.example.test", "/", false),
        ("x.y.many.test", "/picky/1", true),
        ("x.y.many.test", "/prefix/7/8/9", true),
        ("x.y.many.test", "/exact/8", true),
        ("x.y.many.test", "/api/v12/users/7", true),
        ("x.y.many.test", "/nothing", false),
    ];
    let http = ListenerName::http();
    let serve_all = || {
        for (host, path, known) in requests {
            let table = reader.pin();
            let request = Lookup {
                listener: table.listener(&http).unwrap(),
                host,
                path,
                query: Some("a=b&debug=1"),
                method: &Method::GET,
                headers: &headers,
            };
            let found = table.lookup(&request);
            assert_eq!(found.is_some(), known, "{host} {path}");
            if let Some(CompiledAction::Forward(targets)) = found.map(|route| &route.action) {
                let slot = targets.choose(7).unwrap();
                assert!(table.backend(slot).is_some());
            }
            assert_eq!(table.tls(Some(host)).is_some(), host.starts_with("host-"));
        }
    };
    serve_all(); // regular expressions make their caches when first used

    let _profiler = dhat::Profiler::builder().testing().build();
    let before = dhat::HeapStats::get();
    for _ in 0..100 {
        serve_all();
    }
    let after = dhat::HeapStats::get();
    assert_eq!(after.total_blocks - before.total_blocks, 0);

    // The counter does count.
    drop(std::hint::black_box(Box::new(7)));
    assert_eq!(dhat::HeapStats::get().total_blocks - after.total_blocks, 1);
}
