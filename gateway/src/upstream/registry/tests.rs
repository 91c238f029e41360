use super::*;

fn id(name: &str) -> BackendId {
    BackendId::new("ns", name, "80")
}

fn addresses(ports: &[u16]) -> impl Iterator<Item = SocketAddr> {
    ports
        .iter()
        .map(|port| SocketAddr::from(([10, 0, 0, 1], *port)))
}

#[test]
fn an_endpoint_keeps_its_state_while_somebody_uses_it() {
    let registry = EndpointRegistry::new();
    let first = registry.endpoints(&id("a"), addresses(&[1, 2]));
    let request = InFlight::on(Arc::clone(&first[1]));
    drop(first);

    let second = registry.endpoints(&id("a"), addresses(&[2, 3]));
    assert_eq!(second[0].in_flight.load(Ordering::Relaxed), 1);
    let other = registry.endpoints(&id("b"), addresses(&[2]));
    assert_eq!(
        other[0].in_flight.load(Ordering::Relaxed),
        0,
        "another backend at the same address counts for itself"
    );

    drop(request);
    let states = registry.states();
    let seen: Vec<_> = states
        .iter()
        .map(|state| {
            (
                &*state.backend.service,
                state.address.port(),
                state.in_flight,
            )
        })
        .collect();
    assert_eq!(seen, [("a", 2, 0), ("a", 3, 0), ("b", 2, 0)]);
}

#[test]
fn who_is_slow_has_more_load_until_that_is_long_ago() {
    let registry = EndpointRegistry::new();
    let endpoints = registry.endpoints(&id("a"), addresses(&[1, 2]));
    let (slow, fast) = (&endpoints[0], &endpoints[1]);
    for second in 1..=20 {
        slow.measured_at(Duration::from_millis(100), second * 1000);
        fast.measured_at(Duration::from_millis(10), second * 1000);
    }
    assert!(slow.expected_time(20_000) > 5.0 * fast.expected_time(20_000));
    let requests: Vec<_> = (0..19).map(|_| InFlight::on(Arc::clone(fast))).collect();
    assert!(
        fast.expected_time(20_000) > slow.expected_time(20_000),
        "it has enough to do"
    );
    drop(requests);
    assert!(
        slow.expected_time(120_000) < fast.expected_time(20_000),
        "long ago"
    );
}

#[test]
fn an_endpoint_that_comes_to_others_is_new() {
    let registry = EndpointRegistry::new();
    let first = registry.endpoints(&id("a"), addresses(&[1, 2]));
    let at = now();
    assert!(
        first.iter().all(|e| e.weight(at, 60_000) == Weight::FULL),
        "all of them came at once"
    );
    first[0].measured(Duration::from_millis(200));
    let second = registry.endpoints(&id("a"), addresses(&[1, 2, 3]));
    let at = now();
    let weights: Vec<_> = second.iter().map(|e| e.weight(at, 60_000)).collect();
    assert_eq!(weights, [Weight::FULL, Weight::FULL, Weight::LEAST]);
    let new = &second[2];
    assert!(new.weight(at + 30_000, 60_000) > Weight::LEAST);
    assert_eq!(new.weight(at + 60_001, 60_000), Weight::FULL);
    assert_eq!(new.weight(at, 0), Weight::FULL, "nobody asks for it");
    let load = new.expected_time(at);
    assert!(
        (0.15..0.21).contains(&load),
        "as fast as the one that was measured: {load}"
    );
    // Nobody is left of those who were there before.
    drop((first, second));
    let third = registry.endpoints(&id("a"), addresses(&[4, 5]));
    assert!(
        third
            .iter()
            .all(|e| e.weight(now(), 60_000) == Weight::FULL)
    );
}

#[test]
fn where_nothing_is_measured_the_number_of_requests_decides() {
    let registry = EndpointRegistry::new();
    let endpoints = registry.endpoints(&id("a"), addresses(&[1, 2]));
    let request = InFlight::on(Arc::clone(&endpoints[0]));
    assert!(endpoints[0].expected_time(now()) > endpoints[1].expected_time(now()));
    drop(request);
}

#[test]
fn a_load_is_counted_when_somebody_asks_for_it() {
    let registry = EndpointRegistry::new();
    let endpoints = registry.endpoints(&id("a"), addresses(&[1, 2]));
    let before = InFlight::on(Arc::clone(&endpoints[0]));
    assert_eq!(
        endpoints[0].load_of_all().in_flight(),
        0,
        "from now on it counts"
    );
    let first = InFlight::on(Arc::clone(&endpoints[0]));
    let more = registry.endpoints(&id("a"), addresses(&[2, 3]));
    let second = InFlight::on(Arc::clone(&more[1]));
    assert_eq!(
        more[0].load_of_all().in_flight(),
        2,
        "all endpoints of the backend"
    );
    drop((before, first));
    assert_eq!(
        more[0].load_of_all().in_flight(),
        1,
        "the first was not counted"
    );
    drop(second);
    assert_eq!(endpoints[0].load_of_all().in_flight(), 0);
}

#[test]
fn what_nobody_uses_is_forgotten() {
    let registry = EndpointRegistry::new();
    for n in 0..3000 {
        registry.endpoints(&id(&n.to_string()), addresses(&[1]));
    }
    let known = registry.known.lock().unwrap();
    assert!(known.backends.len() < 1100, "{}", known.backends.len());
}
