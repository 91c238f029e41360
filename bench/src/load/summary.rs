//! What came out of a run.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Histogram;

/// Where a request or a connection failed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The answer is not the one that was expected.
    Answer,
    /// The body of the answer ended early.
    Body,
    /// The server showed a certificate that it should not have.
    Certificate,
    /// The connection was refused or reset before anything was said.
    Connect,
    /// The load generator itself is at fault.
    Generator,
    /// The TLS handshake failed.
    Handshake,
    /// No answer, or none that is HTTP.
    Protocol,
    /// It took too long.
    Timeout,
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answer => "answer",
            Self::Body => "body",
            Self::Certificate => "certificate",
            Self::Connect => "connect",
            Self::Generator => "generator",
            Self::Handshake => "handshake",
            Self::Protocol => "protocol",
            Self::Timeout => "timeout",
        })
    }
}

/// One failure.
#[derive(Debug)]
pub struct Failure {
    /// Where.
    pub kind: FailureKind,
    /// In words.
    pub text: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: FailureKind, text: impl fmt::Display) -> Self {
        Self {
            kind,
            text: text.to_string(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.text)
    }
}

/// Gathers what happens while requests are sent.
#[derive(Debug)]
pub struct Collector {
    begun: Instant,
    answers: AtomicU64,
    bytes: AtomicU64,
    connections: AtomicU64,
    resumed: AtomicU64,
    closed_by_server: AtomicU64,
    latencies: Histogram,
    stretches: Option<Stretches>,
    failures: Mutex<Failures>,
}

/// Latencies of one short time after the other.
#[derive(Debug)]
struct Stretches {
    length: Duration,
    latencies: Mutex<Vec<Histogram>>,
}

impl Stretches {
    fn record(&self, at: Duration, latency: Duration) {
        let number = at.as_nanos() / self.length.as_nanos().max(1);
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let mut latencies = self
            .latencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Of what comes later there is nothing to be learned.
        if number < Self::MOST {
            let missing = (number + 1).saturating_sub(latencies.len());
            latencies.extend(std::iter::repeat_with(Histogram::default).take(missing));
            if let Some(stretch) = latencies.get(number) {
                stretch.record(latency);
            }
        }
    }

    const MOST: usize = 1000;
}

#[derive(Debug, Default)]
struct Failures {
    counts: BTreeMap<FailureKind, u64>,
    /// The first few, so that a run that failed can be understood.
    samples: Vec<String>,
}

impl Default for Collector {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            answers: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
            closed_by_server: AtomicU64::new(0),
            latencies: Histogram::default(),
            stretches: None,
            failures: Mutex::default(),
        }
    }
}

impl Collector {
    const SAMPLES: usize = 10;

    /// Gathers latencies of stretches of this length as well ([`Collector::p99_of_a_stretch`]).
    #[must_use]
    pub fn in_stretches(length: Duration) -> Self {
        Self {
            stretches: Some(Stretches {
                length,
                latencies: Mutex::default(),
            }),
            ..Self::default()
        }
    }

    pub(super) fn answered(&self, latency: Duration, length: u64) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(length, Ordering::Relaxed);
        self.latencies.record(latency);
        if let Some(stretches) = &self.stretches {
            stretches.record(self.begun.elapsed(), latency);
        }
    }

    /// What 99 of 100 answers did not exceed in half of the stretches. A moment in which the machine stood still makes one
    /// stretch worse, and not this. Stretches with few answers, at the beginning and at the end, do not count.
    pub fn p99_of_a_stretch(&self) -> Option<Duration> {
        let stretches = self.stretches.as_ref()?.latencies.lock();
        let stretches = stretches.unwrap_or_else(PoisonError::into_inner);
        let most = stretches.iter().map(Histogram::count).max()?;
        let full = stretches
            .iter()
            .filter(|stretch| stretch.count() * 2 > most);
        let mut tails: Vec<Duration> = full.map(|stretch| stretch.quantile(990)).collect();
        tails.sort_unstable();
        tails.get(tails.len() / 2).copied()
    }

    pub(super) fn connected(&self, resumed: bool) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.resumed.fetch_add(resumed.into(), Ordering::Relaxed);
    }

    pub(super) fn closed_by_server(&self) {
        self.closed_by_server.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a failure.
    pub fn failed(&self, failure: Failure) {
        let Failure { kind, text } = failure;
        let mut failures = self.lock();
        *failures.counts.entry(kind).or_default() += 1;
        if failures.samples.len() < Self::SAMPLES {
            let after = self.begun.elapsed().as_secs_f64();
            failures
                .samples
                .push(format!("after {after:.3} s: {kind}: {text}"));
        }
    }

    /// Answers so far.
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Failures so far.
    pub fn failures(&self) -> u64 {
        self.lock().counts.values().sum()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Failures> {
        // Counting cannot leave the counts half-changed.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has happened so far, in short.
    pub fn progress(&self) -> Progress {
        Progress {
            seconds: self.begun.elapsed().as_secs_f64(),
            answers: self.answers.load(Ordering::Relaxed),
            failed: self.failures(),
        }
    }

    /// The figures so far.
    pub fn figures(&self) -> Figures {
        let seconds = self.begun.elapsed().as_secs_f64();
        let answers = self.answers.load(Ordering::Relaxed);
        let failures = self.lock();
        let milliseconds = |per_mille| self.latencies.quantile(per_mille).as_secs_f64() * 1000.0;
        Figures {
            answers,
            failed: failures.counts.values().sum(),
            failures: failures.counts.clone(),
            samples: failures.samples.clone(),
            seconds,
            #[expect(
                clippy::cast_precision_loss,
                reason = "a rate is not exact to the last of 52 bits"
            )]
            per_second: answers as f64 / seconds.max(f64::EPSILON),
            body_bytes: self.bytes.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
            resumed: self.resumed.load(Ordering::Relaxed),
            closed_by_server: self.closed_by_server.load(Ordering::Relaxed),
            p50_ms: milliseconds(500),
            p90_ms: milliseconds(900),
            p99_ms: milliseconds(990),
            p999_ms: milliseconds(999),
            max_ms: milliseconds(1000),
        }
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Progress {
    /// How long it has been going on.
    pub seconds: f64,
    /// Answers read to their end.
    pub answers: u64,
    /// Failures of any kind.
    pub failed: u64,
}

/// The figures of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Answers read to their end.
    pub answers: u64,
    /// Failures of any kind, wrong answers included.
    pub failed: u64,
    /// The same by kind.
    pub failures: BTreeMap<FailureKind, u64>,
    /// The first failures in words.
    pub samples: Vec<String>,
    /// How long it took.
    pub seconds: f64,
    /// Answers per second.
    pub per_second: f64,
    /// Bytes of all bodies.
    pub body_bytes: u64,
    /// Connections opened.
    pub connections: u64,
    /// Those of them that resumed a TLS session.
    pub resumed: u64,
    /// Connections that the server closed between two requests, as it may.
    pub closed_by_server: u64,
    /// Median latency.
    pub p50_ms: f64,
    /// Nine of ten were faster.
    pub p90_ms: f64,
    /// 99 of 100 were faster.
    pub p99_ms: f64,
    /// 999 of 1000 were faster.
    pub p999_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} answers, {} failed, {:.1} s, {:.0}/s, {} connections, latency p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            self.answers,
            self.failed,
            self.seconds,
            self.per_second,
            self.connections,
            self.p50_ms,
            self.p99_ms,
            self.max_ms
        )?;
        for (kind, count) in &self.failures {
            write!(f, "\n  {count} x {kind}")?;
        }
        for sample in &self.samples {
            write!(f, "\n  {sample}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_stretch_does_not_decide() {
        let length = Duration::from_millis(250);
        let collector = Collector::in_stretches(length);
        assert_eq!(collector.p99_of_a_stretch(), None);
        let stretches = collector.stretches.as_ref().unwrap();
        let ms = Duration::from_millis;
        for stretch in 0..5 {
            for answer in 0..100 {
                let stalled = stretch == 2 && answer < 10;
                let latency = ms(if stalled { 50 } else { 1 });
                stretches.record(length * stretch + ms(1), latency);
            }
        }
        // The last answers came late, and there are few of them.
        stretches.record(length * 5, ms(90));
        stretches.record(length * 6, ms(90));
        let typical = collector.p99_of_a_stretch().unwrap();
        assert!((ms(1)..ms(2)).contains(&typical), "{typical:?}");
        assert!(Collector::default().p99_of_a_stretch().is_none());
    }
}
