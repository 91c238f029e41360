//! Which Secrets are kept: those that something refers to, and no other.
//!
//! The watch delivers every Secret of the right type; what nobody wants is dropped on arrival. When a Secret becomes
//! wanted it is read by name. Both ways can cross: of two versions the newer one wins.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher::Event;
use kube::{Api, Client};
use model::ObjectRef;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use translate::{Change, NamespacedName};

use super::failure::{Failure, Journal, describe};
use super::kinds::Kind;
use super::line::Pace;
use super::{EventSender, SourceEvent, Wanted};

/// Secrets that are read by name at the same time.
const PARALLEL: usize = 16;

/// Events of one of the watches of Secrets.
pub(super) struct Batch {
    /// Which watch.
    pub(super) watch: usize,
    pub(super) events: Vec<Event<Secret>>,
}

/// Forwards wanted Secrets until nobody listens any more. `listed` hears once of every watch that has listed.
pub(super) async fn keep(
    client: Client,
    mut wanted: watch::Receiver<Wanted>,
    mut batches: mpsc::Receiver<Batch>,
    events: EventSender,
    listed: mpsc::UnboundedSender<()>,
    pace: Pace,
) {
    let mut keeper = Keeper::default();
    keeper.expect(&wanted.borrow_and_update());
    let mut journal = Journal::new("Reading by name", Secret::NAME, "");
    let mut backoff = pace.backoff.clone();
    let mut reads = FuturesUnordered::new();
    let mut retries = FuturesUnordered::new();
    let mut answering = true;
    loop {
        while reads.len() < PARALLEL
            && let Some(ticket) = keeper.next_read()
        {
            reads.push(read(client.clone(), ticket, pace.headers));
        }
        let changes = tokio::select! {
            // What the watches bring may make a read unnecessary.
            biased;
            batch = batches.recv() => match batch {
                Some(batch) => keeper.take(batch),
                None => return,
            },
            changed = wanted.changed(), if answering => {
                answering = changed.is_ok();
                keeper.want(&wanted.borrow_and_update())
            }
            Some((ticket, answer)) = reads.next() => match answer {
                Ok(secret) => {
                    journal.recovered();
                    backoff.reset();
                    keeper.answered(&ticket, secret)
                }
                Err(failure) => {
                    if keeper.is_awaited(&ticket) {
                        journal.failed(&failure, Instant::now());
                        let delay = backoff.delay();
                        retries.push(async move {
                            sleep(delay).await;
                            ticket
                        });
                    }
                    Vec::new()
                }
            },
            Some(ticket) = retries.next() => {
                keeper.read_again(ticket);
                Vec::new()
            }
        };
        if !changes.is_empty() && events.send(SourceEvent::Changes(changes)).await.is_err() {
            return;
        }
        for _ in 0..std::mem::take(&mut keeper.first_lists) {
            // Nobody hears it if the source has been dropped; then nobody needs to.
            let _ = listed.send(());
        }
    }
}

async fn read(
    client: Client,
    ticket: Ticket,
    limit: Duration,
) -> (Ticket, Result<Option<Secret>, Failure>) {
    let secrets: Api<Secret> = Api::namespaced(client, &ticket.name.namespace);
    let answer = match timeout(limit, secrets.get_opt(&ticket.name.name)).await {
        Ok(Ok(secret)) => Ok(secret),
        Ok(Err(error)) => Err(describe(&error)),
        Err(_elapsed) => Err(Failure::timeout("a Secret was asked for")),
    };
    (ticket, answer)
}

/// A read of a Secret by name. Another read of the same Secret has another number.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Ticket {
    name: NamespacedName,
    number: u64,
}

/// What is wanted, what was forwarded, what is being read.
#[derive(Default)]
struct Keeper {
    wanted: Wanted,
    /// The version of every Secret that was forwarded and not deleted since.
    held: BTreeMap<NamespacedName, Held>,
    /// Reads that have to be started.
    waiting: BTreeSet<NamespacedName>,
    /// Reads that were started, by the number of the one that counts.
    reading: BTreeMap<NamespacedName, u64>,
    number: u64,
    /// What the lists that are under way hold, by watch. Only wanted names.
    relisting: BTreeMap<usize, BTreeSet<NamespacedName>>,
    /// The watches that have listed.
    listed: BTreeSet<usize>,
    /// How many of them did so for the first time since somebody asked.
    first_lists: usize,
}

struct Held {
    version: Option<u64>,
    /// The watch that brought it; `None` if it was read by name and no watch has shown it yet.
    watch: Option<usize>,
}

impl Keeper {
    /// Takes the first set of wanted Secrets: the lists that are about to come bring them.
    fn expect(&mut self, wanted: &Wanted) {
        self.wanted.clone_from(wanted);
    }

    /// Takes the new set of wanted Secrets.
    fn want(&mut self, wanted: &Wanted) -> Vec<Change> {
        // One that was unwanted for a moment has been forgotten meanwhile, also if it is the same one as before.
        let added = wanted
            .iter()
            .filter(|(name, since)| self.wanted.get(*name) != Some(since))
            .map(|(name, _)| name.clone());
        self.waiting.extend(added);
        self.waiting.retain(|name| wanted.contains_key(name));
        self.reading
            .retain(|name, _| wanted.contains_key(name) && !self.waiting.contains(name));
        self.wanted.clone_from(wanted);
        let unwanted: Vec<_> = self
            .held
            .keys()
            .filter(|name| !wanted.contains_key(name))
            .cloned()
            .collect();
        unwanted.iter().map(|name| self.forget(name)).collect()
    }

    /// The next Secret to read.
    fn next_read(&mut self) -> Option<Ticket> {
        let name = self.waiting.pop_first()?;
        self.number += 1;
        self.reading.insert(name.clone(), self.number);
        Some(Ticket {
            name,
            number: self.number,
        })
    }

    /// A read failed and its pause is over.
    fn read_again(&mut self, ticket: Ticket) {
        if self.is_awaited(&ticket) {
            self.reading.remove(&ticket.name);
            self.waiting.insert(ticket.name);
        }
    }

    fn is_awaited(&self, ticket: &Ticket) -> bool {
        self.reading.get(&ticket.name) == Some(&ticket.number)
    }

    /// Takes what a read brought. An answer that a watch has overtaken is dropped.
    fn answered(&mut self, ticket: &Ticket, secret: Option<Secret>) -> Vec<Change> {
        if !self.is_awaited(ticket) {
            return Vec::new();
        }
        self.reading.remove(&ticket.name);
        let Some(mut secret) = secret else {
            let gone = self.held.contains_key(&ticket.name);
            return Vec::from_iter(gone.then(|| self.forget(&ticket.name)));
        };
        secret.strip();
        let held = Held {
            version: version_of(&secret),
            watch: None,
        };
        self.held.insert(ticket.name.clone(), held);
        vec![Change::Apply(secret.object())]
    }

    /// Takes what a watch brought.
    fn take(&mut self, batch: Batch) -> Vec<Change> {
        let Batch { watch, events } = batch;
        let mut changes = Vec::new();
        for event in events {
            match event {
                Event::Init => {
                    self.relisting.insert(watch, BTreeSet::new());
                }
                Event::InitApply(secret) => {
                    if let (Some(name), Some(names)) =
                        (self.wanted_name(&secret), self.relisting.get_mut(&watch))
                    {
                        names.insert(name);
                    }
                    changes.extend(self.apply(watch, secret, true));
                }
                Event::InitDone => {
                    changes.extend(self.list_done(watch));
                }
                Event::Apply(secret) => changes.extend(self.apply(watch, secret, false)),
                Event::Delete(secret) => changes.extend(self.delete(&secret)),
            }
        }
        changes
    }

    fn apply(&mut self, watch: usize, secret: Secret, from_list: bool) -> Option<Change> {
        let name = self.wanted_name(&secret)?;
        let version = version_of(&secret);
        // The watch is behind the read by name. A list is believed in any case: after a restore of the API server's
        // storage the versions begin anew.
        let behind = !from_list
            && self
                .held
                .get(&name)
                .is_some_and(|held| held.version > version);
        if behind {
            return None;
        }
        self.waiting.remove(&name);
        self.reading.remove(&name);
        let held = Held {
            version,
            watch: Some(watch),
        };
        self.held.insert(name, held);
        Some(Change::Apply(secret.object()))
    }

    fn delete(&mut self, secret: &Secret) -> Option<Change> {
        let name = self.wanted_name(secret)?;
        // A read that was started earlier may bring what has just been deleted. Should the Secret exist again, the
        // watch is about to bring it.
        self.waiting.remove(&name);
        self.reading.remove(&name);
        let held = self.held.get(&name)?;
        // The Secret was deleted, made anew and read by name before the watch tells of the deletion.
        if held.version > version_of(secret) {
            return None;
        }
        Some(self.forget(&name))
    }

    /// What this watch brought earlier and the new list does not hold has been deleted in between.
    fn list_done(&mut self, watch: usize) -> Vec<Change> {
        let names = self.relisting.remove(&watch).unwrap_or_default();
        let gone: Vec<_> = self
            .held
            .iter()
            .filter(|(name, held)| held.watch == Some(watch) && !names.contains(name))
            .map(|(name, _)| name.clone())
            .collect();
        // Of what no watch has shown yet nothing is known: read it again. The same goes for wanted Secrets that the
        // first list lacks; they may have another type, which their owner has to be told.
        let first = self.listed.insert(watch);
        self.first_lists += usize::from(first);
        let unseen = self.wanted.keys().filter(|name| match self.held.get(name) {
            Some(held) => held.watch.is_none(),
            None => first,
        });
        self.waiting.extend(unseen.cloned());
        gone.iter().map(|name| self.forget(name)).collect()
    }

    fn forget(&mut self, name: &NamespacedName) -> Change {
        self.held.remove(name);
        Change::Delete(ObjectRef::new(Secret::NAME, &name.namespace, &name.name))
    }

    fn wanted_name(&self, secret: &Secret) -> Option<NamespacedName> {
        let name = NamespacedName::new(
            secret.metadata.namespace.as_deref().unwrap_or_default(),
            secret.metadata.name.as_deref().unwrap_or_default(),
        );
        self.wanted.contains_key(&name).then_some(name)
    }
}

fn version_of(secret: &Secret) -> Option<u64> {
    secret.metadata.resource_version.as_deref()?.parse().ok()
}

#[cfg(test)]
pub(super) mod tests_support {
    //! Steps of a [`Keeper`] that no server can be made to take at the right moment.

    use super::*;

    pub(in crate::watch) struct Steps(Keeper);

    pub(in crate::watch) struct Read(Ticket);

    pub(in crate::watch) fn keeper(wanted: &[&str]) -> Steps {
        let mut keeper = Keeper::default();
        keeper.expect(
            &wanted
                .iter()
                .map(|name| (name.parse().unwrap(), 0))
                .collect(),
        );
        Steps(keeper)
    }

    impl Steps {
        pub(in crate::watch) fn reading(&mut self, name: &str) -> Read {
            self.0.waiting.insert(name.parse().unwrap());
            Read(self.0.next_read().unwrap())
        }

        pub(in crate::watch) fn watched(&mut self, event: Event<Secret>) -> Vec<Change> {
            self.0.take(Batch {
                watch: 0,
                events: vec![event],
            })
        }

        pub(in crate::watch) fn answered(
            &mut self,
            read: &Read,
            secret: Option<Secret>,
        ) -> Vec<Change> {
            self.0.answered(&read.0, secret)
        }
    }
}
