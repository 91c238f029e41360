//! The clock of the machine is put forward or back while the process runs.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::client::{self, PATIENCE};
use crate::clients::{SHOP, asking, authorities};
use crate::manifest::{Authority, secret, service};
use crate::origin::Origin;
use crate::process::Process;
use crate::world::put;

/// What gives one process another time than the others.
fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?;
    let mut files = folders
        .flatten()
        .map(|folder| folder.path().join("faketime/libfaketime.so.1"));
    files.find(|file| file.exists())
}

#[tokio::test]
async fn certificates_of_clients_count_by_the_clock_as_it_is_now() {
    let Some(library) = library() else {
        eprintln!("skipped: there is no libfaketime");
        return;
    };
    let origin = Origin::start("web").await;
    let (servers, clients) = (Authority::new(), Authority::new());
    let folder = TempDir::new().unwrap();
    for (name, text) in [
        ("shop.yaml", asking("")),
        ("web.yaml", service("web", &[origin.port])),
        ("tls.yaml", secret("shop-tls", &servers.sign(SHOP))),
        ("clients.yaml", authorities(&clients.pem(), None)),
    ] {
        put(folder.path(), name, &text);
    }
    let state = TempDir::new().unwrap();
    let clock = state.path().join("clock");
    // Read at any time: the old text or the new one has to be there.
    let set = |time: &str| {
        let new = state.path().join("new");
        std::fs::write(&new, time).unwrap();
        std::fs::rename(&new, &clock).unwrap();
    };
    set("+0d");
    let [on, no_cache] = ["1", "1"].map(PathBuf::from);
    let environment = [
        ("LD_PRELOAD", library.as_path()),
        ("FAKETIME_TIMESTAMP_FILE", clock.as_path()),
        ("FAKETIME_NO_CACHE", no_cache.as_path()),
        // A step of the clock leaves the monotonic one alone.
        ("DONT_FAKE_MONOTONIC", on.as_path()),
    ];
    let process = Process::start_in(folder.path(), &environment).await;
    let own = clients.sign_for_days("client", 30);
    let config = client::trusting_as(servers.roots(), &own);
    for (time, status, why) in [
        ("+0d", 200, "it is valid"),
        ("+400d", 400, "it has expired"),
        ("+0d", 200, "the clock is right again"),
        ("-400d", 400, "it is not valid yet"),
        ("+0d", 200, "the clock is right again"),
    ] {
        set(time);
        let asking = client::get_tls(process.https, &config, SHOP, "/x");
        let answer = tokio::time::timeout(PATIENCE, asking).await.unwrap();
        assert_eq!(answer.unwrap().status, status, "{time}: {why}");
    }
}
