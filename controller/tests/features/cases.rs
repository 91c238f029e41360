//! The cases of `e2e/cases`, against a folder of manifests.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use controller::app::Engine;

use crate::manifest::{Authority, service};
use crate::world::World;

#[path = "../../../e2e/cases/runner.rs"]
mod shared;

#[tokio::test]
async fn every_case_is_answered_as_it_says() {
    answer_all(Engine::Auto).await;
}

#[tokio::test]
async fn every_case_is_answered_as_it_says_by_pingora_alone() {
    answer_all(Engine::Pingora).await;
}

async fn answer_all(engine: Engine) {
    let backends = shared::Backends::start(IpAddr::V4(Ipv4Addr::LOCALHOST)).await;
    let services: Vec<(String, String)> = backends
        .services
        .iter()
        .map(|(name, ports)| (format!("{name}.yaml"), service(name, ports)))
        .collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/cases");
    let (mut cases, mut requests, mut failures) = (0, 0, String::new());
    for file in shared::read(&folder) {
        let mut manifests = services.clone();
        for (number, case) in file.cases.iter().enumerate() {
            manifests.push((format!("case-{number}.yaml"), case.manifest.clone()));
        }
        let manifests: Vec<_> = manifests
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        let world = World::start_with(Authority::new(), &manifests, |settings| {
            settings.serve.engine = engine;
        })
        .await;
        let problems = world.problems().await;
        for case in &file.cases {
            cases += 1;
            requests += case.requests.len();
            let found = shared::failures(case, world.app.http_addresses()[0], &problems).await;
            if !found.is_empty() {
                let name = file.path.display();
                writeln!(failures, "{name}: {}\n{found}", case.name).unwrap();
            }
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
    eprintln!("{cases} cases with {requests} requests");
}
