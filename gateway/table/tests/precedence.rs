//! Which route takes a request: the rules of the Ingress API and of `model::RouteMatch`, as tables.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use model::{HeaderMatch, ListenerName, QueryMatch, Route, RouteMatch, TextMatch};
use table::{Lookup, Table, compile};

use crate::common::{add_host, empty_model, only, path, route, winner};

fn paths(texts: &[&str]) -> Vec<Route> {
    texts
        .iter()
        .map(|text| route(RouteMatch::path(path(text)), text))
        .collect()
}

/// The same routes among so many others that they are found by hash, not one by one.
fn crowded(mut routes: Vec<Route>) -> Vec<Route> {
    let others = (0..20).map(|n| format!("{}/other/{n}", if n < 10 { "= " } else { "" }));
    for other in others {
        routes.push(route(RouteMatch::path(path(&other)), &other));
    }
    routes
}

fn table_of(routes: Vec<Route>) -> Table {
    let mut model = empty_model();
    add_host(&mut model, "a.test", routes);
    let compiled = compile(&model);
    assert_eq!(compiled.rejects, []);
    compiled.table
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn path_types_match_as_the_ingress_api_says() {
    for (routes, request, want, why) in [
        (&["/"][..], "/", Some("/"), "the root prefix matches all"),
        (&["/"], "/any/thing", Some("/"), ""),
        (&["= /foo"], "/foo", Some("= /foo"), "exact is equal"),
        (&["= /foo"], "/bar", None, ""),
        (&["= /foo"], "/foo/", None, "a slash is a difference"),
        (&["= /foo"], "/FOO", None, "and so is case"),
        (&["= /foo/"], "/foo", None, ""),
        (&["= /foo/"], "/foo/", Some("= /foo/"), ""),
        (&["/foo"], "/foo", Some("/foo"), ""),
        (&["/foo"], "/foo/", Some("/foo"), ""),
        (
            &["/foo/"],
            "/foo",
            Some("/foo/"),
            "the prefix's slash is ignored",
        ),
        (&["/foo/"], "/foo/", Some("/foo/"), ""),
        (&["/foo"], "/FOO", None, "prefixes compare case"),
        (
            &["/aaa/bb"],
            "/aaa/bbb",
            None,
            "prefixes match whole elements",
        ),
        (&["/aaa/bbb"], "/aaa/bbb", Some("/aaa/bbb"), ""),
        (&["/aaa/bbb"], "/aaa/bbb/ccc", Some("/aaa/bbb"), ""),
        (&["/aaa/bbb/"], "/aaa/bbb", Some("/aaa/bbb/"), ""),
        (&["/aaa/bbb/"], "/aaa/bbb/", Some("/aaa/bbb/"), ""),
        (&["/aaa/bbb"], "/aaa/bbbxyz", None, ""),
        (
            &["/", "/aaa"],
            "/aaa/ccc",
            Some("/aaa"),
            "the longest prefix",
        ),
        (&["/", "/aaa", "/aaa/bbb"], "/aaa/bbb", Some("/aaa/bbb"), ""),
        (&["/", "/aaa"], "/ccc", Some("/"), ""),
        (&["/aaa"], "/ccc", None, "the fallback's business"),
        (
            &["/foo", "= /foo"],
            "/foo",
            Some("= /foo"),
            "exact before prefix",
        ),
        (
            &["/foo", "/foo/"],
            "/foo/x",
            Some("/foo/"),
            "the longer text",
        ),
        (
            &["/foo", "/foo/"],
            "/foo",
            Some("/foo/"),
            "also without the slash",
        ),
        (&["/foo/", "= /foo"], "/foo", Some("= /foo"), ""),
        (&["/foo/bar", "= /foo"], "/foo/bar", Some("/foo/bar"), ""),
        (
            &["/a%2Fb"],
            "/a%2Fb/c",
            Some("/a%2Fb"),
            "an escaped slash separates nothing",
        ),
        (&["/a"], "/a%2Fb", None, ""),
        (
            &["~ /a"],
            "/abc",
            Some("~ /a"),
            "an expression has a start, no end",
        ),
        (&["~ /a$"], "/abc", None, "unless it asks for one"),
        (&["~ /a"], "/b/a", None, ""),
        (&["~ /b|/a"], "/c/a", None, "each alternative is anchored"),
        (
            &["~ /a", "~ /a.+"],
            "/abc",
            Some("~ /a.+"),
            "the longer expression",
        ),
        (
            &["~ /a.", "~ /.b"],
            "/ab",
            Some("~ /a."),
            "of equal ones the first",
        ),
        (&["~ /.b", "~ /a."], "/ab", Some("~ /.b"), ""),
        (
            &["~ /aaaa", "/"],
            "/aaaa",
            Some("/"),
            "prefixes before expressions",
        ),
        (&["~ /aaaa", "= /aaaa"], "/aaaa", Some("= /aaaa"), ""),
        (&["~ /aaaa", "/b"], "/aaaa", Some("~ /aaaa"), ""),
    ] {
        let few = table_of(paths(routes));
        assert_eq!(
            winner(&few, "a.test", request),
            want,
            "{routes:?} {request}: {why}"
        );
        let many = table_of(crowded(paths(routes)));
        assert_eq!(
            winner(&many, "a.test", request),
            want,
            "{routes:?} {request} among many: {why}"
        );
    }
}

#[test]
fn a_long_path_is_matched_by_what_the_routes_ask_for() {
    let table = table_of(crowded(paths(&["/", "/a"])));
    let long = "/a".repeat(32 << 10);
    assert_eq!(winner(&table, "a.test", &long), Some("/a"));
    let unlike = "/%C3%A4".repeat(9000);
    assert_eq!(winner(&table, "a.test", &unlike), Some("/"));
}

#[test]
fn hosts_are_exact_then_the_longest_wildcard_then_any() {
    let all = [
        "foo.com",
        "bar.foo.com",
        "*.foo.com",
        "**.foo.com",
        "**.bar.foo.com",
        "*.bar.foo.com",
        "*",
    ];
    for (patterns, host, want, why) in [
        (&all[..], "foo.com", Some("foo.com"), ""),
        (
            &all,
            "bar.foo.com",
            Some("bar.foo.com"),
            "exact before wildcard",
        ),
        (
            &all,
            "qux.foo.com",
            Some("*.foo.com"),
            "one label before several",
        ),
        (
            &all,
            "x.bar.foo.com",
            Some("*.bar.foo.com"),
            "the longest wildcard",
        ),
        (&all, "y.x.bar.foo.com", Some("**.bar.foo.com"), ""),
        (&all, "x.qux.foo.com", Some("**.foo.com"), ""),
        (&all, "other.test", Some("*"), ""),
        (&all, "com", Some("*"), ""),
        (&all, "", Some("*"), "no host at all"),
        (&["*.foo.com"], "bar.foo.com", Some("*.foo.com"), ""),
        (&["*.foo.com"], "baz.bar.foo.com", None, "one label only"),
        (&["*.foo.com"], "foo.com", None, "at least one label"),
        (&["**.foo.com"], "foo.com", None, ""),
        (&["*.foo.com"], "barfoo.com", None, "whole labels"),
        (
            &["*.foo.com", "**.com"],
            "b.bar.foo.com",
            Some("**.com"),
            "",
        ),
        (
            &["**.foo.com", "*.bar.foo.com"],
            "x.bar.foo.com",
            Some("*.bar.foo.com"),
            "",
        ),
        (&["foo.com"], "", None, ""),
    ] {
        let mut model = empty_model();
        for pattern in patterns {
            let everything = route(RouteMatch::path(path("/")), pattern);
            add_host(&mut model, pattern, vec![everything]);
        }
        let table = compile(&model).table;
        assert_eq!(
            winner(&table, host, "/x"),
            want,
            "{patterns:?} {host}: {why}"
        );
        assert_eq!(
            table.knows_host(host),
            want.is_some(),
            "{patterns:?} {host}"
        );
    }
}

#[test]
fn a_host_keeps_requests_from_less_specific_hosts() {
    let mut model = empty_model();
    add_host(&mut model, "a.test", paths(&["/only"]));
    add_host(&mut model, "*.test", paths(&["/"]));
    add_host(&mut model, "*", paths(&["/"]));
    add_host(&mut model, "empty.test", Vec::new());
    let table = compile(&model).table;
    assert_eq!(winner(&table, "a.test", "/other"), None);
    assert_eq!(winner(&table, "empty.test", "/"), None);
    assert!(table.knows_host("empty.test"));
    assert_eq!(winner(&table, "b.test", "/other"), Some("/"));
}

/// A request by method, query and header fields on listener `http`.
fn ask<'a>(table: &'a Table, method: &Method, query: &str, fields: &[(&str, &str)]) -> &'a str {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::try_from(*name).unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    let request = Lookup {
        listener: table.listener(&ListenerName::http()).unwrap(),
        host: "a.test",
        path: "/x",
        query: Some(query),
        method,
        headers: &headers,
    };
    table
        .lookup(&request)
        .map_or("none", |route| &*route.origin.field)
}

fn header(name: &str, value: &str) -> HeaderMatch {
    HeaderMatch {
        name: name.to_owned(),
        value: text(value),
    }
}

fn query(name: &str, value: &str) -> QueryMatch {
    QueryMatch {
        name: name.to_owned(),
        value: text(value),
    }
}

fn text(value: &str) -> TextMatch {
    match value.strip_prefix("~ ") {
        Some(pattern) => TextMatch::Regex(pattern.to_owned()),
        None => TextMatch::Exact(value.to_owned()),
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn headers_and_queries_compare_as_documented() {
    for (headers, queries, fields, asked, want, why) in [
        (
            vec![header("X-A", "1")],
            vec![],
            &[("x-a", "1")][..],
            "",
            true,
            "any case of name",
        ),
        (
            vec![header("x-a", "1")],
            vec![],
            &[("x-a", "2")],
            "",
            false,
            "",
        ),
        (
            vec![header("x-a", "")],
            vec![],
            &[],
            "",
            false,
            "it has to be there",
        ),
        (
            vec![header("x-a", "")],
            vec![],
            &[("x-a", "")],
            "",
            true,
            "",
        ),
        (
            vec![header("x-a", "1,2")],
            vec![],
            &[("x-a", "1"), ("x-a", "2")],
            "",
            true,
            "joined",
        ),
        (
            vec![header("x-a", "1")],
            vec![],
            &[("x-a", "1"), ("x-a", "2")],
            "",
            false,
            "",
        ),
        (
            vec![header("x-a", "~ 1|12")],
            vec![],
            &[("x-a", "12")],
            "",
            true,
            "the whole text",
        ),
        (
            vec![header("x-a", "~ 1")],
            vec![],
            &[("x-a", "12")],
            "",
            false,
            "",
        ),
        (
            vec![header("x-a", "~ 1,2")],
            vec![],
            &[("x-a", "1"), ("x-a", "2")],
            "",
            true,
            "",
        ),
        (
            vec![header("x-a", "1"), header("x-b", "2")],
            vec![],
            &[("x-a", "1")],
            "",
            false,
            "all",
        ),
        (vec![], vec![query("q", "1")], &[], "q=1", true, ""),
        (
            vec![],
            vec![query("q", "1")],
            &[],
            "q=2&q=1",
            false,
            "the first counts",
        ),
        (vec![], vec![query("q", "1")], &[], "p=2&q=1", true, ""),
        (
            vec![],
            vec![query("q", "")],
            &[],
            "q",
            true,
            "no value is the empty one",
        ),
        (
            vec![],
            vec![query("q", "")],
            &[],
            "",
            false,
            "it has to be there",
        ),
        (
            vec![],
            vec![query("q", "1")],
            &[],
            "Q=1",
            false,
            "names compare case",
        ),
        (
            vec![],
            vec![query("q", "a b")],
            &[],
            "q=a+b",
            false,
            "nothing is decoded",
        ),
        (vec![], vec![query("q", "~ [0-9]+")], &[], "q=12", true, ""),
        (
            vec![],
            vec![query("q", "~ [0-9]+")],
            &[],
            "q=12a",
            false,
            "",
        ),
        (
            vec![],
            vec![query("q", "x=y")],
            &[],
            "q=x=y",
            true,
            "the first `=` separates",
        ),
    ] {
        let matches = RouteMatch {
            headers: headers.clone(),
            query: queries.clone(),
            ..RouteMatch::path(path("/"))
        };
        let table = table_of(vec![route(matches, "it")]);
        let got = ask(&table, &Method::GET, asked, fields) == "it";
        assert_eq!(
            got, want,
            "{headers:?} {queries:?} {fields:?} {asked}: {why}"
        );
    }
}

#[test]
fn at_equal_paths_method_then_headers_then_query_decide() {
    let with = |method: Option<&str>, headers: usize, queries: usize| RouteMatch {
        path: path("/x"),
        method: method.map(str::to_owned),
        headers: (0..headers)
            .map(|n| header(&format!("x-{n}"), "1"))
            .collect(),
        query: (0..queries).map(|n| query(&format!("q{n}"), "1")).collect(),
    };
    let routes = vec![
        route(with(None, 0, 0), "plain"),
        route(with(None, 0, 0), "plain, later"),
        route(with(None, 0, 1), "query"),
        route(with(None, 1, 0), "header"),
        route(with(None, 1, 2), "header and query"),
        route(with(None, 2, 0), "headers"),
        route(with(Some("GET"), 0, 0), "method"),
    ];
    let both = [("x-0", "1"), ("x-1", "1")];
    for crowd in [false, true] {
        let routes = if crowd {
            crowded(routes.clone())
        } else {
            routes.clone()
        };
        let table = table_of(routes);
        for (method, asked, fields, want) in [
            (Method::GET, "q0=1&q1=1", &both[..], "method"),
            (Method::POST, "q0=1&q1=1", &both, "headers"),
            (Method::POST, "q0=1&q1=1", &both[..1], "header and query"),
            (Method::POST, "q0=1", &both[..1], "header"),
            (Method::POST, "q0=1", &[], "query"),
            (Method::POST, "", &[], "plain"),
        ] {
            assert_eq!(ask(&table, &method, asked, fields), want);
        }
    }
}

#[test]
fn a_longer_path_that_asks_for_more_leaves_the_rest_to_shorter_ones() {
    let picky = RouteMatch {
        method: Some("PUT".to_owned()),
        ..RouteMatch::path(path("/x"))
    };
    let table = table_of(vec![
        route(picky, "picky"),
        route(RouteMatch::path(path("/")), "root"),
    ]);
    assert_eq!(ask(&table, &Method::PUT, "", &[]), "picky");
    assert_eq!(ask(&table, &Method::GET, "", &[]), "root");
    assert_eq!(
        ask(&table, &Method::from_bytes(b"put").unwrap(), "", &[]),
        "root",
        "methods compare case"
    );
}

#[test]
fn a_route_is_served_on_its_listeners() {
    let mut secure = route(RouteMatch::path(path("/")), "https only");
    secure.listeners = only(&["https"]);
    let mut nowhere = route(RouteMatch::path(path("/x")), "nowhere");
    nowhere.listeners = only(&[]);
    let both = route(RouteMatch::path(path("/both")), "both");
    let table = table_of(vec![secure, nowhere, both]);
    let http = table.listener(&ListenerName::http()).unwrap();
    let https = table.listener(&ListenerName::https()).unwrap();
    for (listener, path, want) in [
        (http, "/x", None),
        (https, "/x", Some("https only")),
        (http, "/both", Some("both")),
        (https, "/both", Some("both")),
    ] {
        let request = Lookup {
            listener,
            host: "a.test",
            path,
            query: None,
            method: &Method::GET,
            headers: &HeaderMap::new(),
        };
        let got = table.lookup(&request).map(|route| &*route.origin.field);
        assert_eq!(got, want, "{listener:?} {path}");
    }
    assert_eq!(table.listener(&ListenerName::new("other")), None);
}
