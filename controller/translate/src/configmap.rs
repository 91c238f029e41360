//! The global ConfigMap → settings of every host.
//!
//! Names, defaults and value syntax are those of ingress-nginx. A value that cannot be read is reported and its
//! default kept; of `proxy-real-ip-cidr`, where the default trusts everybody, nobody is trusted instead.

mod access;
mod clients;
mod headers;
mod keys;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::ConfigMap;
use model::{
    BackendId, Balance, ClientBounds, ClientTrust, Hsts, LogEscape, LogFormat, Retry, StreamRules,
    Timeouts, TlsPolicy,
};

pub(crate) use self::access::GlobalAccess;
pub(crate) use self::headers::GlobalHeaders;
use crate::Problem;
use crate::annotation::Verdict;
use crate::report::{Reason, quoted};
use crate::setting;
use crate::settings::{Compat, Settings};

/// What applies to every host unless its Ingress says otherwise.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a key that operators write"
)]
pub(crate) struct Globals {
    pub(crate) ssl_redirect: bool,
    pub(crate) force_ssl_redirect: bool,
    pub(crate) redirect_status: u16,
    pub(crate) redirect_except: Vec<String>,
    pub(crate) hsts: Option<Hsts>,
    /// What clients see as `Server`.
    pub(crate) server: ServerField,
    /// Whom to follow where ingress-nginx and the specification disagree.
    pub(crate) compat: Option<Compat>,
    pub(crate) timeouts: Timeouts,
    /// `None` is no limit.
    pub(crate) body_limit: Option<u64>,
    pub(crate) tls: TlsPolicy,
    /// Names that no TLS entry covers get no handshake.
    pub(crate) refuse_unknown_names: bool,
    pub(crate) trust: ClientTrust,
    /// What clients may take their time for.
    pub(crate) client_bounds: ClientBounds,
    /// For what is passed on unread.
    pub(crate) streams: StreamRules,
    /// Who may speak for clients there.
    pub(crate) proxy_protocol_from: Vec<IpNet>,
    /// How endpoints are chosen.
    pub(crate) balance: Balance,
    pub(crate) errors: GlobalErrors,
    /// When another endpoint is asked.
    pub(crate) retries: GlobalRetries,
    /// Requests are not written to the access log.
    pub(crate) unlogged: bool,
    /// Requests are passed on once their bodies are there.
    pub(crate) collects: bool,
    pub(crate) access: GlobalAccess,
    pub(crate) headers: GlobalHeaders,
    /// Lines of the access log.
    pub(crate) log_format: Option<Arc<LogFormat>>,
}

/// What clients see as `Server`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ServerField {
    /// What the backend says.
    Backend,
    /// Nothing.
    Nobody,
    /// `lockgate`.
    Own,
}

/// When another endpoint is asked, where an Ingress says nothing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct GlobalRetries {
    /// After which failures; tries and timeout stand in fields of their own.
    pub(crate) conditions: Option<Retry>,
    pub(crate) tries: Option<u32>,
    /// In seconds.
    pub(crate) timeout: Option<u32>,
    /// Also where sending a request twice may do something twice, whatever an Ingress says.
    pub(crate) non_idempotent: bool,
}

/// Which answers are replaced where an Ingress says nothing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct GlobalErrors {
    /// Those of these statuses.
    pub(crate) statuses: Vec<u16>,
    /// What pods answer stays.
    pub(crate) keeps_answers: bool,
    /// What makes the pages. Not a setting of the ConfigMap.
    pub(crate) backend: Option<BackendId>,
}

impl Default for Globals {
    fn default() -> Self {
        Draft::default().finish(&Settings::default())
    }
}

/// The values as they stand in the ConfigMap.
#[expect(
    clippy::struct_excessive_bools,
    reason = "every key is a switch of its own"
)]
struct Draft {
    globals: Globals,
    hsts: bool,
    hsts_values: Hsts,
    next_stream_upstream: bool,
    /// `server-tokens` and `allow-backend-server-header`.
    server_tokens: Option<bool>,
    backend_server: bool,
    forwarded_headers: bool,
    real_ip: bool,
    /// It is not known which header has the address.
    nobody_believed: bool,
    real_ip_from: Vec<IpNet>,
    asked: access::Asked,
    log_format: Option<String>,
    log_as_json: bool,
    log_unescaped: bool,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            globals: Globals {
                ssl_redirect: true,
                force_ssl_redirect: false,
                redirect_status: 308,
                redirect_except: vec!["/.well-known/acme-challenge".to_owned()],
                hsts: None,
                server: ServerField::Backend,
                compat: None,
                timeouts: Timeouts::default(),
                body_limit: Some(1 << 20),
                tls: TlsPolicy::default(),
                refuse_unknown_names: false,
                trust: ClientTrust::default(),
                client_bounds: ClientBounds::default(),
                streams: StreamRules::default(),
                proxy_protocol_from: Vec::new(),
                balance: Balance::default(),
                errors: GlobalErrors::default(),
                retries: GlobalRetries::default(),
                unlogged: false,
                collects: false,
                access: GlobalAccess::default(),
                headers: GlobalHeaders::default(),
                log_format: None,
            },
            hsts: true,
            hsts_values: Hsts {
                max_age: 31_536_000,
                include_subdomains: true,
                preload: false,
            },
            server_tokens: None,
            backend_server: false,
            asked: access::Asked::default(),
            log_format: None,
            log_as_json: false,
            log_unescaped: false,
            next_stream_upstream: true,
            forwarded_headers: false,
            real_ip: false,
            nobody_believed: false,
            real_ip_from: [IpAddr::from([0; 4]), IpAddr::from([0; 16])]
                .into_iter()
                .filter_map(|address| IpNet::new(address, 0).ok())
                .collect(),
        }
    }
}

impl Draft {
    fn finish(self, settings: &Settings) -> Globals {
        let Self {
            mut globals,
            hsts,
            hsts_values,
            next_stream_upstream,
            server_tokens,
            backend_server,
            forwarded_headers,
            real_ip,
            nobody_believed,
            real_ip_from,
            asked,
            log_format,
            log_as_json,
            log_unescaped,
        } = self;
        let strict = globals.compat == Some(Compat::Strict);
        globals.server = if server_tokens.unwrap_or(strict) {
            ServerField::Own
        } else if globals.compat == Some(Compat::Nginx) && !backend_server {
            ServerField::Nobody
        } else {
            ServerField::Backend
        };
        globals.access.external = asked.together(settings);
        globals.log_format = log_format.map(|text| {
            let escape = match (log_unescaped, log_as_json) {
                (true, _) => LogEscape::None,
                (false, true) => LogEscape::Json,
                (false, false) => LogEscape::Default,
            };
            Arc::new(LogFormat { text, escape })
        });
        globals.hsts = hsts.then_some(hsts_values);
        globals.streams.connect = globals.timeouts.connect;
        if !next_stream_upstream {
            globals.streams.tries = 1;
        }
        globals.proxy_protocol_from.clone_from(&real_ip_from);
        if globals.trust.proxy_protocol {
            globals.trust.proxy_protocol_from.clone_from(&real_ip_from);
        }
        match (nobody_believed, forwarded_headers, real_ip) {
            (false, true, _) => globals.trust.forwarded_headers_from = real_ip_from,
            (false, false, true) => globals.trust.addresses_from = real_ip_from,
            (true, ..) | (false, false, false) => {}
        }
        globals
    }
}

/// Reads the ConfigMap; without one the defaults apply.
pub(crate) fn globals(
    configmap: Option<&ConfigMap>,
    settings: &Settings,
) -> (Globals, Vec<Problem>) {
    let mut draft = Draft::default();
    draft.globals.compat = settings.compat;
    // Nowhere does the specification say that plain HTTP is not to be answered.
    draft.globals.ssl_redirect = settings.compat != Some(Compat::Strict);
    let mut problems = Vec::new();
    for (key, text) in configmap
        .and_then(|object| object.data.as_ref())
        .into_iter()
        .flatten()
    {
        let field = format!("data[{key}]");
        match keys::set(&mut draft, key, text) {
            Ok(()) => {}
            Err(Fault::Unknown) => problems.push(without_effect(key, &field)),
            Err(Fault::Partly(text)) => {
                problems.push(Problem::warning(Reason::UnsupportedSetting, &field, &text));
            }
            Err(Fault::Refused(text)) => {
                problems.push(Problem::error(Reason::UnsupportedSetting, &field, &text));
            }
            Err(Fault::Invalid(reason)) => problems.push(Problem::error(
                Reason::InvalidSetting,
                &field,
                &format!(
                    "{} cannot be used: {reason}; {}",
                    quoted(text),
                    match key.as_str() {
                        "proxy-real-ip-cidr" => "no peer is trusted",
                        "forwarded-for-header" => "no peer is believed about clients",
                        "no-auth-locations" => "everybody has to say who it is everywhere",
                        "enable-modsecurity" => access::NO_FIREWALL,
                        key if access::GUARDS.contains(&key) => access::CONSEQUENCE,
                        key if access::BLOCKS.contains(&key) => access::ALL_CLOSED,
                        _ => "the default applies",
                    }
                ),
            )),
        }
    }
    (draft.finish(settings), problems)
}

/// What is said of a key that nothing follows from.
fn without_effect(key: &str, field: &str) -> Problem {
    let text = match setting::find(key).map(|setting| setting.verdict) {
        Some(Verdict::Ignored(why) | Verdict::Refused(why)) => {
            format!("this setting has no effect: {why}")
        }
        Some(Verdict::Honoured | Verdict::Different(_)) => "this setting has no effect".to_owned(),
        None => match setting::nearest(key) {
            Some(meant) => format!(
                "there is no such setting; did you mean `{}`? It has no effect",
                meant.name
            ),
            None => "there is no such setting; it has no effect".to_owned(),
        },
    };
    Problem::warning(Reason::UnsupportedSetting, field, &text)
}

enum Fault {
    /// The key is not honoured.
    Unknown,
    /// The value is not usable.
    Invalid(String),
    /// The value is used, but not all of it.
    Partly(String),
    /// What is asked for cannot be done, and this is what follows.
    Refused(String),
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self::Invalid(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_settings_says_what_happens() {
        for setting in setting::all() {
            let read = keys::set(&mut Draft::default(), setting.name, "");
            let known = !matches!(read, Err(Fault::Unknown));
            let acted_on = !matches!(setting.verdict, Verdict::Ignored(_));
            assert_eq!(known, acted_on, "{}", setting.name);
        }
    }
}
