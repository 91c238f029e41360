//! A whole process on a temporary folder.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use controller::app::{
    App, ClientLimits, Engine, Listen, MemoryMark, MetricsNames, Serve, Settings, Source,
};
use controller::{Phase, Progress};
use rustls::ClientConfig;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::client::{self, Answer, PATIENCE};
use crate::manifest::Authority;

/// A folder and the process that serves it.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) app: App,
    pub(crate) authority: Authority,
    trusting: Arc<ClientConfig>,
    progress: watch::Receiver<Progress>,
}

impl World {
    /// Starts on these files, and waits until they are served.
    pub(crate) async fn start(files: &[(&str, &str)]) -> Self {
        Self::start_with(Authority::new(), files, |_| {}).await
    }

    /// As [`World::start`], with certificates of this authority and other settings.
    pub(crate) async fn start_with(
        authority: Authority,
        files: &[(&str, &str)],
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        // Only the first test of the process installs it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = TempDir::new().unwrap();
        for (name, text) in files {
            put(folder.path(), name, text);
        }
        let mut settings = settings(folder.path());
        change(&mut settings);
        let app = App::start(settings).await.unwrap();
        let mut phase = app.phase();
        let serving = phase.wait_for(|phase| *phase == Phase::Serving);
        timeout(PATIENCE, serving)
            .await
            .expect("it serves in time")
            .unwrap();
        Self {
            folder,
            progress: app.progress(),
            app,
            trusting: client::trusting(authority.roots()),
            authority,
        }
    }

    /// Writes a file and waits until another table is served.
    pub(crate) async fn write(&mut self, name: &str, text: &str) {
        self.changed(|folder| put(folder, name, text)).await;
    }

    /// Does something to the folder and waits until another table is served.
    pub(crate) async fn changed(&mut self, change: impl FnOnce(&Path)) {
        let before = self.progress.borrow_and_update().generation;
        change(self.folder.path());
        self.wait(|progress| progress.generation > before).await;
    }

    /// Does something to the folder and waits until the loop has looked at the objects again.
    pub(crate) async fn looked_at(&mut self, change: impl FnOnce(&Path)) {
        let before = self.progress.borrow_and_update().passes;
        change(self.folder.path());
        self.wait(|progress| progress.passes > before).await;
    }

    /// Does something to the folder and waits until the faults of its files have been reported anew.
    pub(crate) async fn reported(&mut self, change: impl FnOnce(&Path)) {
        let before = self.progress.borrow_and_update().reports;
        change(self.folder.path());
        self.wait(|progress| progress.reports > before).await;
    }

    async fn wait(&mut self, condition: impl FnMut(&Progress) -> bool) {
        let reached = timeout(PATIENCE, self.progress.wait_for(condition)).await;
        reached.expect("the change is taken in in time").unwrap();
    }

    pub(crate) fn generation(&self) -> u64 {
        self.progress.borrow().generation
    }

    /// Gets a page over plain HTTP.
    pub(crate) async fn get(&self, host: &str, path: &str) -> Answer {
        client::get(self.app.http_addresses()[0], host, path)
            .await
            .unwrap()
    }

    /// Gets a page over TLS, trusting the authority of this world only.
    pub(crate) async fn get_tls(&self, host: &str, path: &str) -> anyhow::Result<Answer> {
        client::get_tls(self.app.https_addresses()[0], &self.trusting, host, path).await
    }

    /// Gets a page over TLS from whoever answers.
    pub(crate) async fn get_tls_from_anybody(&self, host: &str, path: &str) -> Answer {
        let address = self.app.https_addresses()[0];
        client::get_tls(address, &client::curious(), host, path)
            .await
            .unwrap()
    }

    /// Gets a page of the admin listener.
    pub(crate) async fn admin(&self, path: &str) -> Answer {
        client::get(self.app.admin_address(), "admin", path)
            .await
            .unwrap()
    }

    /// Gets a page of the admin listener until it shows something. A request is counted after its client has got the
    /// answer.
    pub(crate) async fn admin_until(
        &self,
        path: &str,
        what: &str,
        shows: impl Fn(&str) -> bool,
    ) -> Answer {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.admin(path).await;
            if shows(&answer.body) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{what} in:\n{}", answer.body);
            tokio::task::yield_now().await;
        }
    }

    /// The messages of all problems.
    pub(crate) async fn problems(&self) -> Vec<String> {
        let page = self.admin("/debug/routes").await;
        let page: serde_json::Value = serde_json::from_str(&page.body).unwrap();
        let problems = page["problems"].as_array().unwrap();
        let text =
            |problem: &serde_json::Value, key: &str| problem[key].as_str().unwrap().to_owned();
        problems
            .iter()
            .map(|problem| {
                format!(
                    "{}: {}",
                    text(problem, "concerns"),
                    text(problem, "message")
                )
            })
            .collect()
    }
}

/// Settings for loopback with free ports.
pub(crate) fn settings(folder: &Path) -> Settings {
    let free = "127.0.0.1:0".parse().unwrap();
    Settings {
        source: Source::Manifests(folder.to_owned()),
        translation: translate::Settings {
            adopt_default_class: true,
            allow_loopback_endpoints: true,
            configmap: Some("test/settings".parse().unwrap()),
            ..translate::Settings::default()
        },
        listen: Listen {
            http: vec![free],
            https: vec![free],
            admin: free,
            admission: None,
        },
        serve: Serve {
            workers: Some(1),
            max_connections: 1000,
            limits: ClientLimits::default(),
            memory: MemoryMark::Off,
            engine: Engine::Auto,
            max_series: 1000,
            access_log: None,
            metrics_names: MetricsNames::Lockgate,
        },
        takeover: None,
        shutdown_delay: Duration::ZERO,
        drain_timeout: Duration::from_secs(10),
    }
}

/// Writes a file below the folder.
pub(crate) fn put(folder: &Path, name: &str, text: &str) {
    let file = folder.join(name);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}
