//! What snippets are translated into, and what is refused.

use crds::{
    BasicAuthentication, DenyRule, HeaderEdits, HeaderField, PathCondition, PathRule, RateLimit,
    RedirectTo, TimeoutSeconds,
};

use super::*;

fn read(text: &str, place: Snippet) -> Result<serde_json::Value, String> {
    snippet(text, place).map(|spec| serde_json::to_value(spec).unwrap())
}

#[test]
fn what_has_a_typed_form_is_translated() {
    use serde_json::json;
    for (text, want) in [
        (
            "more_set_headers \"X-A: b c\" \"X-B:\";",
            json!({"responseHeaders": {"remove": ["X-B"], "set": [{"name": "X-A", "value": "b c"}]}}),
        ),
        (
            "add_header X-Frame-Options SAMEORIGIN always;\nproxy_hide_header X-Powered-By;",
            json!({"responseHeaders": {
                "remove": ["X-Powered-By"], "add": [{"name": "X-Frame-Options", "value": "SAMEORIGIN"}],
            }}),
        ),
        (
            "proxy_set_header X-Tenant \"b\"; proxy_set_header Accept-Encoding \"\";",
            json!({"requestHeaders": {
                "remove": ["Accept-Encoding"], "set": [{"name": "X-Tenant", "value": "b"}],
            }}),
        ),
        (
            "proxy_set_header Host $host;\nproxy_set_header X-Forwarded-Proto $scheme;\nproxy_http_version 1.1;\nproxy_set_header Upgrade $http_upgrade;\nproxy_set_header Connection \"upgrade\";",
            json!({}),
        ),
        (
            "if ($request_method ~* (PUT|DELETE)) { return 405; }",
            json!({"deny": [{"status": 405, "methods": ["PUT", "DELETE"]}]}),
        ),
        (
            "if ($request_method !~ ^(GET|HEAD)$ ) { return 444; }",
            json!({"deny": [{"status": 444, "exceptMethods": ["GET", "HEAD"]}]}),
        ),
        (
            "if ($http_user_agent ~* \"(bot|spider)\") { return 403; }",
            json!({"deny": [{"status": 403, "headers": [
                {"name": "user-agent", "regex": "(?i)(bot|spider)"},
            ]}]}),
        ),
        (
            "if ($http_x_token = \"\") { return 401; }",
            json!({"deny": [{"status": 401, "headers": [{"name": "x-token", "present": false}]}]}),
        ),
        (
            "if ($request_uri ~ ^/admin) { return 404; }",
            json!({"deny": [{"status": 404, "path": {"regex": "^/admin"}}]}),
        ),
        (
            "allow 10.0.0.0/8; deny 192.0.2.1; allow 192.0.2.0/24; deny all;",
            json!({"deny": [
                {"from": ["192.0.2.1"], "exceptFrom": ["10.0.0.0/8"]},
                {"exceptFrom": ["10.0.0.0/8", "192.0.2.0/24"]},
            ]}),
        ),
        ("deny all;", json!({"deny": [{"path": {"prefix": "/"}}]})),
        (
            "return 301 https://new.example.com/;",
            json!({"redirect": {"url": "https://new.example.com/", "status": 301}}),
        ),
        (
            "rewrite ^(/app)$ $1/ permanent; rewrite ^/api/(.*)$ /$1 break;",
            json!({"pathRules": [
                {"regex": "^(/app)$", "to": "$1/", "redirect": 301},
                {"regex": "^/api/(.*)$", "to": "/$1"},
            ]}),
        ),
        (
            "return 301 https://new.example.com$request_uri;",
            json!({"pathRules": [
                {"regex": "^(.*)$", "to": "https://new.example.com$1", "redirect": 301},
            ]}),
        ),
        (
            "rewrite ^/.well-known/carddav https://$host/dav/ permanent;\nreturn 302 $scheme://b.test$request_uri;",
            json!({"pathRules": [
                {"regex": "^/.well-known/carddav", "to": "https://$host/dav/", "redirect": 301},
                {"regex": "^(.*)$", "to": "$scheme://b.test$1", "redirect": 302},
            ]}),
        ),
        (
            "if ($remote_addr = 192.0.2.1) { return 403; }",
            json!({"deny": [{"status": 403, "from": ["192.0.2.1"]}]}),
        ),
        (
            "proxy_read_timeout 5m; proxy_connect_timeout 10s; proxy_send_timeout 90;",
            json!({"timeouts": {"connect": 10, "read": 300, "send": 90}}),
        ),
    ] {
        assert_eq!(read(text, Snippet::Location), Ok(want), "{text}");
    }
    let location = "location /metrics {\n  deny all;\n  return 404;\n}\nlocation = /x.php { return 403; }\nlocation ~* \\.git { allow 10.0.0.1; deny all; }";
    let want = json!({"deny": [
        {"status": 404, "path": {"prefix": "/metrics"}},
        {"path": {"prefix": "/metrics"}},
        {"status": 403, "path": {"exact": "/x.php"}},
        {"path": {"regex": "(?i)\\.git"}, "exceptFrom": ["10.0.0.1"]},
    ]});
    assert_eq!(read(location, Snippet::Server), Ok(want));
}

#[test]
fn what_has_none_is_named_with_its_line() {
    for (text, line) in [
        ("add_header A b;\nlua_need_request_body on;", 2),
        ("proxy_set_header X-User $user;", 1),
        ("sub_filter 'a' 'b';", 1),
        ("if ($request_method = PUT) {\n  proxy_pass http://x;\n}", 1),
        ("if ($arg_debug) { return 403; }", 1),
        ("if ($request_uri ~ secret) { return 403; }", 1),
        ("return 200 ok;", 1),
        ("return 301 https://$host/;", 1),
        ("rewrite ^/a /b last;", 1),
        ("rewrite ^/a /b;", 1),
        ("rewrite ^/(.*) /b?c=$1 break;", 1),
        ("if ($http_x_a = $host) { return 403; }", 1),
        ("if ($http_host = a) { return 403; }", 1),
        ("return 301 https://$host$request_uri;", 1),
        ("more_set_headers -s 404 'A: b';", 1),
        ("location /a { deny all; }", 1),
        ("\n\nadd_header A", 3),
        ("access_by_lua_block { ngx.exit(403) }", 1),
    ] {
        let fault = read(text, Snippet::Location).unwrap_err();
        assert!(
            fault.starts_with(&format!("line {line}")),
            "{text}: {fault}"
        );
    }
    for text in [
        "location /a { proxy_pass http://x; }",
        "location /a { allow 10.0.0.0/8; }",
        "location /a { return 301 https://x/; }",
        "ssl_protocols TLSv1;",
    ] {
        assert!(read(text, Snippet::Server).is_err(), "{text}");
    }
}

#[test]
fn a_policy_says_what_annotations_say() {
    let spec = RoutePolicySpec {
        timeouts: Some(TimeoutSeconds {
            read: Some(7),
            ..TimeoutSeconds::default()
        }),
        redirect: Some(RedirectTo {
            url: "https://a.test/".to_owned(),
            status: Some(308),
        }),
        rate_limit: Some(RateLimit {
            requests_per_second: Some(3),
            ..RateLimit::default()
        }),
        basic_auth: Some(BasicAuthentication {
            secret_name: "users".to_owned(),
            realm: None,
        }),
        ..RoutePolicySpec::default()
    };
    let mut annotations = Annotations::default();
    assert_eq!(apply(&spec, &mut annotations), []);
    assert_eq!(annotations.read_timeout, Some(7));
    let routing = annotations.routing.unwrap();
    assert_eq!(routing.temporal.as_deref(), Some("https://a.test/"));
    assert_eq!(routing.temporal_code, Some(308));
    let access = annotations.access.unwrap();
    assert_eq!(access.per_second, 3);
    assert!(access.basic && access.secret.is_some());
}

#[test]
fn faults_name_their_fields() {
    let deny = |rule| RoutePolicySpec {
        deny: vec![rule],
        ..RoutePolicySpec::default()
    };
    let path = |path| {
        deny(DenyRule {
            path: Some(path),
            ..DenyRule::default()
        })
    };
    let header = |name: &str, value: &str| RoutePolicySpec {
        request_headers: Some(HeaderEdits {
            set: vec![HeaderField {
                name: name.to_owned(),
                value: value.to_owned(),
            }],
            ..HeaderEdits::default()
        }),
        ..RoutePolicySpec::default()
    };
    for (spec, field) in [
        (
            header("Connection", "close"),
            "spec.requestHeaders.set[0].name",
        ),
        (header("a b", "c"), "spec.requestHeaders.set[0].name"),
        (header("A", "b\r\nC: d"), "spec.requestHeaders.set[0].value"),
        (deny(DenyRule::default()), "spec.deny[0]"),
        (path(PathCondition::default()), "spec.deny[0].path"),
        (
            path(PathCondition {
                regex: Some("(".to_owned()),
                ..PathCondition::default()
            }),
            "spec.deny[0].path",
        ),
        (
            deny(DenyRule {
                from: vec!["10.0.0.0/33".to_owned()],
                ..DenyRule::default()
            }),
            "spec.deny[0].from",
        ),
        (
            deny(DenyRule {
                status: Some(200),
                methods: vec!["GET".to_owned()],
                ..DenyRule::default()
            }),
            "spec.deny[0].status",
        ),
        (
            RoutePolicySpec {
                path_rules: vec![PathRule {
                    regex: "^/a".to_owned(),
                    to: "https://b.test/".to_owned(),
                    redirect: None,
                }],
                ..RoutePolicySpec::default()
            },
            "spec.pathRules[0].to",
        ),
        (header("Host", "a.test"), "spec.requestHeaders.set[0].name"),
        (
            RoutePolicySpec {
                rate_limit: Some(RateLimit::default()),
                ..RoutePolicySpec::default()
            },
            "spec.rateLimit",
        ),
        (
            RoutePolicySpec {
                redirect: Some(RedirectTo {
                    url: "javascript:x".to_owned(),
                    status: None,
                }),
                ..RoutePolicySpec::default()
            },
            "spec.redirect.url",
        ),
    ] {
        let faults = apply(&spec, &mut Annotations::default());
        let fields: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, [field], "{faults:?}");
        assert!(!problems(&spec).is_empty());
    }
}
