//! Names of endpoints that are resolved at run time.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use model::HostName;
use tokio::sync::{Notify, mpsc};

/// How long somebody waits for the first answer.
const WAIT: Duration = Duration::from_secs(5);
/// How long a failure is remembered.
const FAILURE: Duration = Duration::from_secs(2);
/// Bounds for what a time-to-live may say.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_hours(1);
/// How long an answer that ran out may still serve while new ones fail.
const STALE: Duration = Duration::from_hours(1);

/// Why a name has no addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Unresolved {
    /// No answer, or one without addresses.
    Failed,
    /// All addresses are ones that a backend must not have.
    Refused,
}

/// Looks names up on a thread of its own, so that neither a slow server nor the end of a worker disturbs anybody.
///
/// Answers are kept for their time-to-live. One that ran out serves on while a new one is fetched.
#[derive(Debug)]
pub(crate) struct Resolver {
    names: Mutex<BTreeMap<HostName, Arc<Name>>>,
    queries: OnceLock<Option<mpsc::UnboundedSender<Arc<Name>>>>,
    source: Source,
}

/// Where answers come from and which are taken.
#[derive(Clone, Debug)]
struct Source {
    build: fn() -> Option<TokioResolver>,
    permitted: fn(IpAddr) -> bool,
}

/// One name.
#[derive(Debug)]
pub(crate) struct Name {
    host: HostName,
    state: Mutex<State>,
    answered: Notify,
}

#[derive(Debug, Default)]
struct State {
    answer: Option<Answer>,
    asking: bool,
}

#[derive(Clone, Debug)]
struct Answer {
    result: Result<Arc<[IpAddr]>, Unresolved>,
    /// Until then nobody asks again.
    expires: Instant,
    /// Until then it serves while new answers are waited for.
    stale_until: Instant,
}

impl Resolver {
    /// Uses what the system is configured for (`/etc/resolv.conf`, `/etc/hosts`), read when the first name is looked
    /// up.
    pub(crate) fn new() -> Self {
        Self::with(Source {
            build: system,
            permitted: is_permitted,
        })
    }

    fn with(source: Source) -> Self {
        Self {
            names: Mutex::default(),
            queries: OnceLock::new(),
            source,
        }
    }

    /// The entry for a name. Callers keep it: looking it up takes a lock that all workers share.
    pub(crate) fn name(&self, host: &HostName) -> Arc<Name> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = names.get(host) {
            return Arc::clone(name);
        }
        // What only this map holds is used by no worker any more.
        names.retain(|_, name| Arc::strong_count(name) > 1);
        let name = Arc::new(Name {
            host: host.clone(),
            state: Mutex::default(),
            answered: Notify::new(),
        });
        names.insert(host.clone(), Arc::clone(&name));
        name
    }

    /// Its addresses. Only the first lookup of a name is waited for.
    pub(crate) async fn addresses(&self, name: &Arc<Name>) -> Result<Arc<[IpAddr]>, Unresolved> {
        let deadline = tokio::time::Instant::now() + WAIT;
        loop {
            // Registered before the state is looked at: an answer that comes in between is not missed.
            let answered = name.answered.notified();
            tokio::pin!(answered);
            answered.as_mut().enable();
            if let Some(result) = self.known(name) {
                return result;
            }
            if tokio::time::timeout_at(deadline, answered).await.is_err() {
                return Err(Unresolved::Failed);
            }
        }
    }

    fn known(&self, name: &Arc<Name>) -> Option<Result<Arc<[IpAddr]>, Unresolved>> {
        let mut state = name.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let known = match &state.answer {
            Some(answer) if now < answer.expires => return Some(answer.result.clone()),
            Some(answer) if now < answer.stale_until => Some(answer.result.clone()),
            Some(_) | None => None,
        };
        if !state.asking {
            state.asking = self.ask(name);
            if !state.asking {
                return Some(known.unwrap_or(Err(Unresolved::Failed)));
            }
        }
        known
    }

    /// Hands a name to the thread, which is started with the first one.
    fn ask(&self, name: &Arc<Name>) -> bool {
        let queries = self.queries.get_or_init(|| {
            let (sender, receiver) = mpsc::unbounded_channel();
            let source = self.source.clone();
            std::thread::Builder::new()
                .name("resolver".to_owned())
                .spawn(move || answer_all(receiver, &source))
                .inspect_err(|error| tracing::error!(%error, "Cannot resolve names of backends."))
                .ok()
                .map(|_| sender)
        });
        // Unbounded, but each name has at most one query in it.
        queries
            .as_ref()
            .is_some_and(|queries| queries.send(Arc::clone(name)).is_ok())
    }
}

impl Name {
    fn store(&self, found: Result<(Arc<[IpAddr]>, Duration), Unresolved>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        state.asking = false;
        let before = state.answer.take();
        state.answer = Some(match (found, before) {
            (Ok((addresses, lifetime)), before) => Answer {
                // The same addresses are the same set to everybody who compares by pointer.
                result: match before.map(|before| before.result) {
                    Some(Ok(old)) if *old == *addresses => Ok(old),
                    _ => Ok(addresses),
                },
                expires: now + lifetime,
                stale_until: now + lifetime + STALE,
            },
            (Err(_), Some(before)) if now < before.stale_until => Answer {
                expires: now + FAILURE,
                ..before
            },
            (Err(error), _) => Answer {
                result: Err(error),
                expires: now + FAILURE,
                stale_until: now,
            },
        });
        drop(state);
        self.answered.notify_waiters();
    }
}

/// The thread: answers until the last sender is gone.
fn answer_all(mut queries: mpsc::UnboundedReceiver<Arc<Name>>, source: &Source) {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "Cannot resolve names of backends.");
            return;
        }
    };
    runtime.block_on(async move {
        let resolver = (source.build)();
        let permitted = source.permitted;
        while let Some(name) = queries.recv().await {
            let Some(resolver) = resolver.clone() else {
                name.store(Err(Unresolved::Failed));
                continue;
            };
            tokio::spawn(async move {
                let found = look_up(&resolver, &name.host, permitted).await;
                name.store(found);
            });
        }
    });
}

async fn look_up(
    resolver: &TokioResolver,
    host: &HostName,
    permitted: fn(IpAddr) -> bool,
) -> Result<(Arc<[IpAddr]>, Duration), Unresolved> {
    // The final dot keeps search domains out: the name stands for itself.
    let found = resolver
        .lookup_ip(format!("{host}."))
        .await
        .map_err(|error| {
            tracing::debug!(%host, %error, "Name of a backend not resolved.");
            Unresolved::Failed
        })?;
    let lifetime = found
        .valid_until()
        .saturating_duration_since(Instant::now())
        .clamp(SHORTEST, LONGEST);
    let mut addresses: Vec<IpAddr> = found.iter().map(|address| address.to_canonical()).collect();
    if addresses.is_empty() {
        return Err(Unresolved::Failed);
    }
    addresses.retain(|address| permitted(*address));
    if addresses.is_empty() {
        tracing::warn!(%host, "Name of a backend resolves to addresses that are refused.");
        return Err(Unresolved::Refused);
    }
    // Servers rotate their answers: order is not news.
    addresses.sort_unstable();
    addresses.dedup();
    Ok((addresses.into(), lifetime))
}

fn system() -> Option<TokioResolver> {
    let built = TokioResolver::builder_tokio().and_then(|mut builder| {
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        // Answers are kept here, where the workers find them.
        options.cache_size = 0;
        builder.build()
    });
    built
        .inspect_err(|error| tracing::error!(%error, "Cannot resolve names of backends."))
        .ok()
}

/// May a name of a backend lead there? Addresses of this machine and of its link are ours, not the backend's: a
/// Service of type `ExternalName` could otherwise reach the admin listener or a cloud's metadata.
fn is_permitted(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            !(v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_broadcast()
                || v4.is_multicast()
                // "This network" (RFC 1122, 3.2.1.3): some systems take all of it for themselves.
                || v4.octets().first() == Some(&0))
        }
        IpAddr::V6(v6) => {
            !(v6.is_loopback()
                || v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast())
        }
    }
}
