use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{
    Backend, BackendId, Endpoint as Address, Origin, RoutingModel, StreamRoute, StreamRules,
};
use table::Table;

use super::*;
use crate::upstream::InFlight;

const RULES: [Balance; 4] = [
    Balance::RoundRobin,
    Balance::Ewma,
    Balance::LeastRequest,
    Balance::Random,
];

/// One worker and one backend.
struct World {
    picker: Picker,
    shared: Shared,
    random: Random,
    table: Table,
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

fn table(endpoints: Vec<Address>) -> Table {
    let mut model = RoutingModel::default();
    let id = BackendId::new("a", "b", "80");
    let backend = Backend {
        protocol: model::BackendProtocol::Http1,
        seed: None,
        health: None,
        origin: Origin::default(),
    };
    model.backends.insert(id.clone(), Arc::new(backend));
    let set = EndpointSet::Addresses(endpoints);
    model.endpoints.insert(id.clone(), Arc::new(set));
    let route = StreamRoute {
        backend: id,
        balance: Balance::default(),
        proxy_in: false,
        proxy_out: false,
        rules: StreamRules::default(),
        origin: Origin::default(),
    };
    model.streams.tcp = BTreeMap::from([(9000, Arc::new(route))]);
    table::compile(&model).table
}

fn endpoints(near: &[u16], far: &[u16]) -> Vec<Address> {
    let mut all: Vec<_> = near
        .iter()
        .map(|port| Address::new(address(*port)))
        .collect();
    all.extend(far.iter().map(|port| Address {
        far: true,
        ..Address::new(address(*port))
    }));
    all.sort();
    all
}

impl World {
    fn new(near: &[u16], far: &[u16]) -> Self {
        let (_, reader) = table::channel(table(Vec::new()));
        Self {
            picker: Picker::new(),
            shared: Shared::new(crate::Settings::default(), reader),
            random: Random::new(),
            table: table(endpoints(near, far)),
        }
    }

    fn swap(&mut self, near: &[u16], far: &[u16]) {
        self.table = table(endpoints(near, far));
    }

    fn turn(&self, balance: Balance, slow_start: u64, wish: Wish) -> Turn<'_> {
        Turn {
            balance,
            slow_start,
            random: &self.random,
            wish,
        }
    }

    fn choose_of(&self, turn: Turn<'_>, tried: &[u16]) -> Option<(Arc<Endpoint>, Option<u128>)> {
        let slot = self.table.streams().tcp[&9000].slot;
        let backend = self.table.backend(slot)?;
        let tried = |of: SocketAddr| tried.contains(&of.port());
        self.picker
            .choose(slot, backend, None, &self.shared, turn, tried)
    }

    fn choose(&self, balance: Balance, tried: &[u16]) -> Arc<Endpoint> {
        let turn = self.turn(balance, 0, Wish::None);
        self.choose_of(turn, tried).unwrap().0
    }

    fn by_key(&self, key: u32, bound: Option<u32>) -> Arc<Endpoint> {
        let at = balance::place(&key.to_be_bytes());
        let place = Place {
            at,
            subset: None,
            bound,
        };
        let turn = self.turn(Balance::RoundRobin, 0, Wish::Place(place));
        self.choose_of(turn, &[]).unwrap().0
    }

    fn by_session(&self, number: Option<u128>) -> (u16, Option<u128>) {
        let wish = Wish::Session {
            number,
            loyal: false,
            persistent: false,
        };
        let turn = self.turn(Balance::RoundRobin, 0, wish);
        let (endpoint, number) = self.choose_of(turn, &[]).unwrap();
        (endpoint.address().port(), number)
    }

    /// The ports that are chosen in so many turns.
    fn ports(&self, balance: Balance, turns: u32) -> BTreeSet<u16> {
        (0..turns)
            .map(|_| self.choose(balance, &[]).address().port())
            .collect()
    }

    /// For longer than a test takes.
    fn make_ill(&self, port: u16) {
        for _ in 0..4 {
            self.endpoint(port).refused();
        }
    }

    fn endpoint(&self, port: u16) -> Arc<Endpoint> {
        let others: Vec<u16> = (0..100).filter(|other| *other != port).collect();
        let endpoint = self.choose(Balance::RoundRobin, &others);
        assert_eq!(endpoint.address().port(), port);
        endpoint
    }
}

#[test]
fn what_is_known_of_endpoints_outlives_a_swap() {
    let mut world = World::new(&[1, 2, 3], &[]);
    for (port, latency) in [(1, 500), (2, 5), (3, 5)] {
        world
            .endpoint(port)
            .measured(Duration::from_millis(latency));
    }
    assert!(!world.ports(Balance::Ewma, 100).contains(&1), "it is slow");
    world.make_ill(2);
    world.swap(&[1, 2, 3, 4], &[]);
    // This worker is the only one, and none of its requests is in flight.
    assert_eq!(
        world.ports(Balance::Ewma, 100),
        [3, 4].into(),
        "1 is slow, 2 refuses"
    );
    world.swap(&[1, 2, 4], &[]);
    let ports = world.ports(Balance::Ewma, 300);
    assert!(ports.contains(&4) && !ports.contains(&2), "{ports:?}");
    // Turns go on, and requests in flight count.
    let busy: Vec<_> = (0..3).map(|_| InFlight::on(world.endpoint(4))).collect();
    world.swap(&[1, 4], &[]);
    assert_eq!(world.ports(Balance::LeastRequest, 50), [1].into());
    drop(busy);
    assert_eq!(world.ports(Balance::LeastRequest, 50), [1, 4].into());
}

#[test]
fn no_rule_chooses_what_is_gone() {
    let mut world = World::new(&[1, 2, 3], &[]);
    for rule in RULES {
        world.swap(&[1, 2, 3], &[]);
        world.ports(rule, 50);
        world.swap(&[2], &[]);
        assert_eq!(world.ports(rule, 50), [2].into(), "{rule:?}");
        world.swap(&[], &[]);
        let turn = world.turn(rule, 0, Wish::None);
        assert!(world.choose_of(turn, &[]).is_none(), "{rule:?}");
    }
}

#[test]
fn what_was_tried_comes_last_by_every_rule() {
    let world = World::new(&[1, 2, 3, 4, 5], &[]);
    for rule in RULES {
        for _ in 0..200 {
            assert_eq!(world.choose(rule, &[1, 2, 4, 5]).address().port(), 3);
        }
        let all: BTreeSet<_> = (0..200)
            .map(|_| world.choose(rule, &[1, 2, 3, 4, 5]).address().port())
            .collect();
        assert!(!all.is_empty(), "{rule:?} asks one again");
    }
}

#[test]
fn near_endpoints_come_first_and_far_ones_stand_in() {
    for rule in RULES {
        let world = World::new(&[2, 4], &[1, 3, 5]);
        assert_eq!(world.ports(rule, 200), [2, 4].into(), "{rule:?}");
        world.make_ill(2);
        assert_eq!(world.ports(rule, 200), [4].into(), "{rule:?}: one is left");
        let away = world.choose(rule, &[4]).address().port();
        assert!([1, 3, 5].contains(&away), "{rule:?}: rather far than ill");
        world.make_ill(4);
        assert_eq!(
            world.ports(rule, 200),
            [1, 3, 5].into(),
            "{rule:?}: none is left"
        );
        world.endpoint(4).connected();
        assert_eq!(world.ports(rule, 200), [4].into(), "{rule:?}: it is back");
    }
}

#[test]
fn where_all_are_far_all_are_used() {
    let world = World::new(&[], &[1, 2]);
    assert_eq!(world.ports(Balance::RoundRobin, 10), [1, 2].into());
}

#[test]
fn a_new_endpoint_begins_with_a_small_share_by_every_rule() {
    const HOUR: u64 = 3_600_000;
    for rule in RULES {
        let mut world = World::new(&[1, 2], &[]);
        let share = |world: &World| {
            let turn = world.turn(rule, HOUR, Wish::None);
            let chosen = (0..6_000).map(|_| world.choose_of(turn, &[]).unwrap().0);
            let new = chosen.filter(|endpoint| endpoint.address().port() == 3);
            f64::from(u32::try_from(new.count()).unwrap()) / 6_000.0
        };
        share(&world);
        world.swap(&[1, 2, 3], &[]);
        // 0.1 of 2.1; by lot the standard deviation is 0.003.
        let found = share(&world);
        assert!((0.03..0.065).contains(&found), "{rule:?}: {found}");
        let turn = world.turn(rule, 0, Wish::None);
        let whole = (0..600).map(|_| world.choose_of(turn, &[]).unwrap().0);
        let whole = whole.filter(|endpoint| endpoint.address().port() == 3);
        assert!(whole.count() > 120, "{rule:?}: only where it is asked for");
    }
    // Nobody was there before.
    let world = World::new(&[1, 2, 3], &[]);
    let turn = world.turn(Balance::RoundRobin, HOUR, Wish::None);
    let ports: Vec<_> = (0..6)
        .map(|_| world.choose_of(turn, &[]).unwrap().0.address().port())
        .collect();
    assert_eq!(ports[..3], ports[3..], "they take turns");
}

#[test]
fn keys_and_sessions_do_not_depend_on_what_is_near() {
    let here = World::new(&[1, 2, 3], &[4, 5, 6]);
    let there = World::new(&[4, 5, 6], &[1, 2, 3]);
    let mut ports = BTreeSet::new();
    for key in 0..200 {
        let port = here.by_key(key, None).address().port();
        assert_eq!(there.by_key(key, None).address().port(), port);
        ports.insert(port);
    }
    assert_eq!(ports.len(), 6);
    for _ in 0..50 {
        let (port, number) = here.by_session(None);
        assert!([1, 2, 3].contains(&port), "a new user goes to a near one");
        assert_eq!(here.by_session(number), (port, None));
        assert_eq!(there.by_session(number), (port, None), "and stays there");
    }
}

#[test]
fn one_key_spreads_only_where_its_endpoint_is_too_busy() {
    let world = World::new(&[1, 2, 3, 4, 5, 6, 7, 8], &[]);
    let own = world.by_key(7, Some(150)).address();
    for _ in 0..20 {
        let request = InFlight::on(world.by_key(7, Some(150)));
        assert_eq!(request.endpoint().address(), own, "one after the other");
    }
    let mut in_flight = Vec::new();
    for count in 1..=80_u32 {
        let endpoint = world.by_key(7, Some(150));
        in_flight.push(InFlight::on(endpoint));
        let most = (f64::from(count) / 8.0 * 1.5).ceil();
        let last = in_flight.last().unwrap().endpoint();
        assert!(f64::from(last.in_flight()) <= most, "{count}");
    }
    let of_own = in_flight.iter().filter(|r| r.endpoint().address() == own);
    assert_eq!(of_own.count(), 15, "as many as it may have");
    let unbounded = world.by_key(7, None);
    assert_eq!(unbounded.address(), own);
    // Those with room are ill: a busy one is better.
    for port in (1..=8).filter(|port| address(*port) != own) {
        world.make_ill(port);
    }
    assert_eq!(world.by_key(7, Some(150)).address(), own);
}
