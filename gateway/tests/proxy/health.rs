//! Which endpoints are left alone, and for how long.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::{Response, StatusCode};
use model::{Health, Outliers, RoutingModel};

use crate::support::{
    Site, add_backend, add_route, backend, backend_id, echo, eventually, forward, full, model,
    raw_backend, read_head, soon,
};

/// An endpoint that answers 503 as long as it is told to.
pub(crate) struct Moody {
    pub(crate) address: SocketAddr,
    pub(crate) ill: Arc<AtomicBool>,
}

impl Moody {
    pub(crate) async fn start(name: &'static str) -> Self {
        let ill = Arc::new(AtomicBool::new(true));
        let state = Arc::clone(&ill);
        let address = backend(move |_| {
            let ill = state.load(Ordering::SeqCst);
            async move {
                let status = if ill {
                    StatusCode::SERVICE_UNAVAILABLE
                } else {
                    StatusCode::OK
                };
                Response::builder()
                    .status(status)
                    .header("x-origin", name)
                    .body(full(""))
                    .unwrap()
            }
        })
        .await;
        Self { address, ill }
    }
}

pub(crate) fn watched(name: &str, addresses: &[SocketAddr], health: Health) -> RoutingModel {
    let mut model = model();
    add_backend(&mut model, name, addresses);
    watch(&mut model, name, health);
    add_route(&mut model, "*", "/", forward(name));
    model
}

pub(crate) fn watch(model: &mut RoutingModel, name: &str, health: Health) {
    let backend = model.backends.get_mut(&backend_id(name)).unwrap();
    Arc::make_mut(backend).health = Some(Arc::new(health));
}

/// Nobody is ejected.
pub(crate) fn never() -> Health {
    Health {
        outliers: Outliers {
            failures: 0,
            ..Outliers::default()
        },
        ..Health::default()
    }
}

fn by_status(base_ms: u32) -> Health {
    Health {
        outliers: Outliers {
            statuses: vec![503],
            base_ms,
            most_ms: base_ms,
            ..Outliers::default()
        },
        ..Health::default()
    }
}

#[tokio::test]
async fn statuses_eject_an_endpoint_until_it_is_well() {
    let moody = Moody::start("moody").await;
    let endpoints = [moody.address, echo("web").await];
    let site = Site::start(watched("moody", &endpoints, by_status(200)));
    let mut refusals = 0;
    for _ in 0..30 {
        refusals += u32::from(site.get("a.test", "/").await.status == 503);
    }
    // Five in a row; a few more where its time is over meanwhile.
    assert!((5..=12).contains(&refusals), "{refusals} of 30");
    let state = |site: &Site| {
        let states = site.running.endpoint_state();
        let state = states.iter().find(|state| state.address == moody.address);
        state.unwrap().clone()
    };
    assert!(state(&site).ejected);
    let groups = site.running.backend_state();
    let group = groups
        .iter()
        .find(|group| group.backend == backend_id("moody"));
    let group = group.unwrap();
    assert_eq!(
        (group.endpoints, group.ejected, group.panics),
        (2, 1, false)
    );
    assert_eq!(group.ejections_by_failures, 1);

    moody.ill.store(false, Ordering::SeqCst);
    soon(async { while site.get("a.test", "/").await.origin() != "moody" {} }).await;
    eventually("it is one of them again", || !state(&site).ejected).await;
}

#[tokio::test]
async fn statuses_that_nobody_has_named_eject_nobody() {
    let moody = Moody::start("moody").await;
    let site = Site::start(watched(
        "unnamed",
        &[moody.address, echo("web").await],
        Health::default(),
    ));
    let mut refusals = 0;
    for _ in 0..30 {
        refusals += u32::from(site.get("a.test", "/").await.status == 503);
    }
    assert_eq!(refusals, 15);
}

#[tokio::test]
async fn the_last_endpoint_serves_whatever_it_answers() {
    let (one, two) = (Moody::start("one").await, Moody::start("two").await);
    let endpoints = [one.address, two.address];
    let site = Site::start(watched("last", &endpoints, by_status(60_000)));
    for _ in 0..30 {
        assert_eq!(site.get("a.test", "/").await.status, 503);
    }
    let states = site.running.endpoint_state();
    let ejected = states.iter().filter(|state| state.ejected).count();
    assert_eq!(ejected, 1);
}

#[tokio::test]
async fn a_swap_keeps_what_is_known_and_new_rules_count() {
    let moody = Moody::start("moody").await;
    let web = echo("web").await;
    let mut site = Site::start(watched("kept", &[moody.address, web], by_status(60_000)));
    soon(async {
        while !site
            .running
            .endpoint_state()
            .iter()
            .any(|state| state.ejected)
        {
            site.get("a.test", "/").await;
        }
    })
    .await;
    let third = echo("third").await;
    site.change(|model| {
        let health = model.backends[&backend_id("kept")].health.clone();
        add_backend(model, "kept", &[moody.address, web, third]);
        watch(model, "kept", Health::clone(&health.unwrap()));
    });
    for _ in 0..20 {
        assert_eq!(site.get("a.test", "/").await.status, 200);
    }
    // Of an endpoint that is gone nothing is left in the numbers.
    site.change(|model| {
        let health = model.backends[&backend_id("kept")].health.clone();
        add_backend(model, "kept", &[web, third]);
        watch(model, "kept", Health::clone(&health.unwrap()));
    });
    assert_eq!(site.get("a.test", "/").await.status, 200);
    let groups = site.running.backend_state();
    let group = groups
        .iter()
        .find(|group| group.backend == backend_id("kept"));
    let group = group.unwrap();
    assert_eq!((group.endpoints, group.ejected, group.out), (2, 0, 0));
}

#[tokio::test]
async fn off_is_off() {
    let rude = raw_backend(|mut stream| async move {
        read_head(&mut stream).await;
    })
    .await;
    let site = Site::start(watched("never", &[rude, echo("web").await], never()));
    let mut failures = 0;
    for _ in 0..20 {
        failures += u32::from(site.get("a.test", "/").await.status == 502);
    }
    assert_eq!(failures, 10);
}
