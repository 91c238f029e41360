//! The control plane at size: many objects through translation and compilation, in memory, and single changes
//! afterwards. No sockets, no Kubernetes.

pub(crate) mod objects;
mod process;

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use http::{HeaderMap, Method};
use model::{EndpointSet, ListenerName};
use serde::Serialize;
use serde_json::Value;
use table::{CompiledAction, CompiledRoute, Lookup, Table, TableReader, TableWriter};
use translate::{Change, Settings, Translator};

use crate::process::resident;
pub use objects::{Objects, Size};
pub use process::{ProcessReport, run_process};

/// Objects that are taken in at once.
const PAGE: usize = 500;

/// What came out.
#[derive(Debug, Serialize)]
pub struct Report {
    /// How many Ingresses.
    pub ingresses: usize,
    /// How many endpoints.
    pub endpoints: usize,
    /// How many certificates.
    pub certificates: usize,
    /// Reading the objects, which is not part of the other times.
    pub read_seconds: f64,
    /// All objects to a model.
    pub translate_ms: f64,
    /// The model to a table.
    pub compile_ms: f64,
    /// Resident memory of objects and model, in MiB.
    pub resident_translated_mib: u64,
    /// Resident memory of objects, model and table, in MiB.
    pub resident_mib: u64,
    /// The same after all changes.
    pub resident_after_mib: u64,
    /// One endpoint is replaced by another one.
    pub endpoint: Series,
    /// One path of one Ingress changes.
    pub ingress: Series,
    /// One certificate is replaced by another one.
    pub certificate: Series,
}

/// Times from the changed object to the published table.
#[derive(Debug, Serialize)]
pub struct Series {
    /// How many.
    pub count: usize,
    /// Half of them were faster, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 were faster, in milliseconds.
    pub p99_ms: f64,
    /// The slowest, in milliseconds.
    pub max_ms: f64,
}

impl Series {
    fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |per_cent: usize| {
            let index = (times.len() * per_cent).div_ceil(100).saturating_sub(1);
            milliseconds(times.get(index).copied().unwrap_or_default())
        };
        Self {
            count: times.len(),
            p50_ms: at(50),
            p99_ms: at(99),
            max_ms: at(100),
        }
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {:.3} ms, p99 {:.3} ms, max {:.3} ms ({} times)",
            self.p50_ms, self.p99_ms, self.max_ms, self.count
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} Ingresses, {} endpoints, {} certificates",
            self.ingresses, self.endpoints, self.certificates
        )?;
        writeln!(
            f,
            "  from nothing       {:.0} ms to translate, {:.0} ms to compile",
            self.translate_ms, self.compile_ms
        )?;
        writeln!(f, "  one endpoint       {}", self.endpoint)?;
        writeln!(f, "  one Ingress        {}", self.ingress)?;
        writeln!(f, "  one certificate    {}", self.certificate)?;
        write!(
            f,
            "  resident memory    {} MiB with objects and model, {} MiB with the table, {} MiB after the changes",
            self.resident_translated_mib, self.resident_mib, self.resident_after_mib
        )
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Measures with this many objects, and this many changes of each kind.
pub fn run(size: Size, changes: usize) -> Result<Report> {
    ensure!(
        size.endpoints >= size.ingresses && size.certificates > 0,
        "at least one endpoint for each Ingress, and one certificate, are needed"
    );
    let objects = Objects::new(size)?;
    let mut translator = Translator::new(Settings::default());
    let mut intake = Intake::default();
    // As from an API server: Secrets come when it is known which ones are wanted.
    intake.take(&mut translator, objects.all_but_secrets())?;
    intake.take(&mut translator, objects.secrets())?;
    let resident_translated = resident(std::process::id())? >> 20;
    let begun = Instant::now();
    let compiled = table::compile(translator.model());
    let compiling = begun.elapsed();
    ensure!(
        compiled.rejects.is_empty(),
        "the table rejects entries, the first: {}",
        compiled.rejects.first().context("there is one")?
    );
    let model = translator.model();
    ensure!(
        model.hosts.len() == size.ingresses && model.certificates.len() >= size.certificates,
        "the model has {} hosts and {} certificates",
        model.hosts.len(),
        model.certificates.len()
    );
    let (writer, reader) = table::channel(compiled.table);
    let resident_mib = resident(std::process::id())? >> 20;

    let mut bench = Bench {
        size,
        objects,
        translator,
        writer,
        reader,
    };
    let endpoint = bench.endpoints(changes)?;
    let ingress = bench.ingresses(changes)?;
    let certificate = bench.certificates(changes)?;
    Ok(Report {
        ingresses: size.ingresses,
        endpoints: size.endpoints,
        certificates: size.certificates,
        read_seconds: intake.read.as_secs_f64(),
        translate_ms: milliseconds(intake.translated),
        compile_ms: milliseconds(compiling),
        resident_translated_mib: resident_translated,
        resident_mib,
        resident_after_mib: resident(std::process::id())? >> 20,
        endpoint,
        ingress,
        certificate,
    })
}

/// How long it has taken to make objects, and to translate them.
#[derive(Default)]
struct Intake {
    read: Duration,
    translated: Duration,
}

impl Intake {
    /// In pages, as a source delivers them, so that memory is that of what is kept.
    fn take(
        &mut self,
        translator: &mut Translator,
        mut values: impl Iterator<Item = Result<Value>>,
    ) -> Result<()> {
        loop {
            let begun = Instant::now();
            let page = values
                .by_ref()
                .take(PAGE)
                .map(|value| Ok(Change::Apply(objects::typed(value?)?)))
                .collect::<Result<Vec<_>>>()?;
            self.read += begun.elapsed();
            let begun = Instant::now();
            if page.is_empty() {
                translator.settle();
                self.translated += begun.elapsed();
                return Ok(());
            }
            translator.take(page);
            self.translated += begun.elapsed();
        }
    }
}

struct Bench {
    size: Size,
    objects: Objects,
    translator: Translator,
    writer: TableWriter,
    reader: TableReader,
}

impl Bench {
    /// From the changed object to the published table, the old one's end included.
    fn apply(&mut self, object: Value) -> Result<Duration> {
        let change = Change::Apply(objects::typed(object)?);
        let begun = Instant::now();
        let outcome = self.translator.apply([change]);
        let compiled = table::recompile(
            &self.writer.current(),
            self.translator.model(),
            &outcome.changes,
        );
        self.writer.publish(compiled.table);
        Ok(begun.elapsed())
    }

    fn endpoints(&mut self, changes: usize) -> Result<Series> {
        let mut times = Vec::new();
        for step in 0..changes {
            let number = spread(step, self.size.ingresses);
            let revision = step % 250 + 1;
            times.push(self.apply(self.objects.slice(number, revision))?);
            let address = self.objects.last_address(number, revision);
            ensure!(
                has_endpoint(&self.reader.pin(), number, address.into()),
                "the endpoint {address} of {number} is not in the table"
            );
        }
        Ok(Series::new(times))
    }

    fn ingresses(&mut self, changes: usize) -> Result<Series> {
        let mut times = Vec::new();
        for step in 0..changes {
            let number = spread(step, self.size.ingresses);
            let revision = step + 1;
            times.push(self.apply(self.objects.ingress(number, revision))?);
            let path = objects::path(revision);
            let table = self.reader.pin();
            let route = lookup(&table, number, &path).context("no route")?;
            ensure!(
                route.path.to_string() == format!("= {path}"),
                "{path} of {number} leads to {}",
                route.path
            );
        }
        Ok(Series::new(times))
    }

    fn certificates(&mut self, changes: usize) -> Result<Series> {
        let mut times = Vec::new();
        for step in 0..changes {
            let number = spread(step, self.size.certificates);
            let (secret, _) = self.objects.secret(number, step + 1)?;
            let host = objects::host(number);
            let before = self.reader.pin().tls(Some(&host)).cloned();
            times.push(self.apply(secret)?);
            let after = self.reader.pin().tls(Some(&host)).cloned();
            let (Some(before), Some(after)) = (before, after) else {
                anyhow::bail!("{host} has no TLS");
            };
            ensure!(
                !std::sync::Arc::ptr_eq(&before, &after),
                "{host} has the certificate that it had"
            );
        }
        Ok(Series::new(times))
    }
}

/// Numbers all over the range, in no order that helps.
fn spread(step: usize, count: usize) -> usize {
    step.wrapping_mul(7919) % count
}

fn lookup(table: &Table, number: usize, path: &str) -> Option<std::sync::Arc<CompiledRoute>> {
    let request = Lookup {
        listener: table.listener(&ListenerName::http())?,
        host: &objects::host(number),
        path,
        query: None,
        method: &Method::GET,
        headers: &HeaderMap::new(),
    };
    table.lookup(&request).cloned()
}

fn has_endpoint(table: &Table, number: usize, address: std::net::IpAddr) -> bool {
    let backend = lookup(table, number, "/").and_then(|route| match &route.action {
        CompiledAction::Forward(targets) => table.backend(targets.choose(0)?).cloned(),
        CompiledAction::Redirect(_) | CompiledAction::Respond { .. } => None,
    });
    backend.is_some_and(|backend| match &*backend.endpoints {
        EndpointSet::Addresses(endpoints) => endpoints
            .iter()
            .any(|endpoint| endpoint.address.ip() == address),
        EndpointSet::Dns { .. } | EndpointSet::Invalid(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_world_is_measured_and_checked_on_the_way() {
        let size = Size {
            ingresses: 20,
            endpoints: 60,
            certificates: 10,
        };
        let report = run(size, 30).unwrap();
        assert_eq!(report.endpoint.count, 30);
        assert!(report.endpoint.p50_ms <= report.endpoint.p99_ms);
        assert!(report.certificate.max_ms > 0.0);
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_times() {
        let times = (1..=200).rev().map(Duration::from_millis).collect();
        let series = Series::new(times);
        let found = (series.p50_ms, series.p99_ms, series.max_ms);
        assert_eq!(found, (100.0, 198.0, 200.0));
    }
}
