//! Settings about who may pass, and how often.

use std::sync::Arc;

use ipnet::IpNet;
use model::ExternalAuth;

use super::Fault;
use crate::external::{self, ExternalValues};
use crate::settings::Settings;
use crate::value;

/// Settings that decide who may pass: with a value that cannot be read, routes that depend on it are closed.
pub(super) const GUARDS: [&str; 14] = [
    "whitelist-source-range",
    "denylist-source-range",
    "block-cidrs",
    "global-auth-url",
    "global-auth-method",
    "global-auth-signin",
    "global-auth-signin-redirect-param",
    "global-auth-response-headers",
    "global-auth-request-redirect",
    "global-auth-always-set-cookie",
    "global-auth-cache-key",
    "global-auth-cache-duration",
    "global-auth-snippet",
    "no-auth-locations",
];

/// What follows for them.
pub(super) const CONSEQUENCE: &str =
    "routes whose Ingress has no value of its own answer 503 rather than without it";

/// A list of addresses, or that there is one which cannot be read.
pub(crate) type List = Result<Option<Vec<IpNet>>, ()>;

/// What applies to every route unless its Ingress says otherwise.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct GlobalAccess {
    pub(crate) allow: List,
    pub(crate) deny: List,
    /// In addition to what an Ingress denies.
    pub(crate) block: List,
    /// Who is asked about every request, or that it cannot be read who.
    pub(crate) external: Result<Option<Arc<ExternalAuth>>, ()>,
    /// Below these paths nobody has to say who it is.
    pub(crate) open: Vec<String>,
    pub(crate) rate_status: u16,
    pub(crate) concurrent_status: u16,
    /// In KiB per second; 0 is no limit.
    pub(crate) pace: u32,
    pub(crate) pace_after: u32,
}

impl Default for GlobalAccess {
    fn default() -> Self {
        Self {
            allow: Ok(None),
            deny: Ok(None),
            block: Ok(None),
            external: Ok(None),
            open: vec!["/.well-known/acme-challenge".to_owned()],
            rate_status: 503,
            concurrent_status: 503,
            pace: 0,
            pace_after: 0,
        }
    }
}

impl GlobalAccess {
    /// Does it ask for nothing?
    pub(crate) fn is_default(&self) -> bool {
        let lists = [&self.allow, &self.deny, &self.block];
        self.pace == 0 && self.external == Ok(None) && lists.iter().all(|list| **list == Ok(None))
    }
}

impl GlobalAccess {
    /// Is this one of the paths where nobody has to say who it is? Whole segments count; of a regular expression, one
    /// that is as good as a text, since another one could match anything.
    pub(crate) fn is_open(&self, path: &str, regex: bool) -> bool {
        let literal = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'-' | b'_' | b'~')
        };
        if regex && !path.bytes().all(literal) {
            return false;
        }
        self.open.iter().any(|open| {
            let open = open.strip_suffix('/').unwrap_or(open);
            path.strip_prefix(open)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}

/// What the ConfigMap says about the server that is asked, as far as it has been read.
#[derive(Debug, Default)]
pub(super) struct Asked {
    values: ExternalValues,
    broken: bool,
}

impl Asked {
    /// All of it together.
    pub(super) fn together(&self, settings: &Settings) -> Result<Option<Arc<ExternalAuth>>, ()> {
        if self.broken {
            return Err(());
        }
        Ok(self.values.together(settings))
    }
}

/// Reads what begins with `global-auth-`.
pub(super) fn ask(asked: &mut Asked, key: &str, text: &str) -> Result<(), Fault> {
    let values = &mut asked.values;
    let read = match key {
        _ if text.trim().is_empty() => Ok(()),
        "url" => external::url(text).map(|url| values.url = Some(url)),
        "method" => external::method(text).map(|method| values.method = Some(method)),
        "signin" => external::signin(text).map(|url| values.signin = Some(url)),
        "signin-redirect-param" => value::name(text).map(|name| values.signin_param = Some(name)),
        "response-headers" => external::names(text).map(|names| values.response_headers = names),
        "request-redirect" => value::url(text).map(|url| values.request_redirect = Some(url)),
        "always-set-cookie" => value::boolean(text).map(|always| values.always_set_cookie = always),
        "cache-key" => external::cache_key(text).map(|key| values.cache_key = Some(key)),
        "cache-duration" => {
            external::durations(text).map(|durations| values.cache_durations = Some(durations))
        }
        "snippet" => Err("raw configuration is never executed".to_owned()),
        _ => return Err(Fault::Unknown),
    };
    asked.broken |= read.is_err();
    Ok(read?)
}

pub(super) fn set(access: &mut GlobalAccess, key: &str, text: &str) -> Result<(), Fault> {
    match key {
        "whitelist-source-range" => list(&mut access.allow, text)?,
        "denylist-source-range" => list(&mut access.deny, text)?,
        "block-cidrs" => list(&mut access.block, text)?,
        "no-auth-locations" => {
            // Closed first: with what cannot be read, no path is open.
            access.open.clear();
            access.open = super::locations(text)?;
        }
        "limit-req-status-code" => access.rate_status = status(text)?,
        "limit-conn-status-code" => access.concurrent_status = status(text)?,
        "limit-rate" => access.pace = value::number(text, 0, u32::MAX)?,
        "limit-rate-after" => access.pace_after = value::number(text, 0, u32::MAX)?,
        _ => return Err(Fault::Unknown),
    }
    Ok(())
}

fn list(list: &mut List, text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Ok(());
    }
    // Closed first.
    *list = Err(());
    *list = Ok(Some(value::networks(text)?));
    Ok(())
}

fn status(text: &str) -> Result<u16, String> {
    let status = value::number(text, 400, 599)?;
    u16::try_from(status).map_err(|error| error.to_string())
}
