//! How long it takes to find a route, and the TLS settings of a server name.
#![expect(
    clippy::unwrap_used,
    reason = "a benchmark has nothing to recover from"
)]

mod world;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, Method};
use model::{ListenerName, PathMatch, RoutingModel, TlsHost, TlsPolicy, VirtualHost};
use table::{ListenerId, Lookup, Table, compile};

use crate::world::{certificate, certificate_id, exact, host, pattern, prefix, route, routes};

/// Requests are taken from a list that is longer than the caches are wide, so that the table has to come from memory.
const REQUESTS: u32 = 1 << 16;

struct Request {
    host: String,
    path: String,
}

/// Requests in the order of the list lie side by side: those of real clients have just been read, too.
fn requests(make: impl Fn(u32) -> (String, String)) -> Vec<Request> {
    let mut state = 0x2545_f491_u32;
    let random = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    });
    random
        .take(REQUESTS as usize)
        .map(|number| {
            let (host, path) = make(number);
            Request { host, path }
        })
        .collect()
}

fn measure(c: &mut Criterion, name: &str, table: &Table, requests: &[Request]) {
    let listener: ListenerId = table.listener(&ListenerName::http()).unwrap();
    let headers = HeaderMap::new();
    let mut next = requests.iter().cycle();
    c.bench_function(name, |bencher| {
        bencher.iter(|| {
            let Request { host, path } = next.next().unwrap();
            let found = table.lookup(&Lookup {
                listener,
                host,
                path,
                query: None,
                method: &Method::GET,
                headers: &headers,
            });
            black_box(found.is_some())
        });
    });
}

fn by_hosts(c: &mut Criterion) {
    for (count, name) in [(100, "100"), (10_000, "10,000"), (100_000, "100,000")] {
        let table = compile(&routes(count)).table;
        let known = requests(|n| (host(n % count), "/api/v1/users/17".to_owned()));
        measure(c, &format!("lookup/{name} hosts"), &table, &known);
        let unknown = requests(|n| (format!("unknown-{n}.example.test"), "/".to_owned()));
        measure(c, &format!("lookup/unknown among {name}"), &table, &unknown);
    }
    let mut model = RoutingModel {
        listeners: routes(0).listeners,
        ..RoutingModel::default()
    };
    for n in 0..10_000 {
        let routes = vec![route(prefix("/"), n)];
        let wildcard = pattern(&format!("*.{}", host(n)));
        model
            .hosts
            .insert(wildcard, Arc::new(VirtualHost { routes }));
    }
    let table = compile(&model).table;
    let below = requests(|n| (format!("www.{}", host(n % 10_000)), "/".to_owned()));
    measure(c, "lookup/10,000 wildcards", &table, &below);
}

fn by_paths(c: &mut Criterion) {
    let one_host = |paths: Vec<PathMatch>| {
        let mut model = routes(0);
        let routes = (0..).zip(paths).map(|(n, path)| route(path, n)).collect();
        model
            .hosts
            .insert(pattern(&host(0)), Arc::new(VirtualHost { routes }));
        compile(&model).table
    };
    let path = |n: u32| format!("/team-{}/service-{}", n % 10, n % 1000);

    let table = one_host((0..1000).map(|n| prefix(&path(n))).collect());
    let below = requests(|n| (host(0), format!("{}/users/{n}/", path(n))));
    measure(c, "lookup/1,000 prefixes on one host", &table, &below);

    let table = one_host((0..1000).map(|n| exact(&path(n))).collect());
    let equal = requests(|n| (host(0), path(n)));
    measure(c, "lookup/1,000 exact paths on one host", &table, &equal);

    let regex = |n| PathMatch::Regex(format!("{}/[0-9]+$", path(n)));
    let table = one_host((0..1000).map(regex).collect());
    let matching = requests(|n| (host(0), format!("{}/{n}", path(n))));
    measure(c, "lookup/1,000 regexes on one host", &table, &matching);
}

fn tls(c: &mut Criterion) {
    let mut model = RoutingModel::default();
    let id = certificate_id(0);
    let key = certificate(false, "a.test");
    model.certificates.insert(id.clone(), Arc::new(key));
    let tls = Arc::new(TlsHost {
        certificates: vec![id],
        policy: TlsPolicy::default(),
        origin: model::Origin::default(),
    });
    for n in 0..100_000 {
        model.tls_hosts.insert(pattern(&host(n)), Arc::clone(&tls));
    }
    let table = compile(&model).table;
    let names = requests(|n| (host(n % 100_000), String::new()));
    let mut next = names.iter().cycle();
    c.bench_function("tls/100,000 server names", |bencher| {
        bencher.iter(|| {
            let entry = table.tls(Some(&next.next().unwrap().host));
            black_box(entry.is_some())
        });
    });
}

criterion_group! {
    name = lookup;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = by_hosts, by_paths, tls
}
criterion_main!(lookup);
