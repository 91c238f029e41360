//! What a controller costs as its cluster grows: start, memory, the time until one change is served, and the CPU that many
//! changes take. Lockgate and Traefik take turns at one API server with the same objects.

mod controller;
mod histogram;
mod objects;
mod page;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::bulk::Api;
use crate::client::{Client, Connection, Reply};
use crate::cluster::Access;
use crate::lockgate::Installation;
use crate::origin::Origin;
use crate::pki::Authority;

use controller::{Controller, Kind};
use histogram::Histogram;
use objects::{INGRESSES, Objects, SECRETS, SLICES};
pub use page::Row;

/// Until a controller has taken up everything, or one change.
const PATIENCE: Duration = Duration::from_mins(5);
/// Between two looks at whether a change is served.
const PAUSE: Duration = Duration::from_millis(2);
/// Changes of one kind end after this, however few there were.
const ENOUGH: Duration = Duration::from_secs(30);
/// How long the CPU is watched while nothing happens.
const IDLE: Duration = Duration::from_secs(10);
/// Writers of endpoint changes at the same time.
const WRITERS: u32 = 10;

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many Ingresses there are in turn, growing.
    pub sizes: Vec<usize>,
    /// Changes of each kind.
    pub changes: usize,
    /// Endpoint changes per second.
    pub rate: u32,
    /// For how long.
    pub churn: Duration,
    /// The program `traefik`, which is left out without.
    pub traefik: Option<PathBuf>,
    /// The file that the page is written to.
    pub page: PathBuf,
    /// For the page, such as 2030-01-31.
    pub date: String,
}

/// Measures everything and returns the page.
pub async fn run(plan: &Plan) -> Result<String> {
    let access = Access::shared()?;
    let installation = Installation::read(&access).await?;
    let authority = Authority::new("growth")?;
    let origin = Origin::start("probe").await?;
    let scene = Scene {
        plan,
        api: Api::start(&access.kubectl).await?,
        objects: Objects {
            authority: &authority,
            origin: origin.address(),
        },
        access: &access,
        installation: &installation,
    };
    let (mut rows, mut notes) = (Vec::new(), Vec::new());
    let mut there = 0;
    for &size in &plan.sizes {
        let (namespaces, objects) = scene.objects.between(there, size)?;
        scene.api.create_at(namespaces).await?;
        scene.api.create_at(objects).await?;
        there = size;
        for kind in [Kind::Lockgate, Kind::Traefik] {
            match scene.measure(kind, size, rows.len() + notes.len()).await {
                Ok(Some(row)) => {
                    eprintln!("{}", row.line());
                    rows.push(row);
                }
                Ok(None) => continue,
                // What another controller cannot do is a result.
                Err(error) if kind == Kind::Traefik => {
                    let note = format!("{} with {size} Ingresses: {error:#}", kind.name());
                    eprintln!("{note}");
                    notes.push(note);
                }
                Err(error) => return Err(error),
            }
            // Written after each, so that an end before the last one loses nothing.
            std::fs::write(&plan.page, page::render(plan, &rows, &notes))?;
        }
    }
    Ok(page::render(plan, &rows, &notes))
}

struct Scene<'a> {
    plan: &'a Plan,
    api: Api,
    objects: Objects<'a>,
    access: &'a Access,
    installation: &'a Installation,
}

impl Scene<'_> {
    async fn measure(&self, kind: Kind, size: usize, round: usize) -> Result<Option<Row>> {
        let kubectl = &self.access.kubectl;
        let delete = [
            "delete",
            "ingressclass",
            objects::CLASS,
            "--ignore-not-found",
        ];
        kubectl.run(&delete).await?;
        kubectl.apply("default", &kind.class()).await?;
        let traefik = self.plan.traefik.as_deref();
        let started = Instant::now();
        let controller =
            Controller::start(kind, self.access, self.installation, traefik, round).await?;
        let Some(mut controller) = controller else {
            return Ok(None);
        };
        let asker = Asker::new(&controller, self.objects.authority)?;
        self.taken_up(&mut controller, &asker, size).await?;
        let ready = started.elapsed();
        let start = controller.usage()?;

        let before = controller.usage()?;
        sleep(IDLE).await;
        let idle = controller.usage()?.cpu - before.cpu;

        let ingress = self.change_ingresses(&asker, size, round).await?;
        let secret = self.change_secrets(&asker, size).await?;
        let config = match &controller {
            Controller::Lockgate(_) => self.change_configuration(&asker).await?,
            Controller::Traefik(_) => Vec::new(),
        };
        let endpoint = self.change_endpoints(&asker).await?;

        let published = Histogram::of(&controller).await?;
        let before = controller.usage()?;
        let (changes, took) = self.churn(size).await?;
        let after = controller.usage()?;
        let published = match (published, Histogram::of(&controller).await?) {
            (Some(before), Some(after)) => after.since(&before).quantile(0.99),
            _ => None,
        };
        controller.check_running()?;
        controller.stop().await?;
        Ok(Some(Row {
            controller: kind.name(),
            ingresses: size,
            ready,
            start_cpu: start.cpu,
            resident: start.resident,
            idle: idle / IDLE.as_secs_f64(),
            ingress,
            secret,
            config,
            endpoint,
            changes,
            rate: f64::from(changes) / took.as_secs_f64(),
            churn_cpu: after.cpu - before.cpu,
            churn_share: (after.cpu - before.cpu) / took.as_secs_f64(),
            published,
            resident_after: after.resident,
        }))
    }

    /// Waits until the Ingresses that were created last, and a spread of the others, are served with their certificates.
    async fn taken_up(
        &self,
        controller: &mut Controller,
        asker: &Asker,
        size: usize,
    ) -> Result<()> {
        let begun = Instant::now();
        let spread = (size / 50).max(1);
        let mut left: Vec<usize> = (0..size).rev().step_by(spread).collect();
        while let Some(&number) = left.last() {
            controller.check_running()?;
            ensure!(begun.elapsed() < PATIENCE, "app-{number} is not served");
            let url = objects::probe_url("http", number);
            let served = asker
                .once(&url)
                .await
                .is_ok_and(|reply| reply.status == 200);
            if served && (!objects::has_certificate(number) || asker.shows(number).await) {
                left.pop();
            } else {
                sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    /// Gives Ingresses another path, one after the other: the time from the patch until the path is served.
    async fn change_ingresses(
        &self,
        asker: &Asker,
        size: usize,
        round: usize,
    ) -> Result<Vec<Duration>> {
        let mut writer = self.api.connect().await?;
        let mut reader = asker.reader();
        let mut times = Vec::new();
        let begun = Instant::now();
        for step in 0..self.plan.changes {
            let number = step * (size / self.plan.changes).max(1) % size;
            let revision = (round + 1) * self.plan.changes + step;
            let object = INGRESSES.path(&objects::namespace(number), &objects::name(number));
            let host = objects::host(number);
            let rules =
                json!([{"host": host, "http": {"paths": objects::paths(number, revision)}}]);
            let url = format!("http://{host}{}", objects::revision_path(revision));
            // It leads to the Service that does not answer before.
            let sent = Instant::now();
            writer
                .patch(&object, &json!({"spec": {"rules": rules}}))
                .await?;
            reader.until(&url, |reply| reply.status == 200).await?;
            times.push(sent.elapsed());
            if begun.elapsed() > ENOUGH {
                break;
            }
        }
        Ok(times)
    }

    /// Moves the endpoint of one Service between two servers: the time until the other one answers.
    async fn change_endpoints(&self, asker: &Asker) -> Result<Vec<Duration>> {
        let other = Origin::start("other").await?;
        let mut writer = self.api.connect().await?;
        let mut reader = asker.reader();
        let object = SLICES.path(&objects::namespace(0), objects::PROBE);
        let url = objects::probe_url("http", 0);
        let mut times = Vec::new();
        let begun = Instant::now();
        // Ends where it has begun.
        for step in 1..=self.plan.changes.next_multiple_of(2) {
            let (address, name) = if step % 2 == 1 {
                (other.address(), "other")
            } else {
                (self.objects.origin, "probe")
            };
            let patch = json!({"endpoints": objects::endpoints(&[address])});
            let sent = Instant::now();
            writer.patch(&object, &patch).await?;
            reader
                .until(&url, |reply| reply.body.starts_with(name))
                .await?;
            times.push(sent.elapsed());
            if begun.elapsed() > ENOUGH && step % 2 == 0 {
                break;
            }
        }
        Ok(times)
    }

    /// Rotates certificates: the time until a handshake shows the new one.
    async fn change_secrets(&self, asker: &Asker, size: usize) -> Result<Vec<Duration>> {
        let mut writer = self.api.connect().await?;
        let mut times = Vec::new();
        let begun = Instant::now();
        for step in 0..self.plan.changes.min(size / 2) {
            let number = 2 * step;
            let before = asker.certificate(number).await?;
            let secret = self.objects.secret(number)?;
            let object = SECRETS.path(&objects::namespace(number), &objects::name(number));
            let patch = json!({"stringData": secret.get("stringData")});
            let sent = Instant::now();
            writer.patch(&object, &patch).await?;
            while asker.certificate(number).await? == before {
                ensure!(
                    sent.elapsed() < PATIENCE,
                    "app-{number} keeps its certificate"
                );
                sleep(PAUSE).await;
            }
            times.push(sent.elapsed());
            if begun.elapsed() > ENOUGH {
                break;
            }
        }
        Ok(times)
    }

    /// Changes a key of Lockgate's `ConfigMap` that every answer shows.
    async fn change_configuration(&self, asker: &Asker) -> Result<Vec<Duration>> {
        let mut writer = self.api.connect().await?;
        let mut reader = asker.reader();
        let namespace = &self.installation.namespace;
        let object = format!("/api/v1/namespaces/{namespace}/configmaps/lockgate");
        let url = objects::probe_url("http", 0);
        let mut times = Vec::new();
        for step in 0..self.plan.changes.min(10).next_multiple_of(2) {
            let shown = step % 2 == 0;
            let value = if shown { json!("true") } else { Value::Null };
            let sent = Instant::now();
            writer
                .patch(&object, &json!({"data": {"server-tokens": value}}))
                .await?;
            reader
                .until(&url, |reply| reply.header("server").is_empty() != shown)
                .await?;
            times.push(sent.elapsed());
        }
        Ok(times)
    }

    /// Changes endpoints of many Services at the rate of the plan; how many, and how long that took.
    async fn churn(&self, size: usize) -> Result<(u32, Duration)> {
        let begun = Instant::now();
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let mut connection = self.api.connect().await?;
            let length = self.plan.churn;
            let mut ticks = interval(Duration::from_secs(1) * WRITERS / self.plan.rate.max(1));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let spread = size / 100;
            writers.spawn(async move {
                let mut changes = 0_u32;
                while begun.elapsed() < length {
                    ticks.tick().await;
                    let step = (changes * WRITERS + writer) as usize;
                    let number = step * (spread + 1) % size;
                    let object = SLICES.path(&objects::namespace(number), &objects::name(number));
                    let addresses = objects::addresses(number, step / size % 200 + 1);
                    let patch = json!({"endpoints": objects::endpoints(&addresses)});
                    connection.patch(&object, &patch).await?;
                    changes += 1;
                }
                anyhow::Ok(changes)
            });
        }
        let mut changes = 0;
        while let Some(writer) = writers.join_next().await {
            changes += writer??;
        }
        Ok((changes, begun.elapsed()))
    }
}

/// Asks one controller.
struct Asker {
    client: Client,
}

impl Asker {
    fn new(controller: &Controller, authority: &Authority) -> Result<Self> {
        let client = Client::new(controller.address())?.trusting(authority.roots()?)?;
        Ok(Self { client })
    }

    async fn once(&self, url: &str) -> Result<Reply> {
        self.client.get(url).await
    }

    /// The certificate that a handshake for this Ingress shows.
    async fn certificate(&self, number: usize) -> Result<Vec<u8>> {
        let url = objects::probe_url("https", number);
        let connection = self.client.connect(&url).await?;
        let certificate = connection.certificate().context("no certificate")?;
        Ok(certificate.to_vec())
    }

    async fn shows(&self, number: usize) -> bool {
        self.certificate(number).await.is_ok()
    }

    fn reader(&self) -> Reader<'_> {
        Reader {
            client: &self.client,
            connection: None,
        }
    }
}

/// Asks again and again, on a connection that it keeps.
struct Reader<'a> {
    client: &'a Client,
    connection: Option<Connection>,
}

impl Reader<'_> {
    async fn until(&mut self, url: &str, wanted: impl Fn(&Reply) -> bool) -> Result<()> {
        let begun = Instant::now();
        loop {
            if self.ask(url).await.is_ok_and(|reply| wanted(&reply)) {
                return Ok(());
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "{url} does not change within five minutes"
            );
            sleep(PAUSE).await;
        }
    }

    async fn ask(&mut self, url: &str) -> Result<Reply> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.client.connect(url).await?,
        };
        let reply = connection.get(url).await?;
        if reply.header("connection") != "close" {
            self.connection = Some(connection);
        }
        Ok(reply)
    }
}
