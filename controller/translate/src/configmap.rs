//! The global ConfigMap → settings of every host.
//!
//! Names, defaults and value syntax are those of ingress-nginx. A value that cannot be read is reported and its
//! default kept; of `proxy-real-ip-cidr`, where the default trusts everybody, nobody is trusted instead.

mod access;
mod clients;
mod headers;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::ConfigMap;
use model::{
    BackendId, Balance, ClientBounds, ClientTrust, Hsts, LogEscape, LogFormat, LogPart, Retry,
    StreamRules, Timeouts, TlsPolicy, TlsVersion,
};

pub(crate) use self::access::GlobalAccess;
pub(crate) use self::headers::GlobalHeaders;
use crate::Problem;
use crate::annotation::{self, Verdict, switch};
use crate::report::{Reason, quoted};
use crate::setting;
use crate::settings::{Compat, Settings};
use crate::tls_names;
use crate::value;

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
        match set(&mut draft, key, text) {
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

fn set(draft: &mut Draft, key: &str, text: &str) -> Result<(), Fault> {
    let globals = &mut draft.globals;
    match key {
        "ssl-redirect" => globals.ssl_redirect = value::boolean(text)?,
        "force-ssl-redirect" => globals.force_ssl_redirect = value::boolean(text)?,
        "http-redirect-code" => globals.redirect_status = redirect_status(text)?,
        "no-tls-redirect-locations" => globals.redirect_except = locations(text)?,
        "proxy-body-size" => {
            globals.body_limit = Some(value::size(text)?).filter(|limit| *limit > 0);
        }
        "hsts" => draft.hsts = value::boolean(text)?,
        "hsts-max-age" => {
            draft.hsts_values.max_age = text
                .trim()
                .parse()
                .map_err(|_| "it is not a number of seconds".to_owned())?;
        }
        "hsts-include-subdomains" => {
            draft.hsts_values.include_subdomains = value::boolean(text)?;
        }
        "server-tokens" => draft.server_tokens = Some(value::boolean(text)?),
        "allow-backend-server-header" => draft.backend_server = value::boolean(text)?,
        "hsts-preload" => draft.hsts_values.preload = value::boolean(text)?,
        "ssl-protocols" => return protocols(text, &mut globals.tls.min_version),
        "ssl-ciphers" => return ciphers(text, &mut globals.tls.cipher_suites),
        "ssl-reject-handshake" => globals.refuse_unknown_names = value::boolean(text)?,
        "use-http2" => globals.tls.http2 = value::boolean(text)?,
        "use-forwarded-headers" => draft.forwarded_headers = value::boolean(text)?,
        "enable-real-ip" => draft.real_ip = value::boolean(text)?,
        "forwarded-for-header" if text.trim().is_empty() => {}
        "forwarded-for-header" => {
            // Closed first: what stands in the usual header may be what clients have written there.
            draft.nobody_believed = true;
            globals.trust.address_header = Some(value::name(text)?);
            draft.nobody_believed = false;
        }
        "proxy-real-ip-cidr" => {
            // Closed first: one bad entry may be the one that was meant to narrow the list.
            draft.real_ip_from.clear();
            draft.real_ip_from = value::networks(text)?;
        }
        "compute-full-forwarded-for" => {
            globals.trust.append_forwarded_for = value::boolean(text)?;
        }
        "use-proxy-protocol" => globals.trust.proxy_protocol = value::boolean(text)?,
        "client-body-timeout"
        | "client-header-timeout"
        | "http2-max-concurrent-streams"
        | "keep-alive"
        | "keep-alive-requests"
        | "large-client-header-buffers" => {
            return clients::set(&mut globals.client_bounds, key, text);
        }
        "load-balance" => globals.balance = value::balance(text)?.unwrap_or_default(),
        "custom-http-errors" => globals.errors.statuses = value::error_statuses(text)?,
        "disable-proxy-intercept-errors" => globals.errors.keeps_answers = value::boolean(text)?,
        "add-headers"
        | "global-allowed-response-headers"
        | "hide-headers"
        | "proxy-set-headers" => return headers::set(&mut globals.headers, key, text),
        "proxy-request-buffering" => globals.collects = switch(text)?,
        "proxy-buffering" => drop(switch(text)?),
        "proxy-buffer-size" | "client-body-buffer-size" => drop(value::size(text)?),
        "proxy-buffers-number" => drop(value::number(text, 1, u32::MAX)?),
        "disable-access-log" => globals.unlogged = value::boolean(text)?,
        "proxy-next-upstream" => {
            globals.retries.conditions = Some(annotation::conditions(text)?);
        }
        "proxy-next-upstream-tries" => {
            globals.retries.tries = Some(value::number(text, 0, u32::MAX)?);
        }
        "proxy-next-upstream-timeout" => {
            globals.retries.timeout = Some(value::number(text, 0, u32::MAX)?);
        }
        "retry-non-idempotent" => globals.retries.non_idempotent = value::boolean(text)?,
        "proxy-connect-timeout" => globals.timeouts.connect = value::seconds(text)?,
        "proxy-read-timeout" => globals.timeouts.read = value::seconds(text)?,
        "proxy-send-timeout" => globals.timeouts.send = value::seconds(text)?,
        "proxy-stream-timeout" => globals.streams.idle = value::duration(text, 1)?,
        "proxy-stream-next-upstream" => draft.next_stream_upstream = value::boolean(text)?,
        "proxy-stream-next-upstream-timeout" => {
            globals.streams.tries_timeout = value::duration(text, 0)?;
        }
        "proxy-stream-next-upstream-tries" => {
            globals.streams.tries = value::number(text, 0, u32::MAX)?;
        }
        "log-format-upstream" => return log_format(text, &mut draft.log_format),
        "log-format-escape-json" => draft.log_as_json = value::boolean(text)?,
        "log-format-escape-none" => draft.log_unescaped = value::boolean(text)?,
        "proxy-stream-responses" => globals.streams.responses = value::number(text, 0, u32::MAX)?,
        key if key.starts_with("global-auth-") => {
            let key = key.strip_prefix("global-auth-").unwrap_or(key);
            return access::ask(&mut draft.asked, key, text);
        }
        _ => return access::set(&mut globals.access, key, text),
    }
    Ok(())
}

/// The line end of a block of YAML is not meant.
fn log_format(text: &str, format: &mut Option<String>) -> Result<(), Fault> {
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Ok(());
    }
    let read = LogFormat {
        text: text.to_owned(),
        escape: LogEscape::default(),
    };
    let unknown: BTreeSet<String> = read
        .parts()
        .into_iter()
        .filter_map(|part| match part {
            LogPart::Unknown(name) => Some(quoted(&format!("${name}"))),
            LogPart::Text(_) | LogPart::Variable(_) => None,
        })
        .collect();
    *format = Some(read.text);
    if unknown.is_empty() {
        return Ok(());
    }
    let unknown: Vec<_> = unknown.into_iter().collect();
    Err(Fault::Partly(format!(
        "there are no such variables, and lines have `-` instead: {}",
        unknown.join(", ")
    )))
}

fn redirect_status(text: &str) -> Result<u16, String> {
    match text.trim() {
        "301" => Ok(301),
        "302" => Ok(302),
        "307" => Ok(307),
        "308" => Ok(308),
        _ => Err("it is none of 301, 302, 307 and 308".to_owned()),
    }
}

fn locations(text: &str) -> Result<Vec<String>, String> {
    value::list(text)
        .map(|location| {
            if location.starts_with('/') {
                Ok(location.to_owned())
            } else {
                Err(format!("{} does not start with `/`", quoted(location)))
            }
        })
        .collect()
}

fn protocols(text: &str, min_version: &mut TlsVersion) -> Result<(), Fault> {
    let versions = tls_names::versions(text)?;
    *min_version = if versions.v1_2 {
        TlsVersion::V1_2
    } else {
        TlsVersion::V1_3
    };
    if !versions.left_out.is_empty() {
        return Err(Fault::Partly(format!(
            "{} is not spoken; the lowest version is TLSv1.{}",
            versions.left_out.join(", "),
            if versions.v1_2 { 2 } else { 3 }
        )));
    }
    if !versions.v1_3 {
        return Err(Fault::Partly(
            "TLSv1.3 cannot be switched off; it is offered as well".to_owned(),
        ));
    }
    Ok(())
}

fn ciphers(text: &str, suites: &mut Vec<String>) -> Result<(), Fault> {
    let read = tls_names::suites(text)?;
    *suites = read.names.iter().copied().map(str::to_owned).collect();
    if read.left_out.is_empty() {
        return Ok(());
    }
    let left_out: Vec<_> = read.left_out.iter().map(|name| quoted(name)).collect();
    Err(Fault::Partly(format!(
        "these suites are not available, the others are used: {}",
        left_out.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_settings_says_what_happens() {
        for setting in setting::all() {
            let read = set(&mut Draft::default(), setting.name, "");
            let known = !matches!(read, Err(Fault::Unknown));
            let acted_on = !matches!(setting.verdict, Verdict::Ignored(_));
            assert_eq!(known, acted_on, "{}", setting.name);
        }
    }
}
