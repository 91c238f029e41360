//! Users and keys that stay at one endpoint.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use model::{Affinity, AffinityMode, HashBy, Redacted, RoutingModel};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::support::{
    Answer, Site, add_backend, add_route_with, backend_id, echo, forward, model, nobody, read_head,
};

fn affinity(mode: AffinityMode) -> Affinity {
    Affinity {
        cookie: "route".to_owned(),
        mode,
        path: "/".to_owned(),
        domain: None,
        same_site: None,
        same_site_by_browser: false,
        secure: false,
        expires: None,
        max_age: None,
        change_on_failure: false,
        without_canaries: false,
    }
}

fn sticky(addresses: &[SocketAddr], affinity: &Affinity) -> RoutingModel {
    let mut model = model();
    add_backend(&mut model, "web", addresses);
    let id = backend_id("web");
    let mut backend = (*model.backends[&id]).clone();
    backend.seed = Some(Redacted::new("one".into()));
    model.backends.insert(id, backend.into());
    add_route_with(&mut model, "*", "/", forward("web"), |route| {
        route.options.affinity = Some(affinity.clone());
    });
    model
}

fn cookie_of(answer: &Answer) -> String {
    let cookie = answer.header("set-cookie").unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

async fn echoes() -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for name in ["a", "b", "c", "d", "e", "f"] {
        addresses.push(echo(name).await);
    }
    addresses
}

#[tokio::test]
async fn a_user_stays_while_its_endpoint_is_there() {
    for mode in [AffinityMode::Balanced, AffinityMode::Persistent] {
        let all = echoes().await;
        let affinity = affinity(mode);
        let mut site = Site::start(sticky(&all[..5], &affinity));
        let mut users = Vec::new();
        for _ in 0..40 {
            let answer = site.get("a.test", "/").await;
            users.push((cookie_of(&answer), answer.origin().to_owned()));
        }
        let served: BTreeSet<_> = users.iter().map(|(_, origin)| origin.clone()).collect();
        assert!(served.len() > 2, "{mode:?}: {served:?}");
        // One goes.
        site.change(|model| add_backend_only(model, &all[1..5]));
        for (cookie, origin) in &users {
            let answer = site.get_with("a.test", "/", &[("cookie", cookie)]).await;
            assert_eq!(answer.status, 200);
            if origin != "a" {
                assert_eq!(answer.origin(), origin, "{mode:?}");
                assert_eq!(answer.header("set-cookie"), None);
            }
        }
        // Another one comes, and with persistent affinity nobody moves.
        if mode == AffinityMode::Persistent {
            site.change(|model| add_backend_only(model, &all));
            for (cookie, origin) in &users {
                let answer = site.get_with("a.test", "/", &[("cookie", cookie)]).await;
                assert_eq!(answer.origin(), origin);
            }
        }
    }
}

fn add_backend_only(model: &mut RoutingModel, addresses: &[SocketAddr]) {
    let id = backend_id("web");
    let before = model.backends[&id].clone();
    add_backend(model, "web", addresses);
    model.backends.insert(id, before);
}

#[tokio::test]
async fn every_replica_reads_the_cookies_of_the_others() {
    let all = echoes().await;
    for mode in [AffinityMode::Balanced, AffinityMode::Persistent] {
        let affinity = affinity(mode);
        let one = Site::start(sticky(&all, &affinity));
        let other = Site::start(sticky(&all, &affinity));
        for _ in 0..10 {
            let first = one.get("a.test", "/").await;
            let cookie = cookie_of(&first);
            let second = other.get_with("a.test", "/", &[("cookie", &cookie)]).await;
            assert_eq!(first.origin(), second.origin());
            assert_eq!(second.header("set-cookie"), None);
            let value = cookie.strip_prefix("route=").unwrap();
            assert_eq!(value.len(), 48, "{value}");
            assert!(
                value.bytes().all(|byte| byte.is_ascii_hexdigit()),
                "{value}"
            );
        }
    }
}

/// An endpoint that answers each connection once, until it is stopped: then it refuses them.
async fn mortal() -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            if read_head(&mut stream).await.is_some() {
                let answer = b"HTTP/1.1 200 OK\r\nx-origin: mortal\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                stream.write_all(answer).await.unwrap();
            }
        }
    });
    (address, task)
}

#[tokio::test]
async fn an_endpoint_that_fails_keeps_its_users_unless_they_are_to_move() {
    for mode in [AffinityMode::Balanced, AffinityMode::Persistent] {
        for moves in [false, true] {
            let affinity = Affinity {
                change_on_failure: moves,
                ..affinity(mode)
            };
            let (address, task) = mortal().await;
            let site = Site::start(sticky(&[address, echo("other").await], &affinity));
            let mut cookie = None;
            for _ in 0..100 {
                let answer = site.get("a.test", "/").await;
                if answer.origin() == "mortal" {
                    cookie = Some(cookie_of(&answer));
                    break;
                }
            }
            let cookie = cookie.unwrap();
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
            let answer = site.get_with("a.test", "/", &[("cookie", &cookie)]).await;
            if moves {
                assert_eq!((answer.status, answer.origin()), (200, "other"));
                assert_ne!(cookie_of(&answer), cookie);
            } else {
                assert_eq!(answer.status, 502, "{}", site.log.text());
                assert_eq!(answer.header("set-cookie"), None);
            }
            // Who is new does not notice.
            for _ in 0..10 {
                let answer = site.get("a.test", "/").await;
                assert_eq!((answer.status, answer.origin()), (200, "other"));
            }
        }
    }
}

#[tokio::test]
async fn a_key_goes_to_one_endpoint_and_to_the_next_while_that_fails() {
    let all = echoes().await;
    let mut model = model();
    add_backend(&mut model, "web", &all);
    add_route_with(&mut model, "*", "/", forward("web"), |route| {
        route.options.hash_by = Some(HashBy {
            key: "$request_uri".to_owned(),
            subset: None,
            bound: None,
        });
    });
    let mut site = Site::start(model);
    let mut before = Vec::new();
    for key in 0..30 {
        let path = format!("/{key}");
        let first = site.get("a.test", &path).await.origin().to_owned();
        for _ in 0..3 {
            assert_eq!(site.get("a.test", &path).await.origin(), first);
        }
        before.push((path, first));
    }
    let distinct: BTreeSet<_> = before.iter().map(|(_, origin)| origin).collect();
    assert!(distinct.len() > 2, "{distinct:?}");
    // One that refuses takes the place of another: its keys are answered by the next one.
    let with_dead = [&all[1..], &[nobody()]].concat();
    site.change(|model| add_backend_only(model, &with_dead));
    let mut stayed = 0;
    for (path, origin) in &before {
        let answer = site.get("a.test", path).await;
        assert_eq!(answer.status, 200);
        stayed += usize::from(answer.origin() == origin);
    }
    let others = before.iter().filter(|(_, origin)| origin != "a").count();
    assert!(stayed >= others / 2, "{stayed} of {others}");
}
