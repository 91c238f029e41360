//! What the annotations of one Ingress say.

use ipnet::IpNet;
use model::{
    AffinityMode, BackendProtocol, Balance, Deadlines, HostPattern, Pace, Retry, SameSite,
};

use crate::external::ExternalValues;
use crate::health::HealthValues;
use crate::policy::PolicyPart;
use crate::secret::UsersForm;

/// What the annotations of one Ingress say. What few Ingresses have is behind pointers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Annotations {
    pub(crate) ssl_redirect: Option<bool>,
    pub(crate) force_ssl_redirect: Option<bool>,
    pub(crate) protocol: Option<BackendProtocol>,
    pub(crate) connect_timeout: Option<u32>,
    pub(crate) read_timeout: Option<u32>,
    pub(crate) send_timeout: Option<u32>,
    /// Who may pass, and how often.
    pub(crate) access: Option<Box<AccessValues>>,
    /// The TLS connections of its hosts are passed on unread.
    pub(crate) passthrough: bool,
    /// 0 is no limit.
    pub(crate) body_limit: Option<u64>,
    /// The routes answer 503 for this reason, because something that guards them cannot be done.
    pub(crate) closed: Option<&'static str>,
    pub(crate) routing: Option<Box<Routing>>,
    pub(crate) traffic: Option<Box<Traffic>>,
    pub(crate) sessions: Option<Box<Sessions>>,
    pub(crate) backend_tls: Option<Box<BackendTlsValues>>,
    /// How endpoints are watched over.
    pub(crate) health: Option<Box<HealthValues>>,
    pub(crate) clients: Option<Box<ClientValues>>,
    pub(crate) cors: Option<Box<Cors>>,
    pub(crate) canary: Option<Box<Canary>>,
    /// What policies and snippets say.
    pub(crate) policy: Option<Box<PolicyPart>>,
    /// The policy that the Ingress names.
    pub(crate) policy_name: Option<Box<str>>,
    /// A firewall that is asked for for everybody need not be there.
    pub(crate) without_firewall: bool,
}

/// Routing, rewrites, redirects.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Routing {
    pub(crate) use_regex: bool,
    pub(crate) rewrite: Option<String>,
    pub(crate) prefix: Option<String>,
    pub(crate) app_root: Option<String>,
    pub(crate) permanent: Option<String>,
    pub(crate) permanent_code: Option<u16>,
    pub(crate) temporal: Option<String>,
    pub(crate) temporal_code: Option<u16>,
    pub(crate) www: bool,
    pub(crate) aliases: Vec<HostPattern>,
    pub(crate) upstream_host: Option<String>,
}

/// How requests get to backends, and what happens to responses.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Traffic {
    pub(crate) service_upstream: bool,
    pub(crate) balance: Option<Balance>,
    /// In seconds; 0 is none.
    pub(crate) slow_start: u32,
    pub(crate) default_backend: Option<String>,
    /// Where copies of requests go.
    pub(crate) mirror: Option<String>,
    pub(crate) mirror_host: Option<String>,
    pub(crate) mirror_without_body: bool,
    /// The ConfigMap with headers for responses, and its namespace if that is given.
    pub(crate) headers: Option<(Option<Box<str>>, Box<str>)>,
    pub(crate) error_statuses: Option<Vec<u16>>,
    pub(crate) keeps_answers: Option<bool>,
    pub(crate) unlogged: bool,
    /// Is a request passed on once its body is there?
    pub(crate) collects: Option<bool>,
    /// The conditions; tries and timeout stand in fields of their own.
    pub(crate) retry: Option<Retry>,
    pub(crate) tries: Option<u32>,
    pub(crate) tries_timeout: Option<u32>,
    pub(crate) deadlines: Option<Deadlines>,
    pub(crate) redirect_from: Option<String>,
    pub(crate) redirect_to: Option<String>,
    pub(crate) cookie_domain: Option<(String, String)>,
    pub(crate) cookie_path: Option<(String, String)>,
}

/// TLS towards backends.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct BackendTlsValues {
    /// The Secret, and its namespace if that is given.
    pub(crate) secret: Option<(Option<Box<str>>, Box<str>)>,
    pub(crate) verify: bool,
    pub(crate) name: Option<Box<str>>,
    /// Is TLS 1.2 spoken, and 1.3? Never neither.
    pub(crate) versions: Option<(bool, bool)>,
    /// Suites of TLS 1.2; empty for all.
    pub(crate) cipher_suites: Vec<&'static str>,
    pub(crate) depth: Option<u32>,
    /// HTTP/2 is spoken, where that cannot be negotiated.
    pub(crate) http2: bool,
}

/// Certificates of clients.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct ClientValues {
    /// The Secret with the authorities, and its namespace if that is given.
    pub(crate) secret: Option<(Option<Box<str>>, Box<str>)>,
    pub(crate) verify: Option<Verify>,
    pub(crate) depth: Option<u32>,
    pub(crate) pass: bool,
    pub(crate) error_page: Option<String>,
    /// A regular expression for the subject.
    pub(crate) subject: Option<String>,
    /// One of the values cannot be read.
    pub(crate) broken: bool,
}

/// Whether a client has to have a certificate; the stricter, the greater.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Verify {
    Off,
    /// Whoever has signed it.
    OptionalWithoutAuthority,
    Optional,
    #[default]
    On,
}

/// Requests that belong together.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an attribute of the cookie or a switch that users write"
)]
pub(crate) struct Sessions {
    /// Users stay at one endpoint by a cookie; the rest says how.
    pub(crate) cookie: bool,
    pub(crate) mode: AffinityMode,
    pub(crate) without_canaries: bool,
    pub(crate) name: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) domain: Option<String>,
    pub(crate) same_site: Option<SameSite>,
    pub(crate) same_site_by_browser: bool,
    pub(crate) secure: bool,
    pub(crate) expires: Option<u32>,
    pub(crate) max_age: Option<u32>,
    pub(crate) change_on_failure: bool,
    /// A key decides.
    pub(crate) hash_by: Option<String>,
    pub(crate) subset: bool,
    pub(crate) subset_size: Option<u32>,
    pub(crate) bound: Option<u32>,
}

/// Cross-origin requests.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Cors {
    pub(crate) enabled: bool,
    /// `None` is everybody.
    pub(crate) origins: Option<Vec<String>>,
    pub(crate) methods: Option<String>,
    pub(crate) headers: Option<String>,
    pub(crate) expose: Option<String>,
    pub(crate) credentials: Option<bool>,
    pub(crate) max_age: Option<u32>,
}

/// A share of another Ingress's requests.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Canary {
    pub(crate) enabled: bool,
    pub(crate) weight: u32,
    pub(crate) total: Option<u32>,
    pub(crate) header: Option<String>,
    pub(crate) header_value: Option<String>,
    pub(crate) header_pattern: Option<String>,
    pub(crate) cookie: Option<String>,
}

impl Annotations {
    pub(crate) fn routing(&mut self) -> &mut Routing {
        self.routing.get_or_insert_default()
    }

    pub(crate) fn traffic(&mut self) -> &mut Traffic {
        self.traffic.get_or_insert_default()
    }

    pub(crate) fn sessions(&mut self) -> &mut Sessions {
        self.sessions.get_or_insert_default()
    }

    pub(crate) fn health(&mut self) -> &mut HealthValues {
        self.health.get_or_insert_default()
    }

    pub(crate) fn backend_tls(&mut self) -> &mut BackendTlsValues {
        self.backend_tls.get_or_insert_default()
    }

    /// Takes over a value about certificates of clients. What cannot be read closes more than its own Ingress, so it is
    /// remembered.
    pub(crate) fn set_clients<T>(
        &mut self,
        read: Result<T, String>,
        set: impl FnOnce(&mut ClientValues, T),
    ) -> Result<(), String> {
        let values = self.clients.get_or_insert_default();
        match read {
            Ok(value) => {
                set(values, value);
                Ok(())
            }
            Err(reason) => {
                values.broken = true;
                Err(reason)
            }
        }
    }

    pub(crate) fn cors(&mut self) -> &mut Cors {
        self.cors.get_or_insert_default()
    }

    pub(crate) fn canary(&mut self) -> &mut Canary {
        self.canary.get_or_insert_default()
    }

    /// Is the Ingress an alternative to another one?
    pub(crate) fn is_canary(&self) -> bool {
        self.canary.as_ref().is_some_and(|canary| canary.enabled)
    }

    /// Does it make the paths of its hosts regular expressions?
    pub(crate) fn wants_regex(&self) -> bool {
        self.routing
            .as_ref()
            .is_some_and(|routing| routing.use_regex || routing.rewrite.is_some())
    }
}

impl Annotations {
    /// Where values of access go.
    pub(crate) fn access(&mut self) -> &mut AccessValues {
        self.access.get_or_insert_default()
    }
}

/// What the annotations of one Ingress say about who may pass, and how often.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct AccessValues {
    pub(crate) allow: Option<Vec<IpNet>>,
    /// By the old name, which gives way to the new one.
    pub(crate) whitelist: Option<Vec<IpNet>>,
    pub(crate) deny: Option<Vec<IpNet>>,
    pub(crate) satisfy_any: bool,
    /// Name and password are asked for.
    pub(crate) basic: bool,
    /// The Secret with the users, and its namespace if that is given.
    pub(crate) secret: Option<(Option<Box<str>>, Box<str>)>,
    pub(crate) form: UsersForm,
    pub(crate) realm: Option<String>,
    /// Another server is asked.
    pub(crate) external: ExternalValues,
    /// The server that the ConfigMap names is not.
    pub(crate) without_global: bool,
    /// 0 is no limit.
    pub(crate) per_second: u32,
    pub(crate) per_minute: u32,
    pub(crate) concurrent: u32,
    pub(crate) burst: Option<u32>,
    pub(crate) unlimited: Vec<IpNet>,
    /// In KiB; 0 is no limit.
    pub(crate) pace: Option<u32>,
    pub(crate) pace_after: Option<u32>,
}

impl AccessValues {
    /// How fast responses go.
    pub(crate) fn pace(&self, global: (u32, u32)) -> Option<Pace> {
        let bytes = |kibibytes: u32| u64::from(kibibytes) * 1024;
        let rate = self.pace.unwrap_or(global.0);
        (rate > 0).then(|| Pace {
            bytes_per_second: bytes(rate),
            after: bytes(self.pace_after.unwrap_or(global.1)),
        })
    }
}
