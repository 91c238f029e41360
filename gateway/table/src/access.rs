//! Who may pass, compiled.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderValue, StatusCode};
use model::{Access, BasicAuth, ClientLimits, HostPattern, Users};

use crate::backends::{BackendSlot, Backends};
use crate::external::CompiledExternal;
use crate::networks::Networks;

/// What a request has to satisfy before a backend is asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CompiledAccess {
    /// Clients that never pass.
    pub deny: Networks,
    /// The only clients that pass; `None` is everybody.
    pub allow: Option<Networks>,
    /// Either `allow` or an authentication suffices.
    pub satisfy_any: bool,
    /// Asks for name and password.
    pub basic: Option<CompiledBasic>,
    /// Asks another server.
    pub external: Option<Box<CompiledExternal>>,
    /// How often a client may come.
    pub limits: Option<CompiledLimits>,
}

impl CompiledAccess {
    /// Does it ask who a user is?
    pub fn authenticates(&self) -> bool {
        self.basic.is_some() || self.external.is_some()
    }
}

/// Asks for name and password.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CompiledBasic {
    /// The value of `WWW-Authenticate`.
    pub challenge: HeaderValue,
    /// Names with the hashes of their passwords.
    pub users: Arc<Users>,
}

/// How often each client may come.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CompiledLimits {
    /// What is counted together.
    pub zone: Arc<str>,
    /// Requests per second, each with how many of them may come at once.
    pub per_second: Option<Rate>,
    /// The same per minute.
    pub per_minute: Option<Rate>,
    /// Requests at the same time.
    pub concurrent: Option<u32>,
    /// Clients that are not limited.
    pub except: Networks,
    /// The status where the rate is exceeded.
    pub rate_status: StatusCode,
    /// The status where there are too many at the same time.
    pub concurrent_status: StatusCode,
}

/// A rate, in thousandths of requests, so that it can be counted without fractions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// Thousandths of requests per second.
    pub per_second: u64,
    /// Thousandths of requests that may come beyond the rate.
    pub burst: u64,
}

impl Rate {
    fn new(requests: u32, seconds: u64, burst: u32) -> Result<Self, String> {
        if requests == 0 || burst == 0 {
            return Err("a limit of nothing is no limit".to_owned());
        }
        Ok(Self {
            // Less than one request in a thousand minutes cannot be said.
            per_second: (u64::from(requests) * 1000 / seconds).max(1),
            burst: u64::from(requests)
                .saturating_mul(u64::from(burst))
                .saturating_mul(1000),
        })
    }
}

/// What was compiled for the routes of one host: all paths of an Ingress share theirs. Addresses stand for values,
/// which live until the compilation ends.
pub(crate) type Accesses = BTreeMap<usize, Arc<CompiledAccess>>;

pub(crate) fn compile(
    access: &Arc<Access>,
    known: &mut Accesses,
    host: &HostPattern,
    backends: &mut Backends,
    acquired: &mut Vec<BackendSlot>,
) -> Result<Arc<CompiledAccess>, String> {
    let address = Arc::as_ptr(access).addr();
    if let Some(compiled) = known.get(&address) {
        return Ok(Arc::clone(compiled));
    }
    let Access {
        deny,
        allow,
        satisfy_any,
        basic,
        external,
        limits,
    } = &**access;
    let external = external.as_ref().map(|external| {
        let compiled = CompiledExternal::compile(external, host, backends, acquired)?;
        Ok::<_, String>(Box::new(compiled))
    });
    let compiled = Arc::new(CompiledAccess {
        deny: Networks::new(deny),
        allow: allow.as_deref().map(Networks::new),
        satisfy_any: *satisfy_any,
        basic: basic.as_ref().map(compile_basic).transpose()?,
        external: external.transpose()?,
        limits: limits.as_ref().map(compile_limits).transpose()?,
    });
    known.insert(address, Arc::clone(&compiled));
    Ok(compiled)
}

fn compile_basic(basic: &BasicAuth) -> Result<CompiledBasic, String> {
    let BasicAuth { realm, users } = basic;
    if users.expose().is_empty() {
        return Err("there is nobody who could pass".to_owned());
    }
    let legal = realm
        .chars()
        .all(|c| c != '"' && c != '\\' && !c.is_control());
    let challenge = HeaderValue::try_from(format!("Basic realm=\"{realm}\", charset=\"UTF-8\""));
    match challenge {
        Ok(challenge) if legal => Ok(CompiledBasic {
            challenge,
            users: Arc::clone(users),
        }),
        Ok(_) | Err(_) => Err("the realm cannot stand in a header field".to_owned()),
    }
}

fn compile_limits(limits: &ClientLimits) -> Result<CompiledLimits, String> {
    let ClientLimits {
        zone,
        per_second,
        per_minute,
        burst,
        concurrent,
        except,
        rate_status,
        concurrent_status,
    } = limits;
    if *concurrent == Some(0) {
        return Err("a limit of nothing is no limit".to_owned());
    }
    let rate = |requests: Option<u32>, seconds| {
        requests
            .map(|requests| Rate::new(requests, seconds, *burst))
            .transpose()
    };
    Ok(CompiledLimits {
        zone: Arc::from(&**zone),
        per_second: rate(*per_second, 1)?,
        per_minute: rate(*per_minute, 60)?,
        concurrent: *concurrent,
        except: Networks::new(except),
        rate_status: refusal(*rate_status)?,
        concurrent_status: refusal(*concurrent_status)?,
    })
}

/// A status that is no success.
fn refusal(status: u16) -> Result<StatusCode, String> {
    match StatusCode::from_u16(status) {
        Ok(code) if (400..600).contains(&status) => Ok(code),
        _ => Err(format!("status {status} is not between 400 and 599")),
    }
}
