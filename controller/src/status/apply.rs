//! Writes statuses and Events: by the leader only, few at a time, each with a time limit, counted by outcome.
//!
//! A write that fails is tried again until it succeeds, its object changes or its object is gone. Trouble of the whole
//! server pauses everything; trouble of one object delays that object alone.

use std::time::Duration;

use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::FuturesUnordered;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::Status;
use model::ObjectRef;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use super::board::{Board, NoteWork, StatusWork};
use super::event::{self, Reporter};
use super::plan;
use crate::backoff::Backoff;
use crate::telemetry;
use crate::watch::failure::{Cause, Failure, Journal, describe};

/// Writes under way at the same time.
const PARALLEL: usize = 8;

/// Attempts against an Ingress that somebody else keeps changing, before others get their turn.
const ATTEMPTS: usize = 4;

/// Whose writes these are, in `metadata.managedFields`.
const FIELD_MANAGER: &str = "lockgate";

/// How fast it writes.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    /// Time limit of a request.
    pub(crate) limit: Duration,
    /// Pauses after trouble of the server.
    pub(crate) backoff: Backoff,
    /// Delay before an object that was refused is tried again, doubled each time.
    pub(crate) refused: Duration,
    /// The longest such delay.
    pub(crate) refused_limit: Duration,
    /// Time between two Events, so that ten thousand faulty objects do not flood the server.
    pub(crate) between_events: Duration,
    /// Time between two looks at the certificates.
    pub(crate) certificates: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            limit: Duration::from_secs(15),
            backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(30)),
            refused: Duration::from_secs(5),
            refused_limit: Duration::from_mins(10),
            between_events: Duration::from_millis(20),
            certificates: Duration::from_hours(1),
        }
    }
}

/// Writes what is due on `board` whenever this process leads. Ends when the election does.
pub(crate) async fn run(
    client: Client,
    board: Board,
    mut leading: watch::Receiver<bool>,
    reporter: Reporter,
    pace: Pace,
) {
    while leading.wait_for(|leads| *leads).await.is_ok() {
        board.start_over();
        let writer = Writer {
            client: &client,
            board: &board,
            reporter: &reporter,
            pace: &pace,
            backoff: pace.backoff.clone(),
            paused: None,
            journal: Journal::new("Writing", "Ingress", ""),
            next_event: Instant::now(),
            running: FuturesUnordered::new(),
        };
        let lost = tokio::select! {
            // Who no longer leads stops in the middle of a request.
            biased;
            lost = leading.wait_for(|leads| !*leads) => lost.is_ok(),
            () = writer.write() => true,
        };
        if !lost {
            return;
        }
    }
}

struct Writer<'a> {
    client: &'a Client,
    board: &'a Board,
    reporter: &'a Reporter,
    pace: &'a Pace,
    backoff: Backoff,
    paused: Option<Instant>,
    journal: Journal,
    next_event: Instant,
    running: FuturesUnordered<BoxFuture<'a, Done>>,
}

/// How a write ended.
#[derive(Debug)]
enum Outcome {
    /// It is as it should be.
    Ok,
    /// Somebody else changes the object all the time.
    Conflict,
    /// The object is gone.
    Gone,
    /// It failed.
    Failed(Failure),
}

impl Outcome {
    fn is_ok(&self) -> bool {
        matches!(self, Self::Ok)
    }

    fn label(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Conflict => "conflict",
            Self::Gone => "gone",
            Self::Failed(failure) => failure.cause.label(),
        }
    }
}

/// Something that has ended.
enum Done {
    Status(StatusWork, Option<Box<Ingress>>, Outcome),
    Note(NoteWork, Outcome),
}

impl Writer<'_> {
    async fn write(mut self) {
        let mut retries = FuturesUnordered::new();
        let mut certificates = interval(self.pace.certificates);
        certificates.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let wake = self.start();
            tokio::select! {
                Some(done) = self.running.next() => {
                    if let Some((done, delay)) = self.take(done) {
                        retries.push(async move {
                            sleep(delay).await;
                            done
                        });
                    }
                }
                Some(done) = retries.next() => match done {
                    Retry::Status(object) => self.board.status_again(object),
                    Retry::Note(work) => self.board.note_again(&work),
                },
                () = self.board.news() => {}
                () = at(wake) => {}
                _ = certificates.tick() => self.board.check_certificates(),
            }
        }
    }

    /// Starts what may be started. Returns when to look again although nothing has happened.
    fn start(&mut self) -> Option<Instant> {
        let now = Instant::now();
        if let Some(until) = self.paused {
            if now < until {
                return Some(until);
            }
            self.paused = None;
        }
        while self.running.len() < PARALLEL {
            if let Some(work) = self.board.next_status() {
                let write = write_status(self.client.clone(), self.pace.limit, work);
                self.running.push(write.boxed());
                continue;
            }
            if now < self.next_event {
                return Some(self.next_event);
            }
            let work = match self.board.next_note(Timestamp::now()) {
                Ok(work) => work,
                Err(later) => return later,
            };
            self.next_event = now + self.pace.between_events;
            let reporter = self.reporter.clone();
            let write = write_note(self.client.clone(), self.pace.limit, reporter, work);
            self.running.push(write.boxed());
        }
        None
    }

    /// Takes the end of a write. Returns what has to be tried again, and after which delay.
    fn take(&mut self, done: Done) -> Option<(Retry, Duration)> {
        match done {
            Done::Status(work, seen, outcome) => {
                metrics::counter!(telemetry::STATUS_WRITES, "outcome" => outcome.label())
                    .increment(1);
                let failures =
                    self.board
                        .status_done(&work.object, seen.as_deref(), outcome.is_ok());
                let delay = self.delay(outcome, &work.object, failures)?;
                Some((Retry::Status(work.object), delay))
            }
            Done::Note(work, outcome) => {
                metrics::counter!(telemetry::EVENTS, "outcome" => outcome.label()).increment(1);
                let failures = self.board.note_done(&work, outcome.is_ok());
                let delay = self.delay(outcome, &work.object, failures)?;
                Some((Retry::Note(work), delay))
            }
        }
    }

    /// When to try again; `None` if there is no need to.
    fn delay(&mut self, outcome: Outcome, object: &ObjectRef, failures: u32) -> Option<Duration> {
        let failure = match outcome {
            Outcome::Ok => {
                self.journal.recovered();
                self.backoff.reset();
                return None;
            }
            Outcome::Gone => return None,
            Outcome::Conflict => return Some(self.pace.refused),
            Outcome::Failed(failure) => failure,
        };
        let now = Instant::now();
        self.journal.failed(&failure.about(object), now);
        match failure.cause {
            Cause::Forbidden | Cause::Refused => {
                let factor = 1_u32.checked_shl(failures.min(16)).unwrap_or(u32::MAX);
                let delay = self.pace.refused.saturating_mul(factor);
                Some(delay.min(self.pace.refused_limit))
            }
            Cause::Unauthorized
            | Cause::Gone
            | Cause::Busy
            | Cause::ServerError
            | Cause::Timeout
            | Cause::Connection
            | Cause::Closed
            | Cause::Unreadable => {
                // Several writes fail at once when the server does; that is one reason to pause, not eight.
                if self.paused.is_none_or(|until| until <= now) {
                    self.paused = Some(now + self.backoff.delay());
                }
                Some(Duration::ZERO)
            }
        }
    }
}

/// What has to be tried again.
enum Retry {
    Status(ObjectRef),
    Note(NoteWork),
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

async fn write_status(client: Client, limit: Duration, work: StatusWork) -> Done {
    let ingresses: Api<Ingress> = Api::namespaced(client, &work.object.namespace);
    let mut seen = None;
    let outcome = match timeout(limit, patch_status(&ingresses, &work, &mut seen)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Outcome::Failed(describe(&error)),
        Err(_elapsed) => Outcome::Failed(Failure::timeout("a status was written")),
    };
    Done::Status(work, seen, outcome)
}

async fn patch_status(
    ingresses: &Api<Ingress>,
    work: &StatusWork,
    seen: &mut Option<Box<Ingress>>,
) -> kube::Result<Outcome> {
    let parameters = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let mut version = work.version.clone();
    let mut addresses = work.addresses.clone();
    for _ in 0..ATTEMPTS {
        let patch = Patch::Merge(plan::status_patch(&version, &addresses));
        match ingresses
            .patch_status(&work.object.name, &parameters, &patch)
            .await
        {
            Ok(ingress) => {
                *seen = Some(Box::new(ingress));
                return Ok(Outcome::Ok);
            }
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Outcome::Gone),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error),
        }
        // Somebody was faster: decide again on what is there now.
        let Some(ingress) = ingresses.get_opt(&work.object.name).await? else {
            return Ok(Outcome::Gone);
        };
        if ingress.metadata.uid != work.uid {
            return Ok(Outcome::Gone);
        }
        let wanted = plan::status(
            work.claim,
            plan::current(&ingress).as_ref(),
            &work.published,
        );
        version = ingress
            .metadata
            .resource_version
            .clone()
            .unwrap_or_default();
        *seen = Some(Box::new(ingress));
        match wanted {
            Some(wanted) => addresses = wanted,
            None => return Ok(Outcome::Ok),
        }
    }
    Ok(Outcome::Conflict)
}

async fn write_note(client: Client, limit: Duration, reporter: Reporter, work: NoteWork) -> Done {
    let events: Api<Event> = Api::namespaced(client, event::namespace(&work.object));
    let outcome = match timeout(limit, send_event(&events, &reporter, &work)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Outcome::Failed(describe(&error)),
        Err(_elapsed) => Outcome::Failed(Failure::timeout("an Event was sent")),
    };
    Done::Note(work, outcome)
}

async fn send_event(
    events: &Api<Event>,
    reporter: &Reporter,
    work: &NoteWork,
) -> kube::Result<Outcome> {
    let now = Timestamp::now();
    let event = event::event(reporter, &work.object, work.uid.as_deref(), &work.note, now);
    match events.create(&PostParams::default(), &event).await {
        Ok(_) => return Ok(Outcome::Ok),
        // Its namespace is gone or going, and the object with it.
        Err(kube::Error::Api(status)) if status.code == 404 || is_terminating(&status) => {
            return Ok(Outcome::Gone);
        }
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => return Err(error),
    }
    // The same was said within the hour for which Events are kept: say that it holds again.
    let name = event::name_of(&work.object, work.uid.as_deref(), &work.note);
    let patch = Patch::Merge(event::series_patch(work.times.saturating_add(1), now));
    match events.patch(&name, &PatchParams::default(), &patch).await {
        Ok(_) => Ok(Outcome::Ok),
        // It has just expired; the next attempt makes a new one.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Outcome::Conflict),
        Err(error) => Err(error),
    }
}

/// Whether nothing may be created any more because the namespace is being deleted. It is refused like something that is
/// not allowed, but nobody has to act.
fn is_terminating(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403
        && causes
            .into_iter()
            .any(|cause| cause.reason == "NamespaceTerminating")
}

#[cfg(test)]
mod tests;
