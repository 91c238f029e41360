//! Requests that flow while something else happens.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use rustls::pki_types::CertificateDer;
use tokio::task::JoinHandle;

use crate::client::{Client, Connection, Version};
use crate::cluster::note;
use crate::wait::eventually;

/// Leaves room on the machine for what is tested.
const PACE: Duration = Duration::from_millis(4);

/// Clients that go on asking until they are stopped: HTTP/1.1 and HTTP/2, on kept connections and on new ones.
pub struct Load {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    requests: AtomicU64,
    failures: Mutex<Vec<String>>,
    certificates: Mutex<Vec<CertificateDer<'static>>>,
}

/// What the clients saw.
#[derive(Debug)]
pub struct Tally {
    /// Answered requests, failed ones included.
    pub requests: u64,
    /// What went wrong, one line a request.
    pub failures: Vec<String>,
    /// The certificates that were shown, in the order of their first appearance.
    pub certificates: Vec<CertificateDer<'static>>,
}

impl Load {
    /// Starts clients for `targets`; every answer has to be 200 and to come from the origin named beside the URL, or from
    /// a pod of the Deployment with that name.
    pub fn start(client: &Client, targets: &[(&str, &str)]) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut workers = Vec::new();
        for &(url, origin) in targets {
            for version in [Version::Http1, Version::Http2] {
                for keep in [true, false] {
                    let worker = Worker {
                        client: client.clone().speaking(version)?,
                        url: url.to_owned(),
                        origin: origin.to_owned(),
                        keep,
                        shared: shared.clone(),
                    };
                    workers.push(tokio::spawn(worker.run()));
                }
            }
        }
        Ok(Self { shared, workers })
    }

    /// How many requests have been answered.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Waits until that many more requests have been answered.
    pub async fn proceed(&self, requests: u64) -> Result<()> {
        let goal = self.requests() + requests;
        eventually(
            &format!("{requests} more requests"),
            Duration::from_mins(1),
            async || {
                ensure!(self.requests() >= goal, "{} of {goal}", self.requests());
                Ok(())
            },
        )
        .await
    }

    /// Lets every client finish the request it has begun and counts.
    pub async fn stop(self) -> Result<Tally> {
        self.shared.stop.store(true, Ordering::SeqCst);
        for worker in self.workers {
            worker.await?;
        }
        Ok(Tally {
            requests: self.shared.requests.load(Ordering::SeqCst),
            failures: take(&self.shared.failures),
            certificates: take(&self.shared.certificates),
        })
    }
}

impl Tally {
    /// Fails unless every request was answered as it should be; notes how many there were.
    pub fn check(&self, while_what: &str) -> Result<()> {
        let (requests, failed) = (self.requests, self.failures.len());
        note(&format!(
            "{while_what}: {requests} requests, {failed} failed"
        ))?;
        ensure!(self.requests > 0, "no request was sent");
        if let Some(first) = self.failures.first() {
            bail!(
                "{} of {} requests failed, first: {first}",
                self.failures.len(),
                self.requests
            );
        }
        Ok(())
    }
}

struct Worker {
    client: Client,
    url: String,
    origin: String,
    keep: bool,
    shared: Arc<Shared>,
}

impl Worker {
    async fn run(self) {
        let mut kept: Option<Connection> = None;
        while !self.shared.stop.load(Ordering::SeqCst) {
            let mut connection = None;
            // A kept connection that the gateway has closed in good order is no failure.
            if let Some(mut open) = kept.take()
                && open.is_open().await
            {
                connection = Some(open);
            }
            match self.request(connection).await {
                Ok(connection) if self.keep => kept = Some(connection),
                Ok(_) => {}
                Err(error) => {
                    push(&self.shared.failures, format!("{error:#}"));
                }
            }
            self.shared.requests.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(PACE).await;
        }
    }

    async fn request(&self, kept: Option<Connection>) -> Result<Connection> {
        let mut connection = if let Some(connection) = kept {
            connection
        } else {
            let connection = self.client.connect(&self.url).await?;
            if let Some(certificate) = connection.certificate() {
                let mut seen = self
                    .shared
                    .certificates
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                if !seen.contains(certificate) {
                    seen.push(certificate.clone());
                }
            }
            connection
        };
        let reply = connection.get(&self.url).await?;
        let pod = reply.pod().strip_prefix(self.origin.as_str());
        let named = reply.origin().split(' ').next() == Some(&self.origin)
            || pod.is_some_and(|rest| rest.starts_with('-'));
        ensure!(
            reply.status == 200 && named,
            "{}: {} {:?}",
            self.url,
            reply.status,
            reply.origin()
        );
        Ok(connection)
    }
}

fn push<T>(list: &Mutex<Vec<T>>, item: T) {
    list.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(item);
}

fn take<T>(list: &Mutex<Vec<T>>) -> Vec<T> {
    std::mem::take(&mut *list.lock().unwrap_or_else(PoisonError::into_inner))
}
