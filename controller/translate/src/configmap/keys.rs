//! Key by key: what each value of the ConfigMap says.

use std::collections::BTreeSet;

use model::{LogEscape, LogFormat, LogPart, TlsVersion};

use super::{Draft, Fault, access, clients, headers};
use crate::annotation::{self, switch};
use crate::report::quoted;
use crate::tls_names;
use crate::value;

/// Takes one value.
pub(super) fn set(draft: &mut Draft, key: &str, text: &str) -> Result<(), Fault> {
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

pub(super) fn locations(text: &str) -> Result<Vec<String>, String> {
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
