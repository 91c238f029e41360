//! Another server is asked whether a request may pass.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use hyper::{HeaderMap, Request, Response};
use model::{Access, AuthCache, ExternalAuth, Filter, RoutingModel, Timeouts};
use tokio::io::AsyncWriteExt;

use super::support::*;

/// What a server that is asked has been asked.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<Question>>>);

/// Method, target, header section, size of the body.
type Question = (String, String, HeaderMap, usize);

impl Asked {
    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// Answers with the status that the request names in `x-status`, and notes what it was asked.
async fn judge(asked: &Asked) -> std::net::SocketAddr {
    let asked = asked.clone();
    backend(move |request: Request<hyper::body::Incoming>| {
        let asked = asked.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = http_body_util::BodyExt::collect(body).await.unwrap();
            let status = parts
                .headers
                .get("x-status")
                .map_or(200, |value| value.to_str().unwrap().parse().unwrap());
            asked.0.lock().unwrap().push((
                parts.method.to_string(),
                parts.uri.to_string(),
                parts.headers,
                body.to_bytes().len(),
            ));
            Response::builder()
                .status(status)
                .header("x-user", "anna")
                .body(full("said"))
                .unwrap()
        }
    })
    .await
}

fn external() -> ExternalAuth {
    ExternalAuth {
        url: "http://judge.shop.svc:8080/verify?to=$escaped_request_uri".to_owned(),
        backend: Some(backend_id("judge")),
        ..ExternalAuth::default()
    }
}

fn asking(
    web: std::net::SocketAddr,
    judges: &[std::net::SocketAddr],
    external: ExternalAuth,
) -> RoutingModel {
    let access = Access {
        external: Some(Arc::new(external)),
        ..Access::default()
    };
    let mut model = filtered(web, Filter::Access(Arc::new(access)));
    add_backend(&mut model, "judge", judges);
    model
}

#[tokio::test]
async fn the_question_says_what_the_request_is_and_nothing_that_a_client_made_up() {
    let (web, asked) = (echo("web").await, Asked::default());
    let judge = judge(&asked).await;
    let site = Site::start(asking(web, &[judge], external()));
    let request = Request::post("/a?b=c")
        .header("host", "a.test:81")
        .header("cookie", "session=1")
        .header("authorization", "Bearer x")
        .header("x-original-url", "http://evil.test/")
        .header("x-forwarded-for", "1.2.3.4")
        .header("x-forwarded-host", "evil.test")
        .header("x-forwarded-proto", "https")
        .header("x-auth-request-redirect", "http://evil.test/")
        .header("x_original_url", "http://evil.test/")
        .header("x-custom", "kept")
        .header("range", "bytes=0-1")
        .header("if-none-match", "*")
        .header("content-type", "text/plain")
        .body(Bytes::from_static(b"twelve bytes"))
        .unwrap();
    let answer = site.send(request).await;
    assert_eq!((answer.status, answer.origin()), (200, "web"));
    assert_eq!(answer.seen()["length"], 12, "the body went to the backend");
    let asked = asked.0.lock().unwrap();
    let [(method, target, headers, length)] = asked.as_slice() else {
        panic!("asked {} times", asked.len());
    };
    assert_eq!((method.as_str(), *length), ("GET", 0));
    assert_eq!(target, "/verify?to=%2Fa%3Fb%3Dc");
    for (name, want) in [
        ("host", Some("judge.shop.svc:8080")),
        ("x-original-url", Some("http://a.test:81/a?b=c")),
        ("x-original-method", Some("POST")),
        ("x-sent-from", Some("nginx-ingress-controller")),
        ("x-auth-request-redirect", Some("/a?b=c")),
        ("x-real-ip", Some("127.0.0.1")),
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-forwarded-proto", None),
        ("x-forwarded-host", None),
        ("x_original_url", None),
        ("x-original-uri", None),
        ("cookie", Some("session=1")),
        ("authorization", Some("Bearer x")),
        ("x-custom", Some("kept")),
        ("range", None),
        ("if-none-match", None),
        ("content-length", None),
        ("transfer-encoding", None),
    ] {
        let values: Vec<_> = headers.get_all(name).iter().collect();
        assert_eq!(values, want.into_iter().collect::<Vec<_>>(), "{name}");
    }
    let id = headers.get("x-request-id").unwrap().to_str().unwrap();
    assert_eq!(answer.seen_header("x-request-id"), [id]);
}

#[tokio::test]
async fn method_redirect_and_headers_of_the_question_are_its_owners() {
    let (web, asked) = (echo("web").await, Asked::default());
    let judge = judge(&asked).await;
    let external = ExternalAuth {
        method: Some("POST".to_owned()),
        request_redirect: Some("https://a.test/done".to_owned()),
        headers: vec![("X-Tenant".to_owned(), "shop-$host".to_owned())],
        ..external()
    };
    let site = Site::start(asking(web, &[judge], external));
    assert_eq!(site.get("a.test", "/x").await.status, 200);
    let asked = asked.0.lock().unwrap();
    let (method, _, headers, _) = &asked[0];
    assert_eq!(method, "POST");
    assert_eq!(headers["x-auth-request-redirect"], "https://a.test/done");
    assert_eq!(headers["x-tenant"], "shop-a.test");
    assert_eq!(headers["x-original-uri"], "/x");
    assert_eq!(headers["x-scheme"], "http");
}

#[tokio::test]
async fn whatever_is_not_a_yes_keeps_the_backend_out() {
    let (web, asked) = (echo("web").await, Asked::default());
    let judge = judge(&asked).await;
    let site = Site::start(asking(web, &[judge], external()));
    for (status, want, reason) in [
        ("401", 401, "unauthorized"),
        ("403", 403, "authentication-denied"),
        ("302", 500, "authentication-failed"),
        ("503", 500, "authentication-failed"),
    ] {
        let path = format!("/{status}");
        let answer = site
            .get_with("a.test", &path, &[("x-status", status)])
            .await;
        assert_eq!((answer.status, answer.origin()), (want, "none"), "{status}");
        assert_eq!(site.log.of(&path).await["reason"], reason);
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_lets_nobody_pass() {
    let web = echo("web").await;
    let nonsense = raw_backend(|mut stream| async move {
        // It may be gone already.
        let _ = stream.write_all(b"200 OK\r\n\r\n").await;
    })
    .await;
    let silent = raw_backend(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let half = raw_backend(|mut stream| async move {
        let _ = read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx-user: an").await;
    })
    .await;
    for (judges, want, why) in [
        (vec![], 503, "no endpoints"),
        (vec![nobody()], 500, "refused"),
        (vec![nonsense], 500, "not HTTP"),
        (vec![half], 500, "cut off"),
        (vec![silent], 500, "silent"),
    ] {
        let mut model = asking(web, &judges, external());
        let host = model.hosts.values_mut().next().unwrap();
        let mut changed = (**host).clone();
        changed.routes[0].timeouts = Timeouts {
            connect: 1,
            read: 1,
            send: 1,
        };
        *host = Arc::new(changed);
        let answer = Site::start(model).get("a.test", "/").await;
        assert_eq!((answer.status, answer.origin()), (want, "none"), "{why}");
    }
}

#[tokio::test]
async fn another_endpoint_is_asked_while_no_connection_can_be_made() {
    let (web, asked) = (echo("web").await, Asked::default());
    let judges = [nobody(), judge(&asked).await, nobody()];
    let site = Site::start(asking(web, &judges, external()));
    for _ in 0..6 {
        assert_eq!(site.get("a.test", "/").await.status, 200);
    }
    assert_eq!(asked.count(), 6);
}

#[tokio::test]
async fn a_connection_is_used_for_many_questions() {
    let web = echo("web").await;
    let connections = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&connections);
    let judge = raw_backend(move |mut stream| {
        seen.fetch_add(1, Ordering::Relaxed);
        async move {
            while read_head(&mut stream).await.is_some() {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nsaid";
                if stream.write_all(answer).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let site = Site::start(asking(web, &[judge], external()));
    for _ in 0..10 {
        assert_eq!(site.get("a.test", "/").await.status, 200);
    }
    // The body of an answer may still be on its way when the next question comes.
    assert!(connections.load(Ordering::Relaxed) < 5);
}

#[tokio::test]
async fn what_is_remembered_is_asked_once_and_only_of_its_route() {
    let (web, asked) = (echo("web").await, Asked::default());
    let judge = judge(&asked).await;
    let cached = ExternalAuth {
        response_headers: vec!["X-User".to_owned()],
        cache: Some(AuthCache {
            key: "$cookie_session".to_owned(),
            durations: vec![(vec![200], 3600)],
        }),
        ..external()
    };
    let mut model = asking(web, &[judge], cached);
    let routes = model.hosts.values().next().unwrap().routes.clone();
    add_route_with(&mut model, "*", "/other", forward("web"), |route| {
        route.filters.clone_from(&routes[0].filters);
    });
    let mut site = Site::start(model);
    for _ in 0..3 {
        let answer = site
            .get_with("a.test", "/", &[("cookie", "session=1")])
            .await;
        assert_eq!(answer.seen_header("x-user"), ["anna"]);
    }
    assert_eq!(asked.count(), 1);
    let ask = |path: &'static str, session: &'static str, status: &'static str| {
        [("cookie", session), ("x-status", status)].map(|pair| (path, pair))
    };
    for (fields, want, why) in [
        (ask("/", "session=2", "403"), 403, "another session"),
        (ask("/other", "session=1", "403"), 403, "another route"),
        (ask("/", "session=1", "403"), 200, "still the first one"),
    ] {
        let path = fields[0].0;
        let fields = fields.map(|(_, pair)| pair);
        assert_eq!(
            site.get_with("a.test", path, &fields).await.status,
            want,
            "{why}"
        );
    }
    // A question that is put in another way has not been answered.
    site.change(|model| {
        let host = model.hosts.values_mut().next().unwrap();
        let mut changed = (**host).clone();
        for route in &mut changed.routes {
            for filter in route.filters.iter_mut() {
                if let Filter::Access(access) = filter {
                    let mut other = (**access).clone();
                    let mut external = (**other.external.as_ref().unwrap()).clone();
                    external.url = "http://judge.shop.svc/other".to_owned();
                    other.external = Some(Arc::new(external));
                    *access = Arc::new(other);
                }
            }
        }
        *host = Arc::new(changed);
    });
    let fields = [("cookie", "session=1"), ("x-status", "403")];
    assert_eq!(site.get_with("a.test", "/", &fields).await.status, 403);
}

#[tokio::test]
async fn a_question_that_leads_to_itself_comes_to_an_end() {
    let web = echo("web").await;
    let mut site = Site::start(asking(web, &[], external()));
    let itself = site.http;
    site.change(|model| add_backend(model, "judge", &[itself]));
    let answer = site.get("a.test", "/first").await;
    assert_eq!((answer.status, answer.origin()), (500, "none"));
    site.log.of("/first").await;
    let asked = site.log.lines();
    let asked = asked.iter().filter(|line| line["path"] != "/first").count();
    assert_eq!(asked, 3);
}

#[tokio::test]
async fn either_a_password_or_the_other_server_suffices_where_any_does() {
    let (web, asked) = (echo("web").await, Asked::default());
    let judge = judge(&asked).await;
    // anna:secret
    let (right, wrong) = ("Basic YW5uYTpzZWNyZXQ=", "Basic YW5uYTp3cm9uZw==");
    for (any, password, status, want, why) in [
        (true, right, "403", 200, "the password"),
        (true, wrong, "200", 200, "the other server"),
        (
            true,
            wrong,
            "403",
            401,
            "who has neither is asked for a password",
        ),
        (true, wrong, "401", 401, "neither"),
        (false, right, "200", 200, "both"),
        (false, wrong, "200", 401, "not the password"),
        (false, right, "403", 403, "not the other server"),
    ] {
        let users = [("anna", "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=")];
        let users = users.map(|(name, hash)| (name.to_owned(), hash.to_owned()));
        let access = Access {
            satisfy_any: any,
            basic: Some(model::BasicAuth {
                realm: "the shop".to_owned(),
                users: Arc::new(model::Redacted::new(users.into())),
            }),
            external: Some(Arc::new(external())),
            ..Access::default()
        };
        let mut model = filtered(web, Filter::Access(Arc::new(access)));
        add_backend(&mut model, "judge", &[judge]);
        let fields = [("authorization", password), ("x-status", status)];
        let answer = Site::start(model).get_with("a.test", "/", &fields).await;
        assert_eq!(answer.status, want, "{any} {why}");
    }
}
