//! Who may pass, and how often.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::{Request, Response};
use model::{
    Access, Action, BasicAuth, ClientLimits, ClientTrust, Filter, HttpsRedirect, Pace, Redacted,
};
use tokio::sync::Semaphore;

use super::support::*;

fn nets(texts: &[&str]) -> Vec<ipnet::IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn limits(zone: &str) -> ClientLimits {
    ClientLimits {
        zone: zone.into(),
        per_second: None,
        per_minute: None,
        burst: 5,
        concurrent: None,
        except: Vec::new(),
        rate_status: 503,
        concurrent_status: 503,
    }
}

fn limited(limits: ClientLimits) -> Filter {
    Filter::Access(Arc::new(Access {
        limits: Some(limits),
        ..Access::default()
    }))
}

#[tokio::test]
async fn address_lists_decide_by_the_address_of_the_client() {
    let origin = echo("web").await;
    let access = |deny: &[&str], allow: Option<&[&str]>| {
        Filter::Access(Arc::new(Access {
            deny: nets(deny),
            allow: allow.map(nets),
            ..Access::default()
        }))
    };
    for (filter, from, want, why) in [
        (
            access(&[], Some(&["10.0.0.0/8"])),
            "10.1.2.3",
            200,
            "on the list",
        ),
        (
            access(&[], Some(&["10.0.0.0/8"])),
            "11.1.2.3",
            403,
            "not on the list",
        ),
        (access(&["10.1.0.0/16"], None), "10.1.2.3", 403, "denied"),
        (
            access(&["10.1.0.0/16"], None),
            "10.2.2.3",
            200,
            "not denied",
        ),
        (
            access(&["10.1.0.0/16"], Some(&["10.0.0.0/8"])),
            "10.1.2.3",
            403,
            "what is denied is denied",
        ),
        (
            access(&[], Some(&["2001:db8::/32"])),
            "2001:db8::7",
            200,
            "IPv6",
        ),
        (
            access(&[], Some(&["2001:db8::/32"])),
            "10.0.0.1",
            403,
            "the other family",
        ),
    ] {
        let mut model = filtered(origin, filter);
        model.trust = ClientTrust {
            forwarded_headers_from: nets(&["127.0.0.0/8"]),
            ..ClientTrust::default()
        };
        let site = Site::start(model);
        let answer = site
            .get_with("a.test", "/", &[("x-forwarded-for", from)])
            .await;
        assert_eq!(answer.status, want, "{from}: {why}");
        if want == 403 {
            let line = site.log.of("/").await;
            assert_eq!(line["reason"], "address-denied");
        }
    }
}

#[tokio::test]
async fn nobody_speaks_for_a_client_without_trust() {
    let origin = echo("web").await;
    let filter = Filter::Access(Arc::new(Access {
        allow: Some(nets(&["10.0.0.0/8"])),
        ..Access::default()
    }));
    let site = Site::start(filtered(origin, filter));
    let spoofed = [
        ("x-forwarded-for", "10.0.0.1"),
        ("x-real-ip", "10.0.0.1"),
        ("forwarded", "for=10.0.0.1"),
    ];
    assert_eq!(site.get_with("a.test", "/", &spoofed).await.status, 403);
}

/// Which of two features answers where both could.
#[tokio::test]
async fn redirects_come_before_limits_and_limits_before_addresses() {
    let origin = echo("web").await;
    let to_https = Filter::HttpsRedirect(HttpsRedirect {
        status: 308,
        except: Vec::new(),
    });
    let nobody = Filter::Access(Arc::new(Access {
        allow: Some(nets(&["192.0.2.1/32"])),
        ..Access::default()
    }));
    let both = Filter::Access(Arc::new(Access {
        allow: Some(nets(&["192.0.2.1/32"])),
        limits: Some(ClientLimits {
            per_minute: Some(1),
            burst: 1,
            rate_status: 429,
            ..limits("both")
        }),
        ..Access::default()
    }));
    let redirect = Action::Redirect(Box::new(model::Redirect {
        status: 302,
        path: Some("/elsewhere".to_owned()),
        ..model::Redirect::default()
    }));
    let mut model = model();
    add_backend(&mut model, "web", &[origin]);
    for (path, action, filters) in [
        ("/https", forward("web"), vec![nobody.clone(), to_https]),
        ("/redirect", redirect, vec![nobody.clone()]),
        (
            "/closed",
            Action::Respond {
                status: 503,
                reason: "closed".to_owned(),
            },
            vec![nobody.clone()],
        ),
        ("/limits", forward("web"), vec![both]),
        ("/endpoints", forward("none"), vec![nobody]),
    ] {
        add_route_with(&mut model, "*", path, action, |route| {
            route.filters = filters.into();
        });
    }
    let site = Site::start(model);
    for (path, want, why) in [
        ("/https", 308, "https comes first"),
        ("/redirect", 302, "a redirect shows nothing"),
        ("/closed", 503, "a closed route is closed for all"),
        ("/limits", 403, "within the limit the address decides"),
        ("/limits", 403, "the burst"),
        ("/limits", 429, "over the limit nobody looks at the address"),
        (
            "/endpoints",
            403,
            "strangers do not learn that there is no endpoint",
        ),
    ] {
        assert_eq!(site.get("a.test", path).await.status, want, "{path}: {why}");
    }
}

#[tokio::test]
async fn a_client_that_comes_too_often_is_refused_across_tables_and_routes() {
    let origin = echo("web").await;
    let filter = limited(ClientLimits {
        per_minute: Some(1),
        burst: 3,
        rate_status: 429,
        ..limits("shop/web")
    });
    let mut model = filtered(origin, filter.clone());
    add_route_with(&mut model, "*", "/same", forward("web"), |route| {
        route.filters.push(filter.clone());
    });
    add_route_with(&mut model, "*", "/other", forward("web"), |route| {
        route.filters.push(limited(ClientLimits {
            per_minute: Some(1),
            ..limits("shop/other")
        }));
    });
    let mut site = Site::with(model, |settings| settings.workers = 2);
    for path in ["/", "/same", "/", "/same"] {
        assert_eq!(site.get("a.test", path).await.status, 200);
    }
    let refused = site.get("a.test", "/").await;
    assert_eq!(refused.status, 429);
    assert_eq!(
        site.log.line(|line| line["status"] == 429).await["reason"],
        "rate-limited"
    );
    assert_eq!(
        site.get("a.test", "/other").await.status,
        200,
        "a zone of its own"
    );
    site.change(|model| {
        add_route_with(model, "*", "/new", forward("web"), |route| {
            route.filters.push(filter);
        });
    });
    assert_eq!(
        site.get("a.test", "/new").await.status,
        429,
        "counts outlive a table"
    );
}

#[tokio::test]
async fn requests_at_the_same_time_are_limited() {
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let origin = backend(move |_| {
        let gate = Arc::clone(&opened);
        async move {
            gate.acquire().await.unwrap().forget();
            Response::new(full("done"))
        }
    })
    .await;
    let site = Site::start(filtered(
        origin,
        limited(ClientLimits {
            concurrent: Some(2),
            ..limits("shop/web")
        }),
    ));
    let request = || {
        Request::get("/")
            .header("host", "a.test")
            .body(http_body_util::Full::new(Bytes::new()))
            .unwrap()
    };
    let mut client = site.http2().await;
    let mut other = client.clone();
    let first = tokio::spawn(client.send_request(request()));
    let second = tokio::spawn(other.send_request(request()));
    // Whichever comes third is refused; the two that wait hold the places.
    let mut third = client.clone();
    let refused = soon(eventually_status(&mut third, request, 503)).await;
    assert_eq!(refused, 503);
    gate.add_permits(2);
    assert_eq!(soon(first).await.unwrap().unwrap().status(), 200);
    assert_eq!(soon(second).await.unwrap().unwrap().status(), 200);
    gate.add_permits(1000);
    assert_eq!(soon(eventually_status(&mut third, request, 200)).await, 200);
}

/// Asks until the answer has this status. Requests that are let through wait for the gate and are given up.
async fn eventually_status(
    client: &mut hyper::client::conn::http2::SendRequest<http_body_util::Full<Bytes>>,
    request: impl Fn() -> Request<http_body_util::Full<Bytes>>,
    status: u16,
) -> u16 {
    loop {
        let answer =
            tokio::time::timeout(Duration::from_millis(500), client.send_request(request()));
        if let Ok(Ok(answer)) = answer.await
            && answer.status() == status
        {
            return status;
        }
    }
}

#[tokio::test]
async fn a_response_keeps_the_pace() {
    let origin = backend(|_| async { Response::new(full(vec![b'x'; 96 * 1024])) }).await;
    let site = Site::start(filtered(
        origin,
        Filter::Pace(Pace {
            bytes_per_second: 64 * 1024,
            after: 32 * 1024,
        }),
    ));
    let begun = Instant::now();
    let answer = site.get("a.test", "/").await;
    assert_eq!(answer.body.len(), 96 * 1024);
    // 64 KiB at 64 KiB/s. The last bytes need not be waited for.
    assert!(
        begun.elapsed() > Duration::from_millis(400),
        "{:?}",
        begun.elapsed()
    );
}

/// `anna` with `secret`, by SHA-1 and by bcrypt of the lowest cost.
const SHA: &str = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=";
/// Of `crypt_blowfish`'s own tests: the password is `U*U`.
const BCRYPT: &str = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

fn asking(users: &[(&str, &str)]) -> Access {
    let users = users
        .iter()
        .map(|(name, hash)| ((*name).to_owned(), (*hash).to_owned()));
    Access {
        basic: Some(BasicAuth {
            realm: "the shop".to_owned(),
            users: Arc::new(Redacted::new(users.collect())),
        }),
        ..Access::default()
    }
}

#[tokio::test]
async fn name_and_password_are_asked_for_and_stay_with_the_gateway() {
    let origin = echo("web").await;
    let users = asking(&[("anna", SHA), ("bert", BCRYPT), ("carl", "plain")]);
    let site = Site::start(filtered(origin, Filter::Access(Arc::new(users))));
    // anna:secret, anna:wrong, bert:U*U (twice: it is remembered), carl:plain, dora:secret
    for (given, want) in [
        (None, 401),
        (Some("Basic YW5uYTpzZWNyZXQ="), 200),
        (Some("Basic YW5uYTp3cm9uZw=="), 401),
        (Some("Basic YmVydDpVKlU="), 200),
        (Some("Basic YmVydDpVKlU="), 200),
        (Some("Basic Y2FybDpwbGFpbg=="), 401),
        (Some("Basic ZG9yYTpzZWNyZXQ="), 401),
        (Some("Bearer YW5uYTpzZWNyZXQ="), 401),
    ] {
        let fields: Vec<_> = given
            .map(|value| ("authorization", value))
            .into_iter()
            .collect();
        let answer = site.get_with("a.test", "/", &fields).await;
        assert_eq!(answer.status, want, "{given:?}");
        if want == 200 {
            assert_eq!(answer.seen_header("authorization"), Vec::<String>::new());
        } else {
            let challenge = "Basic realm=\"the shop\", charset=\"UTF-8\"";
            assert_eq!(answer.header("www-authenticate"), Some(challenge));
        }
    }
    let line = site.log.line(|line| line["status"] == 401).await;
    assert_eq!(line["reason"], "unauthorized");
}

#[tokio::test]
async fn who_is_taken_off_the_list_is_off_at_once() {
    let origin = echo("web").await;
    let users = |users| Filter::Access(Arc::new(asking(users)));
    let mut site = Site::start(filtered(origin, users(&[("bert", BCRYPT)])));
    let bert = [("authorization", "Basic YmVydDpVKlU=")];
    assert_eq!(site.get_with("a.test", "/", &bert).await.status, 200);
    site.change(|model| {
        model.hosts.clear();
        add_route_with(model, "*", "/", forward("web"), |route| {
            route.filters.push(users(&[("anna", SHA)]));
        });
    });
    assert_eq!(site.get_with("a.test", "/", &bert).await.status, 401);
}

#[tokio::test]
async fn an_address_or_a_password_suffices_where_any_does() {
    let origin = echo("web").await;
    for (deny, allow, any, authorized, want, why) in [
        (
            &[][..],
            Some("127.0.0.0/8"),
            true,
            false,
            200,
            "the address",
        ),
        (&[], Some("192.0.2.0/24"), true, true, 200, "the password"),
        (&[], Some("192.0.2.0/24"), true, false, 401, "neither"),
        (&[], None, true, false, 401, "no list vouches for nobody"),
        (
            &[],
            Some("127.0.0.0/8"),
            false,
            false,
            401,
            "both are needed",
        ),
        (
            &[],
            Some("192.0.2.0/24"),
            false,
            true,
            403,
            "both are needed",
        ),
        (&[], Some("127.0.0.0/8"), false, true, 200, "both"),
        (&["127.0.0.0/8"], None, true, true, 403, "denied is denied"),
    ] {
        let access = Access {
            deny: nets(deny),
            allow: allow.map(|net| nets(&[net])),
            satisfy_any: any,
            ..asking(&[("anna", SHA)])
        };
        let site = Site::start(filtered(origin, Filter::Access(Arc::new(access))));
        let fields = [("authorization", "Basic YW5uYTpzZWNyZXQ=")];
        let fields = if authorized { &fields[..] } else { &[] };
        let answer = site.get_with("a.test", "/", fields).await;
        assert_eq!(answer.status, want, "{why}");
    }
    // Without an authentication there is nothing else that could vouch.
    let access = Access {
        allow: Some(nets(&["192.0.2.0/24"])),
        satisfy_any: true,
        ..Access::default()
    };
    let site = Site::start(filtered(origin, Filter::Access(Arc::new(access))));
    assert_eq!(site.get("a.test", "/").await.status, 403);
}
