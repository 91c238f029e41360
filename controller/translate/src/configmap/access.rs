//! Settings about who may pass, and how often.

use ipnet::IpNet;

use super::Fault;
use crate::value;

/// Settings that decide who may pass: with a value that cannot be read, routes that depend on it are closed.
pub(super) const GUARDS: [&str; 4] = [
    "whitelist-source-range",
    "denylist-source-range",
    "block-cidrs",
    "global-auth-url",
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
    /// Somebody is to be asked about every request, which cannot be done: nothing may pass.
    pub(crate) unasked: bool,
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
            unasked: false,
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
        self.pace == 0 && !self.unasked && lists.iter().all(|list| **list == Ok(None))
    }
}

pub(super) fn set(access: &mut GlobalAccess, key: &str, text: &str) -> Result<(), Fault> {
    match key {
        "whitelist-source-range" => list(&mut access.allow, text)?,
        "denylist-source-range" => list(&mut access.deny, text)?,
        "block-cidrs" => list(&mut access.block, text)?,
        "global-auth-url" if text.trim().is_empty() => {}
        "global-auth-url" => {
            access.unasked = true;
            return Err(Fault::Invalid(
                "asking another server about a request is not supported yet".to_owned(),
            ));
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
