//! Names of endpoints that are resolved at run time.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
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
#[derive(Clone)]
struct Source {
    build: Arc<dyn Fn() -> Option<TokioResolver> + Send + Sync>,
    permitted: fn(IpAddr) -> bool,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
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
            build: Arc::new(system),
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

/// Where clouds have their metadata if not on a link-local address: Alibaba, AWS and Google.
const METADATA_V4: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// May a name of a backend lead there? Addresses of this machine and of its link are ours, not the backend's: a
/// Service of type `ExternalName` could otherwise reach the admin listener or a cloud's metadata.
pub(crate) fn is_permitted(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            !(v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_broadcast()
                || v4.is_multicast()
                // "This network" (RFC 1122, 3.2.1.3): some systems take all of it for themselves.
                || v4.octets().first() == Some(&0)
                || METADATA_V4 == v4)
        }
        IpAddr::V6(v6) => {
            !(v6.is_loopback()
                || v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast()
                || METADATA_V6.contains(&v6))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
    use hickory_resolver::net::runtime::TokioRuntimeProvider;
    use hickory_resolver::proto::op::{Message, ResponseCode};
    use hickory_resolver::proto::rr::rdata::{A, AAAA};
    use hickory_resolver::proto::rr::{RData, Record, RecordType};
    use tokio::net::UdpSocket;

    use super::*;

    /// What the name server knows, and how often it was asked for addresses of IPv4.
    #[derive(Default)]
    struct Zone {
        addresses: Vec<IpAddr>,
        broken: bool,
        asked: usize,
    }

    async fn name_server(zone: Arc<Mutex<Zone>>) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 1024];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                let query = Message::from_vec(&buffer[..length]).unwrap();
                let question = query.queries[0].clone();
                let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
                answer.add_query(question.clone());
                {
                    let mut zone = zone.lock().unwrap();
                    zone.asked += usize::from(question.query_type() == RecordType::A);
                    if zone.broken {
                        answer.metadata.response_code = ResponseCode::ServFail;
                    }
                    for ip in zone.addresses.iter().filter(|_| !zone.broken) {
                        let data = match (ip, question.query_type()) {
                            (IpAddr::V4(v4), RecordType::A) => RData::A(A(*v4)),
                            (IpAddr::V6(v6), RecordType::AAAA) => RData::AAAA(AAAA(*v6)),
                            _ => continue,
                        };
                        answer.add_answer(Record::from_rdata(question.name().clone(), 1, data));
                    }
                }
                let bytes = answer.to_vec().unwrap();
                socket.send_to(&bytes, peer).await.unwrap();
            }
        });
        address
    }

    async fn resolver(zone: &Arc<Mutex<Zone>>) -> Resolver {
        let server = name_server(Arc::clone(zone)).await;
        let build = move || {
            let mut connection = ConnectionConfig::udp();
            connection.port = server.port();
            let server = NameServerConfig::new(server.ip(), true, vec![connection]);
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
            let mut builder =
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            builder.options_mut().cache_size = 0;
            builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
            builder.build().ok()
        };
        Resolver::with(Source {
            build: Arc::new(build),
            permitted: is_permitted,
        })
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn host() -> HostName {
        HostName::parse("db.example").unwrap()
    }

    #[tokio::test]
    async fn both_families_are_found_and_kept() {
        let zone = Arc::new(Mutex::new(Zone {
            addresses: ips(&["10.0.0.2", "10.0.0.1", "2001:db8::1", "127.0.0.1"]),
            ..Zone::default()
        }));
        let resolver = resolver(&zone).await;
        let name = resolver.name(&host());
        let first = resolver.addresses(&name).await.unwrap();
        assert_eq!(*first, ips(&["10.0.0.1", "10.0.0.2", "2001:db8::1"]));
        for _ in 0..10 {
            let second = resolver.name(&host());
            let again = resolver.addresses(&second).await.unwrap();
            assert!(Arc::ptr_eq(&first, &again));
        }
        assert_eq!(zone.lock().unwrap().asked, 1);
    }

    #[tokio::test]
    async fn a_new_answer_replaces_the_old_one_and_a_failure_does_not() {
        let zone = Arc::new(Mutex::new(Zone {
            addresses: ips(&["10.0.0.1"]),
            ..Zone::default()
        }));
        let resolver = resolver(&zone).await;
        let name = resolver.name(&host());
        resolver.addresses(&name).await.unwrap();
        zone.lock().unwrap().addresses = ips(&["10.0.0.2"]);
        soon_is(&resolver, &name, &["10.0.0.2"]).await;

        zone.lock().unwrap().broken = true;
        let asked = zone.lock().unwrap().asked;
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        while zone.lock().unwrap().asked == asked {
            ticks.tick().await;
            assert_eq!(
                *resolver.addresses(&name).await.unwrap(),
                ips(&["10.0.0.2"])
            );
        }
        zone.lock().unwrap().broken = false;
        zone.lock().unwrap().addresses = ips(&["10.0.0.3"]);
        soon_is(&resolver, &name, &["10.0.0.3"]).await;
    }

    /// Asks until the answer is this one.
    async fn soon_is(resolver: &Resolver, name: &Arc<Name>, want: &[&str]) {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        let asking = async {
            while *resolver.addresses(name).await.unwrap() != ips(want) {
                ticks.tick().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), asking)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn names_without_usable_addresses_fail() {
        for (addresses, want) in [
            (&[][..], Unresolved::Failed),
            (
                &["127.0.0.1", "169.254.169.254", "::1"],
                Unresolved::Refused,
            ),
        ] {
            let zone = Arc::new(Mutex::new(Zone {
                addresses: ips(addresses),
                ..Zone::default()
            }));
            let resolver = resolver(&zone).await;
            let name = resolver.name(&host());
            assert_eq!(resolver.addresses(&name).await, Err(want), "{addresses:?}");
        }
    }

    #[test]
    fn addresses_of_this_machine_and_its_link_are_refused() {
        for (address, permitted) in [
            ("10.0.0.1", true),
            ("192.168.1.1", true),
            ("8.8.8.8", true),
            ("2001:db8::1", true),
            ("fd00::1", true),
            ("127.0.0.1", false),
            ("127.9.9.9", false),
            ("0.0.0.0", false),
            ("0.1.2.3", false),
            ("169.254.169.254", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("::", false),
            ("fe80::1", false),
            ("ff02::1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:169.254.169.254", false),
            ("100.100.100.200", false),
            ("fd00:ec2::254", false),
        ] {
            assert_eq!(
                is_permitted(address.parse().unwrap()),
                permitted,
                "{address}"
            );
        }
        assert!(is_permitted(Ipv4Addr::new(172, 16, 0, 1).into()));
    }
}
