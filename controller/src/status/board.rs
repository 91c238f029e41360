//! What the cluster should be told, object by object, and what it has been told already.
//!
//! The reconcile loop writes what it found, the writer takes what is due. Every object is there at most once, however
//! often it changes: a newer finding replaces an older one that has not been written yet, and nothing else is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::jiff::Timestamp;
use model::ObjectRef;
use tokio::sync::Notify;
use tokio::time::Instant;
use translate::{NamespacedName, Packed, RevocationTerm};

use super::plan::{self, Address, Claim, Note, Publish, Published, Validity};
use crate::reconcile::{Pass, PassObserver};

/// Notes about an object that are remembered after they no longer hold.
const REMEMBERED: usize = 32;

/// A problem has to last this long before its owner hears of it: objects that belong together do not arrive together.
const SETTLED: Duration = Duration::from_secs(3);

/// Looks up how long the certificate of a Secret is valid.
pub(crate) type Validities = Arc<dyn Fn(&NamespacedName) -> Option<Validity> + Send + Sync>;

/// The board. Clones share it.
#[derive(Clone)]
pub(crate) struct Board {
    state: Arc<Mutex<State>>,
    news: Arc<Notify>,
    validities: Validities,
}

struct State {
    publish: Publish,
    published: Published,
    subjects: BTreeMap<ObjectRef, Box<Subject>>,
    /// What the last status held that was looked at; nearly all hold the same.
    common: Arc<BTreeSet<Address>>,
    /// Ingresses whose status may have to be written.
    status_due: BTreeSet<ObjectRef>,
    /// Objects about which there may be something to say, by the time from which on to look.
    notes_due: BTreeSet<(Instant, ObjectRef)>,
}

/// What is known of an object.
#[derive(Default)]
struct Subject {
    uid: Option<String>,
    version: Option<String>,
    claim: Claim,
    /// The addresses that its status holds; `None` for something that Lockgate does not write.
    current: Option<Arc<BTreeSet<Address>>>,
    /// What is wrong with it, and since when.
    notes: BTreeMap<Note, Instant>,
    /// Its entry in [`State::notes_due`].
    look: Option<Instant>,
    /// The Secrets that it names.
    secrets: Box<[NamespacedName]>,
    /// The time of the revocation lists for its clients.
    revocation: Option<RevocationTerm>,
    told: BTreeMap<Note, Told>,
    /// Is a status write under way?
    writing: bool,
    /// Writes that failed since the last one that did not.
    status_failures: u32,
    note_failures: u32,
}

#[derive(Default)]
struct Told {
    /// Does the note hold, and has it been told since it began to?
    present: bool,
    times: i32,
}

/// A status that has to be written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct StatusWork {
    pub(crate) object: ObjectRef,
    pub(crate) uid: Option<String>,
    pub(crate) version: String,
    pub(crate) claim: Claim,
    pub(crate) published: Published,
    pub(crate) addresses: BTreeSet<Address>,
}

/// An Event that has to be sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct NoteWork {
    pub(crate) object: ObjectRef,
    pub(crate) uid: Option<String>,
    pub(crate) note: Note,
    /// How often it has been sent before.
    pub(crate) times: i32,
}

impl Board {
    pub(crate) fn new(publish: Publish, validities: Validities) -> Self {
        let published = Published {
            now: plan::addresses(&publish, None),
            ever: BTreeSet::new(),
        };
        let mut state = State {
            publish,
            published: Published::default(),
            subjects: BTreeMap::new(),
            common: Arc::default(),
            status_due: BTreeSet::new(),
            notes_due: BTreeSet::new(),
        };
        state.publish(published.now);
        Self {
            state: Arc::new(Mutex::new(state)),
            news: Arc::default(),
            validities,
        }
    }

    /// Resolves when something has been added since the last call.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// A new leader knows nothing of what the one before has done: everything is due.
    pub(super) fn start_over(&self) {
        let mut state = self.state();
        for subject in state.subjects.values_mut() {
            subject.writing = false;
            for told in subject.told.values_mut() {
                told.present = false;
            }
        }
        let all: BTreeSet<ObjectRef> = state.subjects.keys().cloned().collect();
        let now = Instant::now();
        for object in &all {
            state.look_at(object, now);
        }
        state.status_due = all;
        drop(state);
        self.news.notify_one();
    }

    /// Time has passed: certificates may have expired.
    pub(super) fn check_certificates(&self) {
        let mut state = self.state();
        let with_secrets: Vec<_> = state
            .subjects
            .iter()
            .filter(|(_, subject)| !subject.secrets.is_empty() || subject.revocation.is_some())
            .map(|(object, _)| object.clone())
            .collect();
        let now = Instant::now();
        for object in &with_secrets {
            state.look_at(object, now);
        }
    }

    /// The next status to write.
    pub(super) fn next_status(&self) -> Option<StatusWork> {
        let mut state = self.state();
        let State {
            published,
            subjects,
            status_due,
            ..
        } = &mut *state;
        let mut busy = Vec::new();
        let mut found = None;
        while let Some(object) = status_due.pop_first() {
            let Some(subject) = subjects.get_mut(&object) else {
                continue;
            };
            if subject.writing {
                busy.push(object);
                continue;
            }
            let addresses = plan::status(subject.claim, subject.current.as_deref(), published);
            if let (Some(addresses), Some(version)) = (addresses, subject.version.clone()) {
                subject.writing = true;
                found = Some(StatusWork {
                    object,
                    uid: subject.uid.clone(),
                    version,
                    claim: subject.claim,
                    published: published.clone(),
                    addresses,
                });
                break;
            }
        }
        status_due.extend(busy);
        found
    }

    /// A status write has ended. `seen` is what the Ingress looks like now, if that is known. Returns how many writes
    /// about this object failed before.
    pub(super) fn status_done(&self, object: &ObjectRef, seen: Option<&Ingress>, ok: bool) -> u32 {
        let mut failures = 0;
        let mut guard = self.state();
        let state = &mut *guard;
        if let Some(subject) = state.subjects.get_mut(object) {
            subject.writing = false;
            if let Some(ingress) = seen {
                subject.see(ingress, &mut state.common);
            }
            failures = count(&mut subject.status_failures, ok);
        }
        drop(guard);
        // The same object may have become due meanwhile.
        self.news.notify_one();
        failures
    }

    /// A status has to be tried again.
    pub(super) fn status_again(&self, object: ObjectRef) {
        self.state().status_due.insert(object);
        self.news.notify_one();
    }

    /// The next Event to send, or else when to ask again.
    pub(super) fn next_note(&self, now: Timestamp) -> Result<NoteWork, Option<Instant>> {
        let at = Instant::now();
        let mut state = self.state();
        loop {
            let (due, object) = state.notes_due.first().ok_or(None)?.clone();
            if due > at {
                return Err(Some(due));
            }
            state.notes_due.pop_first();
            let Some(subject) = state.subjects.get_mut(&object) else {
                continue;
            };
            subject.look = None;
            let expiring = subject.secrets.iter().filter_map(|secret| {
                let validity = (self.validities)(secret)?;
                plan::expiry(secret, validity, now)
            });
            let lists = subject.revocation.iter();
            let expiring = expiring.chain(lists.filter_map(|term| plan::revocation(term, now)));
            let mut holding = subject.notes.clone();
            holding.extend(expiring.map(|note| (note, at - SETTLED)));
            let Some((note, since)) = subject.untold(&holding) else {
                continue;
            };
            if since + SETTLED > at {
                state.look_at(&object, since + SETTLED);
                continue;
            }
            let (uid, times) = (subject.uid.clone(), subject.tell(&note));
            // There may be more to say.
            state.look_at(&object, at);
            return Ok(NoteWork {
                object,
                uid,
                note,
                times,
            });
        }
    }

    /// An attempt to send an Event has ended. Returns how many writes about this object failed before.
    pub(super) fn note_done(&self, work: &NoteWork, ok: bool) -> u32 {
        let mut state = self.state();
        let Some(subject) = state.subjects.get_mut(&work.object) else {
            return 0;
        };
        if let Some(told) = subject.told.get_mut(&work.note) {
            told.times = told.times.saturating_add(i32::from(ok));
        }
        count(&mut subject.note_failures, ok)
    }

    /// An Event has to be tried again.
    pub(super) fn note_again(&self, work: &NoteWork) {
        let mut state = self.state();
        if let Some(subject) = state.subjects.get_mut(&work.object)
            && let Some(told) = subject.told.get_mut(&work.note)
        {
            told.present = false;
        }
        state.look_at(&work.object, Instant::now());
        drop(state);
        self.news.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every method leaves a state that the next one can go on with.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes the addresses that are valid from now on. True if they differ from those before.
    fn publish(&mut self, now: Option<BTreeSet<Address>>) -> bool {
        if self.published.now == now {
            return false;
        }
        self.published.ever.extend(now.iter().flatten().cloned());
        self.published.now = now;
        true
    }

    /// Looks for something to say about an object from this time on, unless that is planned for earlier already.
    fn look_at(&mut self, object: &ObjectRef, from: Instant) {
        let Some(subject) = self.subjects.get_mut(object) else {
            return;
        };
        match subject.look {
            Some(planned) if planned <= from => return,
            Some(planned) => {
                self.notes_due.remove(&(planned, object.clone()));
            }
            None => {}
        }
        subject.look = Some(from);
        self.notes_due.insert((from, object.clone()));
    }

    fn observe_ingress(&mut self, object: &ObjectRef, pass: &Pass<'_>) {
        let name = NamespacedName::new(&object.namespace, &object.name);
        let ingress = pass.snapshot.ingresses().get(&name);
        let Some(ingress) = ingress.and_then(Packed::unpack) else {
            if let Some(subject) = self.subjects.remove(object)
                && let Some(look) = subject.look
            {
                self.notes_due.remove(&(look, object.clone()));
            }
            return;
        };
        let claimed = pass.report.claims(object);
        let notes = plan::notes(object, pass.report.problems_of(object), pass.rejects);
        if !claimed && notes.is_empty() && !self.subjects.contains_key(object) {
            return;
        }
        let subject = self.subjects.entry(object.clone()).or_default();
        subject.see(&ingress, &mut self.common);
        subject.claim = match (claimed, subject.claim) {
            (true, _) => Claim::Ours,
            (false, Claim::Ours | Claim::Released) => Claim::Released,
            (false, Claim::Foreign) => Claim::Foreign,
        };
        subject.take_notes(notes);
        subject.secrets = Box::default();
        subject.revocation = None;
        if claimed {
            subject.revocation = pass.report.revocation(object).cloned();
            let tls = ingress.spec.iter().flat_map(|spec| &spec.tls).flatten();
            subject.secrets = tls
                .filter_map(|tls| tls.secret_name.as_deref())
                .filter(|secret| !secret.is_empty())
                .map(|secret| NamespacedName::new(&object.namespace, secret))
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect();
        }
        self.status_due.insert(object.clone());
        self.look_at(object, Instant::now());
    }

    fn observe_other(&mut self, object: &ObjectRef, pass: &Pass<'_>) {
        let notes = plan::notes(object, pass.report.problems_of(object), pass.rejects);
        if notes.is_empty() && !self.subjects.contains_key(object) {
            return;
        }
        let subject = self.subjects.entry(object.clone()).or_default();
        subject.uid = uid_of(object, pass);
        subject.take_notes(notes);
        self.look_at(object, Instant::now());
    }
}

impl Subject {
    fn take_notes(&mut self, notes: BTreeSet<Note>) {
        let now = Instant::now();
        let before = std::mem::take(&mut self.notes);
        let since = |note: &Note| before.get(note).copied().unwrap_or(now);
        self.notes = notes
            .into_iter()
            .map(|note| (since(&note), note))
            .map(|(at, note)| (note, at))
            .collect();
    }

    /// Of what holds now and has not been told: what has held for the longest time.
    fn untold(&mut self, holding: &BTreeMap<Note, Instant>) -> Option<(Note, Instant)> {
        for (note, told) in &mut self.told {
            told.present &= holding.contains_key(note);
        }
        holding
            .iter()
            .filter(|(note, _)| self.told.get(note).is_none_or(|told| !told.present))
            .min_by_key(|(_, since)| **since)
            .map(|(note, since)| (note.clone(), *since))
    }

    /// Takes a note for told. Returns how often it was told before.
    fn tell(&mut self, note: &Note) -> i32 {
        if self.told.len() >= REMEMBERED {
            self.told.retain(|_, told| told.present);
        }
        let told = self.told.entry(note.clone()).or_default();
        told.present = true;
        told.times
    }

    /// Takes the state of an Ingress, unless a newer one is known from a write of our own.
    fn see(&mut self, ingress: &Ingress, common: &mut Arc<BTreeSet<Address>>) {
        let number = |version: &Option<String>| version.as_ref()?.parse::<u64>().ok();
        let version = ingress.metadata.resource_version.clone();
        let same = self.uid == ingress.metadata.uid;
        if same && number(&version) < number(&self.version) {
            return;
        }
        if !same {
            // An object of the same name made anew: nothing that was said about the old one counts.
            self.told.clear();
            self.claim = Claim::Foreign;
        }
        self.uid.clone_from(&ingress.metadata.uid);
        self.version = version;
        self.current = plan::current(ingress).map(|current| {
            if **common != current {
                *common = Arc::new(current);
            }
            Arc::clone(common)
        });
    }
}

/// Counts the end of a write; returns how many failed before it.
fn count(failures: &mut u32, ok: bool) -> u32 {
    let before = *failures;
    *failures = if ok { 0 } else { before.saturating_add(1) };
    before
}

fn uid_of(object: &ObjectRef, pass: &Pass<'_>) -> Option<String> {
    let name = NamespacedName::new(&object.namespace, &object.name);
    let snapshot = pass.snapshot;
    let metadata = match &*object.kind {
        "IngressClass" => &snapshot.classes().get(&*object.name)?.metadata,
        "Service" => return snapshot.services().get(&name)?.metadata()?.uid,
        "EndpointSlice" => return snapshot.endpoint_slices().get(&name)?.metadata()?.uid,
        "ConfigMap" => {
            let with_ports = snapshot.port_configmap(&name);
            &with_ports.or_else(|| snapshot.configmap())?.metadata
        }
        "RoutePolicy" => &snapshot.policies().get(&name)?.metadata,
        "GatewayPolicy" => &snapshot.gateway_policies().get(&*object.name)?.metadata,
        _ => return None,
    };
    metadata.uid.clone()
}

impl PassObserver for Board {
    fn observe(&mut self, pass: &Pass<'_>) {
        let mut state = self.state();
        if let Publish::Service(name) = &state.publish {
            let service = pass.snapshot.services().get(name);
            let service = service.and_then(Packed::unpack);
            let now = plan::addresses(&state.publish, service.as_ref());
            if state.publish(now) {
                state.status_due = state.subjects.keys().cloned().collect();
            }
        }
        for object in pass.touched {
            if &*object.kind == translate::kinds::INGRESS {
                state.observe_ingress(object, pass);
            } else {
                state.observe_other(object, pass);
            }
        }
        drop(state);
        self.news.notify_one();
    }
}
