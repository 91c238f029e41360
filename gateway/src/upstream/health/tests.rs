//! When endpoints are left alone, and when not.

use std::sync::Arc;

use model::{CheckKind, HealthCheck, Outliers};
use proptest::prelude::*;

use super::{Condition, Group};

/// A backend with so many endpoints.
fn backend(size: usize) -> (Arc<Group>, Vec<Condition>) {
    let group = Arc::new(Group::new());
    group.resize(size);
    let endpoints = (0..size).map(|_| Condition::new(Arc::clone(&group)));
    let endpoints = endpoints.collect();
    (group, endpoints)
}

fn state(group: &Group) -> (u32, u32) {
    let state = group.state(&model::BackendId::new("a", "b", "80"));
    (state.ejected, state.out)
}

fn fail(endpoint: &Condition, times: u32, now: u64) {
    for _ in 0..times {
        endpoint.failed(&Outliers::default(), now);
    }
}

fn answer(endpoint: &Condition, now: u64) {
    endpoint.answered(&Outliers::default(), || now);
}

#[test]
fn an_endpoint_that_refuses_connections_is_avoided_for_a_while() {
    let (group, endpoints) = backend(1);
    let endpoint = &endpoints[0];
    assert!(!endpoint.is_avoided(|| 0));
    endpoint.refused(0);
    assert!(endpoint.is_avoided(|| 999));
    assert!(!endpoint.is_avoided(|| 1000));
    endpoint.refused(1000);
    assert!(endpoint.is_avoided(|| 2999), "twice as long");
    assert!(!endpoint.is_avoided(|| 3000));
    endpoint.chosen(|| 3000);
    assert!(endpoint.is_avoided(|| 3000), "one request tries it");
    assert!(!endpoint.is_avoided(|| 8000), "then another one");
    endpoint.connected();
    assert!(!endpoint.is_avoided(|| 3000));
    endpoint.chosen(|| 3000);
    assert!(!endpoint.is_avoided(|| 3000), "it is well");
    assert_eq!(
        state(&group),
        (0, 0),
        "that it is preferred less is no ejection"
    );
}

#[test]
fn an_endpoint_that_does_not_answer_is_ejected_until_one_request_has_proved_it_well() {
    let (group, endpoints) = backend(2);
    let endpoint = &endpoints[0];
    for _ in 0..3 {
        fail(endpoint, 4, 0);
        assert!(!endpoint.is_avoided(|| 0), "some fail everywhere");
        answer(endpoint, 0);
    }
    fail(endpoint, 5, 0);
    assert_eq!(state(&group), (1, 1));
    assert!(endpoint.is_avoided(|| 1999));
    answer(endpoint, 1000);
    fail(endpoint, 7, 1000);
    assert!(
        endpoint.is_avoided(|| 1999) && !endpoint.is_avoided(|| 2000),
        "what was on its way before changes nothing"
    );
    endpoint.chosen(|| 2000);
    assert!(endpoint.is_avoided(|| 2000), "one request tries it");
    fail(endpoint, 1, 2100);
    assert!(endpoint.is_avoided(|| 6099), "twice as long");
    assert!(!endpoint.is_avoided(|| 6100));
    endpoint.chosen(|| 6100);
    answer(endpoint, 6200);
    assert!(!endpoint.is_avoided(|| 6200));
    assert_eq!(state(&group), (0, 0));
    fail(endpoint, 4, 6200);
    assert!(!endpoint.is_avoided(|| 6200), "it begins anew");
}

#[test]
fn the_time_grows_with_each_ejection_and_is_forgiven() {
    let (_group, endpoints) = backend(2);
    let endpoint = &endpoints[0];
    let mut now = 0;
    let mut pauses = Vec::new();
    for _ in 0..7 {
        fail(endpoint, 5, now);
        let mut pause = 0;
        while endpoint.is_avoided(|| now + pause) {
            pause += 1000;
        }
        pauses.push(pause / 1000);
        now += pause;
        endpoint.chosen(|| now);
        answer(endpoint, now);
    }
    assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60]);
    // Six minutes are forgiven of the seven.
    now += 6 * 60_000;
    fail(endpoint, 5, now);
    assert!(endpoint.is_avoided(|| now + 3999) && !endpoint.is_avoided(|| now + 4000));
}

#[test]
fn only_a_share_of_the_endpoints_is_ejected_and_never_the_last() {
    for (size, share, want) in [
        (1, 50, 0),
        (1, 100, 0),
        (2, 50, 1),
        (2, 100, 1),
        (3, 50, 1),
        (10, 50, 5),
        (10, 10, 1),
        (10, 100, 9),
        (10, 0, 0),
        (0, 100, 0),
    ] {
        let (group, endpoints) = backend(size);
        let rules = Outliers {
            share,
            ..Outliers::default()
        };
        for endpoint in &endpoints {
            for _ in 0..9 {
                endpoint.failed(&rules, 0);
            }
        }
        assert_eq!(state(&group).0, want, "{share} percent of {size}");
        let avoided = endpoints.iter().filter(|end| end.is_ejected()).count();
        assert_eq!(u32::try_from(avoided).unwrap(), want);
    }
}

#[test]
fn where_few_are_left_all_are_used() {
    let (group, endpoints) = backend(10);
    let rules = Outliers {
        share: 100,
        panic: 30,
        ..Outliers::default()
    };
    let health = model::Health {
        outliers: rules,
        ..model::Health::default()
    };
    group.apply(Some(&health));
    let avoided = || endpoints.iter().filter(|end| end.is_avoided(|| 0)).count();
    for (number, endpoint) in endpoints.iter().take(7).enumerate() {
        for _ in 0..5 {
            endpoint.failed(&health.outliers, 0);
        }
        assert_eq!(avoided(), number + 1);
    }
    assert!(!state_of(&group).panics, "thirty percent are not fewer");
    for _ in 0..5 {
        endpoints[7].failed(&health.outliers, 0);
    }
    assert!(state_of(&group).panics);
    assert_eq!(avoided(), 0);
    endpoints[8].refused(0);
    assert_eq!(avoided(), 1, "who refuses connections bears no load");
    // After its time one of them proves well.
    endpoints[0].chosen(|| 2000);
    endpoints[0].answered(&health.outliers, || 2000);
    assert!(!state_of(&group).panics);
}

fn state_of(group: &Group) -> crate::upstream::BackendState {
    group.state(&model::BackendId::new("a", "b", "80"))
}

#[test]
fn an_endpoint_that_often_fails_is_ejected_by_its_rate() {
    let rules = Outliers {
        failures: 0,
        error_rate: 50,
        window_ms: 1000,
        least_requests: 10,
        ..Outliers::default()
    };
    let (group, endpoints) = backend(4);
    let turn = |endpoint: &Condition, failed: bool, now: u64| {
        if failed {
            endpoint.failed(&rules, now);
        } else {
            endpoint.answered(&rules, || now);
        }
    };
    for request in 0..9_u64 {
        turn(&endpoints[0], true, request);
    }
    assert!(!endpoints[0].is_ejected(), "too few to say");
    turn(&endpoints[0], true, 1500);
    assert!(!endpoints[0].is_ejected(), "another window");
    for request in 0..100_u64 {
        turn(&endpoints[1], request % 3 == 0, request);
        turn(&endpoints[2], request % 2 == 0, request);
    }
    assert!(!endpoints[1].is_ejected(), "a third");
    assert!(endpoints[2].is_ejected(), "a half");
    assert_eq!(state_of(&group).ejections_by_rate, 1);
    endpoints[2].chosen(|| 2100);
    turn(&endpoints[2], false, 2100);
    turn(&endpoints[2], true, 2100);
    assert!(!endpoints[2].is_ejected(), "what was before is forgotten");
}

#[test]
fn an_endpoint_that_leaves_does_not_count_however_long_its_requests_last() {
    let (group, endpoints) = backend(4);
    fail(&endpoints[0], 5, 0);
    fail(&endpoints[1], 5, 0);
    assert_eq!(state(&group), (2, 2));
    endpoints[0].enlist(false);
    assert_eq!(state(&group), (1, 1));
    fail(&endpoints[0], 9, 0);
    assert_eq!(state(&group), (1, 1), "it stays away");
    endpoints[0].enlist(true);
    fail(&endpoints[0], 1, 0);
    assert_eq!(state(&group), (2, 2), "it is back");
    drop(endpoints);
    assert_eq!(state(&group), (0, 0));
}

fn usual_check() -> HealthCheck {
    HealthCheck {
        kind: CheckKind::Tcp,
        host: None,
        interval_ms: 1000,
        timeout_ms: 1000,
        unhealthy: 3,
        healthy: 2,
        tls: None,
    }
}

#[test]
fn checks_decide_by_what_comes_in_a_row() {
    let (group, endpoints) = backend(4);
    let endpoint = &endpoints[0];
    let rules = usual_check();
    let check = |well: bool| endpoint.checked(&rules, well);
    for well in [true, false, false, true, false, false] {
        assert!(!check(well));
    }
    assert!(!endpoint.is_avoided(|| 0));
    assert!(check(false), "three in a row");
    assert!(endpoint.is_avoided(|| u64::MAX), "for as long as it takes");
    assert_eq!(state(&group), (0, 1));
    fail(endpoint, 5, 0);
    assert_eq!(state(&group), (1, 1), "out for two reasons, and once");
    for well in [false, true, false, true] {
        assert!(!check(well));
    }
    assert!(check(true), "two in a row");
    assert_eq!(state(&group), (1, 1));
    assert!(endpoint.is_avoided(|| 0), "it is ejected all the same");
    for _ in 0..3 {
        check(false);
    }
    endpoint.forget_checks();
    assert_eq!(state_of(&group).unhealthy, 0);
}

#[test]
fn an_era_begins_with_each_failure_after_a_success() {
    let (_group, endpoints) = backend(1);
    let endpoint = &endpoints[0];
    assert_eq!(endpoint.era(), 0);
    fail(endpoint, 3, 0);
    assert_eq!(endpoint.era(), 1);
    answer(endpoint, 0);
    assert_eq!(endpoint.era(), 1);
    endpoint.refused(0);
    assert_eq!(endpoint.era(), 2);
}

/// What may happen to an endpoint.
#[derive(Clone, Copy, Debug)]
enum Event {
    Failed,
    Answered,
    Refused,
    Connected,
    Chosen,
    Enlisted(bool),
    Checked(bool),
    Later(u16),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => Just(Event::Failed),
        3 => Just(Event::Answered),
        1 => Just(Event::Refused),
        1 => Just(Event::Connected),
        4 => Just(Event::Chosen),
        1 => any::<bool>().prop_map(Event::Enlisted),
        4 => any::<bool>().prop_map(Event::Checked),
        3 => any::<u16>().prop_map(Event::Later),
    ]
}

proptest! {
    #[test]
    fn the_numbers_of_a_backend_are_those_of_its_endpoints(
        events in prop::collection::vec((0..5_usize, event()), 0..400),
        share in 0..=100_u8,
    ) {
        let (group, endpoints) = backend(5);
        let rules = Outliers { failures: 2, share, ..Outliers::default() };
        let check = HealthCheck { unhealthy: 2, healthy: 2, ..usual_check() };
        let mut now = 0;
        for (number, event) in events {
            let endpoint = &endpoints[number];
            match event {
                Event::Failed => endpoint.failed(&rules, now),
                Event::Answered => endpoint.answered(&rules, || now),
                Event::Refused => endpoint.refused(now),
                Event::Connected => endpoint.connected(),
                Event::Chosen => endpoint.chosen(|| now),
                Event::Enlisted(listed) => endpoint.enlist(listed),
                Event::Checked(well) => { endpoint.checked(&check, well); }
                Event::Later(time) => now += u64::from(time),
            }
            let ejected = endpoints.iter().filter(|end| end.is_ejected()).count();
            let ejected = u32::try_from(ejected).unwrap();
            let out = endpoints.iter().filter(|end| end.is_ejected() || end.is_unhealthy());
            let out = u32::try_from(out.count()).unwrap();
            prop_assert_eq!(state(&group), (ejected, out));
            let unhealthy = endpoints.iter().filter(|end| end.is_unhealthy()).count();
            prop_assert_eq!(state_of(&group).unhealthy, u32::try_from(unhealthy).unwrap());
            prop_assert!(ejected * 100 <= 5 * u32::from(share) && ejected < 5);
        }
        drop(endpoints);
        prop_assert_eq!(state(&group), (0, 0));
    }
}
