//! What a namespace may ask for, as policies of kind `GatewayPolicy` say it.
//!
//! | what an Ingress asks for | without a policy | what a policy makes of it |
//! | --- | --- | --- |
//! | a host | the first claim of host and path wins | it belongs to the namespaces of the most specific entry that covers it |
//! | an annotation | as `docs/annotations.md` says | what is not permitted closes the routes of its Ingress |
//! | a large value | it counts | the limit counts |

mod spec;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{GatewayPolicy, GatewayPolicySpec, LimitPolicy, RiskLevel};
use model::{HostName, HostPattern, Retry};

pub(crate) use self::spec::problems;
use self::spec::{body, cover, faults};
use crate::Problem;
use crate::annotation::{self, Annotations, Risk};
use crate::report::Reason;

/// What all policies of a cluster say.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Permits {
    rules: BTreeMap<Box<str>, Rules>,
    /// The policies that have an entry.
    entries: BTreeMap<Cover, BTreeSet<Box<str>>>,
    /// By the name behind the first label: an entry that is such a name, and its policy.
    children: BTreeMap<Box<str>, (Cover, Box<str>)>,
}

/// One policy, read.
#[derive(Clone, Debug, Default, PartialEq)]
struct Rules {
    namespaces: Vec<String>,
    /// The hosts that can be read. There may be none although there are texts that should have been some.
    hosts: Vec<Cover>,
    /// Its namespaces may claim its hosts alone.
    binds: bool,
    max_risk: Option<Risk>,
    /// Beside what `max_risk` allows.
    allowed: BTreeSet<String>,
    denied: BTreeSet<String>,
    body: Option<u64>,
    seconds: Option<u32>,
    tries: Option<u32>,
    /// Why it cannot be used.
    broken: Option<String>,
}

/// Which hosts an entry of a policy stands for. The greater is the more specific one.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Cover {
    All,
    /// Every name below this one, however many labels it has; first the length.
    Below(usize, HostName),
    Name(HostName),
}

/// Why a policy does not permit something.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Refusal {
    /// The policy.
    pub(crate) policy: Box<str>,
    pub(crate) text: String,
}

impl Permits {
    pub(crate) fn new(policies: &BTreeMap<Box<str>, Arc<GatewayPolicy>>) -> Self {
        let mut permits = Self::default();
        for (name, policy) in policies {
            let rules = Rules::new(&policy.spec);
            for cover in &rules.hosts {
                let named = permits.entries.entry(cover.clone()).or_default();
                named.insert(name.clone());
                if let Cover::Name(host) = cover
                    && let Some(parent) = host.parent()
                {
                    let first = permits.children.entry(parent.into());
                    first.or_insert_with(|| (cover.clone(), name.clone()));
                }
            }
            permits.rules.insert(name.clone(), rules);
        }
        permits
    }

    /// For Ingresses of this namespace.
    pub(crate) fn of(&self, namespace: &str) -> Permit<'_> {
        let own = self.rules.iter();
        let own = own.filter(|(_, rules)| rules.is_for(namespace));
        Permit {
            own: own.map(|(name, rules)| (&**name, rules)).collect(),
            all: self,
        }
    }

    /// Do hosts belong to the same policies in both?
    pub(crate) fn bind_as(&self, other: &Self) -> bool {
        self.entries == other.entries && self.children == other.children
    }

    /// Do the same policies say the same about a namespace in both?
    pub(crate) fn rule_as(&self, other: &Self, namespace: &str) -> bool {
        let (own, others) = (self.of(namespace).own, other.of(namespace).own);
        own.len() == others.len()
            && own
                .iter()
                .zip(&others)
                .all(|((name, rules), (before, said))| name == before && rules.say_as(said))
    }

    /// The most specific entry that covers a host, with its policies.
    fn best(&self, host: &HostPattern) -> Option<&BTreeSet<Box<str>>> {
        let (exact, suffix) = match host {
            HostPattern::Exact(name) => (Some(name), name.parent()),
            HostPattern::Wildcard { suffix, .. } => (None, Some(suffix.as_str())),
            HostPattern::Any => (None, None),
        };
        let exact = exact.and_then(|name| self.entries.get(&Cover::Name(name.clone())));
        let suffixes = std::iter::successors(suffix, |suffix| {
            suffix.split_once('.').map(|(_, rest)| rest)
        });
        let mut below = suffixes
            .filter_map(|suffix| HostName::parse(suffix).ok())
            .filter_map(|name| self.entries.get(&Cover::below(name)));
        exact
            .or_else(|| below.next())
            .or_else(|| self.entries.get(&Cover::All))
    }

    /// An entry that a pattern takes in without being covered by it.
    fn within(&self, host: &HostPattern) -> Option<(&Cover, &str)> {
        match host {
            HostPattern::Exact(_) => None,
            HostPattern::Wildcard { suffix, .. } => {
                let (cover, policy) = self.children.get(suffix.as_str())?;
                Some((cover, policy))
            }
            HostPattern::Any => {
                let (cover, policies) = self.entries.last_key_value()?;
                Some((cover, policies.first()?))
            }
        }
    }
}

/// What the policies for one namespace say together.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    own: Vec<(&'a str, &'a Rules)>,
    all: &'a Permits,
}

impl Permit<'_> {
    /// May it claim this host?
    pub(crate) fn host(&self, host: &HostPattern) -> Result<(), Refusal> {
        let refused = |policy: &str, text: String| {
            Err(Refusal {
                policy: policy.into(),
                text,
            })
        };
        if let Some(policies) = self.all.best(host) {
            if self.own.iter().any(|(name, _)| policies.contains(*name)) {
                return Ok(());
            }
            let policy = policies.first().map_or("", |name| name);
            return refused(
                policy,
                format!(
                    "host `{host}` belongs to other namespaces, as GatewayPolicy {policy} says"
                ),
            );
        }
        if let Some((policy, _)) = self.own.iter().find(|(_, rules)| rules.binds) {
            return refused(
                policy,
                format!(
                    "host `{host}` is none of those that GatewayPolicy {policy} gives to this namespace"
                ),
            );
        }
        // Whoever serves many hosts would get what their owners do not serve at the moment.
        match self.all.within(host) {
            Some((cover, policy)) => refused(
                policy,
                format!(
                    "host `{host}` would take in `{cover}`, which belongs to other namespaces, as GatewayPolicy {policy} says"
                ),
            ),
            None => Ok(()),
        }
    }

    /// Closes the routes where an annotation may not be used, and cuts values that are too large. `used` are names without
    /// prefix, and where they stand. Returns the policies that did.
    pub(crate) fn annotations(
        &self,
        used: &BTreeMap<Box<str>, String>,
        annotations: &mut Annotations,
        problems: &mut Vec<Problem>,
    ) -> BTreeSet<Box<str>> {
        let mut violated = BTreeSet::new();
        if self.own.is_empty() {
            return violated;
        }
        let mut close = |policy: &str, field: &str, text: &str| {
            problems.push(Problem::error(
                Reason::PolicyViolation,
                field,
                &format!("{text}; the routes of this Ingress answer 503"),
            ));
            violated.insert(policy.into());
        };
        for (policy, rules) in &self.own {
            if let Some(broken) = &rules.broken {
                let text = format!(
                    "GatewayPolicy {policy} is for this namespace and cannot be used: {broken}"
                );
                close(policy, "", &text);
            }
        }
        for (name, field) in used {
            for (policy, rules) in &self.own {
                if let Err(why) = rules.annotation(name) {
                    let text = format!(
                        "GatewayPolicy {policy} does not let this namespace use `{name}`: {why}"
                    );
                    close(policy, field, &text);
                }
            }
        }
        if !violated.is_empty() {
            annotations.closed = Some("policy-violation");
            if let Some(routing) = &mut annotations.routing {
                // What is closed stands for nothing else.
                routing.aliases.clear();
                routing.www = false;
            }
        }
        for (policy, rules) in &self.own {
            if rules.cut(policy, annotations, problems) {
                violated.insert((*policy).into());
            }
        }
        violated
    }
}

impl Rules {
    fn new(spec: &GatewayPolicySpec) -> Self {
        let GatewayPolicySpec {
            namespaces,
            hosts,
            max_risk,
            allow_annotations,
            deny_annotations,
            limits,
        } = spec;
        let names = |list: &[String]| {
            let list = list.iter().map(|name| annotation::current(name.trim()));
            list.map(str::to_owned).collect()
        };
        let mut rules = Self {
            namespaces: namespaces.clone(),
            hosts: hosts.iter().filter_map(|text| cover(text).ok()).collect(),
            binds: !hosts.is_empty(),
            max_risk: match (max_risk, allow_annotations.is_empty()) {
                (Some(RiskLevel::Low), _) => Some(Risk::Low),
                (Some(RiskLevel::Medium), _) => Some(Risk::Medium),
                (Some(RiskLevel::High), _) => Some(Risk::High),
                (Some(RiskLevel::Critical), _) | (None, true) => Some(Risk::Critical),
                (None, false) => None,
            },
            allowed: names(allow_annotations),
            denied: names(deny_annotations),
            ..Self::default()
        };
        if let Some(LimitPolicy {
            body_size,
            timeout_seconds,
            tries,
        }) = limits
        {
            rules.body = body_size.as_deref().and_then(|text| body(text).ok());
            rules.seconds = timeout_seconds.filter(|seconds| *seconds > 0);
            rules.tries = tries.filter(|tries| *tries > 0);
        }
        let first = faults(spec).into_iter().find(|fault| fault.breaks);
        rules.broken = first.map(|fault| format!("{}: {}", fault.field, fault.text));
        rules
    }

    /// Do both say the same to those that they are for?
    fn say_as(&self, other: &Self) -> bool {
        let Self {
            namespaces: _,
            hosts,
            binds,
            max_risk,
            allowed,
            denied,
            body,
            seconds,
            tries,
            broken,
        } = self;
        *hosts == other.hosts
            && *binds == other.binds
            && *max_risk == other.max_risk
            && *allowed == other.allowed
            && *denied == other.denied
            && *body == other.body
            && *seconds == other.seconds
            && *tries == other.tries
            && *broken == other.broken
    }

    fn is_for(&self, namespace: &str) -> bool {
        self.namespaces.is_empty()
            || self
                .namespaces
                .iter()
                .any(|pattern| fits(pattern.trim(), namespace))
    }

    /// May an annotation be used? One that nobody knows does nothing, and is reported as such.
    fn annotation(&self, name: &str) -> Result<(), String> {
        let Some(known) = annotation::find(name) else {
            return Ok(());
        };
        if self.denied.contains(name) {
            return Err("it is in `denyAnnotations`".to_owned());
        }
        if self.allowed.contains(name) {
            return Ok(());
        }
        match self.max_risk {
            None => Err("it is not in `allowAnnotations`".to_owned()),
            Some(most) if known.risk > most => Err(format!(
                "its risk is {:?}, and {most:?} is the highest that may be used",
                known.risk
            )),
            Some(_) => Ok(()),
        }
    }

    /// Cuts what is too large. True if something was.
    fn cut(
        &self,
        policy: &str,
        annotations: &mut Annotations,
        problems: &mut Vec<Problem>,
    ) -> bool {
        let before = problems.len();
        let mut cut = |what: &str, most: u64| {
            let text = format!(
                "`{what}` is more than GatewayPolicy {policy} lets this namespace have; {most} counts"
            );
            let field = "metadata.annotations";
            problems.push(Problem::warning(Reason::PolicyViolation, field, &text));
        };
        if let Some(most) = self.body
            && let Some(limit) = &mut annotations.body_limit
            && (*limit == 0 || *limit > most)
        {
            *limit = most;
            cut("proxy-body-size", most);
        }
        if let Some(most) = self.seconds {
            for (name, timeout) in [
                ("proxy-connect-timeout", &mut annotations.connect_timeout),
                ("proxy-read-timeout", &mut annotations.read_timeout),
                ("proxy-send-timeout", &mut annotations.send_timeout),
            ] {
                if timeout.is_some_and(|seconds| seconds > most) {
                    *timeout = Some(most);
                    cut(name, u64::from(most));
                }
            }
        }
        if let Some(most) = self.tries
            && let Some(traffic) = &mut annotations.traffic
            && (traffic.retry.is_some() || traffic.tries.is_some())
        {
            let tries = traffic.tries.unwrap_or_else(|| Retry::default().tries);
            if tries == 0 || tries > most {
                traffic.tries = Some(most);
                cut("proxy-next-upstream-tries", u64::from(most));
            }
        }
        problems.len() > before
    }
}

impl Cover {
    fn below(name: HostName) -> Self {
        Self::Below(name.as_str().len(), name)
    }
}

impl std::fmt::Display for Cover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Below(_, name) => write!(f, "*.{name}"),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// Is this the pattern's text, with anything in place of each `*`? Takes the first place of each part, which leaves most
/// for the parts behind it.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    let inner = text.strip_prefix(start);
    let Some(mut inner) = inner.and_then(|text| text.strip_suffix(end)) else {
        return false;
    };
    middle.split('*').all(|part| match inner.split_once(part) {
        Some((_, behind)) => {
            inner = behind;
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests;
