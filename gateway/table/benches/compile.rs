//! How long it takes from a model to a published table, from nothing and after one change.

mod world;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use model::{Changes, RoutingModel, VirtualHost};
use table::{channel, compile, recompile};

use crate::world::{
    HOSTS, backend, certificate, certificate_id, endpoints, full, host, pattern, prefix, route,
};

fn from_nothing(c: &mut Criterion) {
    let model = full();
    c.bench_function("compile/from nothing", |bencher| {
        bencher.iter(|| black_box(compile(&model).rejects.len()));
    });
}

/// From the change to the published table, the end of the old one included. The model goes to and fro, so that there
/// is a difference every time.
fn change(c: &mut Criterion, name: &str, changes: &Changes, models: &[RoutingModel; 2]) {
    let [old, new] = models;
    let (mut writer, _reader) = channel(compile(old).table);
    let mut next = [new, old].into_iter().cycle();
    c.bench_function(name, |bencher| {
        bencher.iter(|| {
            let Some(model) = next.next() else { return 0 };
            let compiled = recompile(&writer.current(), model, changes);
            writer.publish(compiled.table)
        });
    });
}

fn one_change(c: &mut Criterion) {
    let old = full();

    let mut new = old.clone();
    new.endpoints.insert(backend(7), endpoints(7, 1));
    let changes = Changes {
        endpoints: [backend(7)].into(),
        ..Changes::default()
    };
    change(c, "compile/one endpoint set", &changes, &[old.clone(), new]);

    let mut new = old.clone();
    let routes = vec![route(prefix("/"), 7), route(prefix("/new"), HOSTS)];
    new.hosts
        .insert(pattern(&host(7)), Arc::new(VirtualHost { routes }));
    let changes = Changes {
        hosts: [pattern(&host(7))].into(),
        ..Changes::default()
    };
    change(c, "compile/one host", &changes, &[old.clone(), new]);

    for (rsa, name) in [(false, "ECDSA"), (true, "RSA")] {
        let mut new = old.clone();
        let rotated = certificate(rsa, &host(7));
        new.certificates
            .insert(certificate_id(7), Arc::new(rotated));
        let mut first = old.clone();
        let previous = certificate(rsa, &host(7));
        first
            .certificates
            .insert(certificate_id(7), Arc::new(previous));
        let changes = Changes {
            certificates: [certificate_id(7)].into(),
            ..Changes::default()
        };
        let name = format!("compile/one certificate ({name})");
        change(c, &name, &changes, &[first, new]);
    }
}

criterion_group! {
    name = compiling;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(10);
    targets = from_nothing, one_change
}
criterion_main!(compiling);
