//! What annotations and the ConfigMap together say about who may pass, and how often.

use std::sync::Arc;

use model::{Access, BasicAuth, ClientCertificate, ClientLimits, ExternalAuth, Filter};

use crate::Snapshot;
use crate::annotation::AccessValues;
use crate::backend_tls;
use crate::configmap::Globals;
use crate::headers;
use crate::ingress::Entry;
use crate::ingress::auth::BasicPart;

/// Why a route is closed by a setting that guards all of them.
const INVALID_SETTING: &str = "invalid-setting";

/// Why a route is closed by a setting that nothing here can do.
const UNSUPPORTED_SETTING: &str = "unsupported-setting";

/// Why a route is closed by a Secret that it needs.
pub(crate) const INVALID_SECRET: &str = "invalid-secret";

/// The filters of the routes of one Ingress, or why they are closed.
pub(crate) fn of(
    entry: &Entry,
    globals: &Globals,
    snapshot: &Snapshot,
) -> Result<Vec<Filter>, &'static str> {
    if globals.access.firewall && !entry.annotations.without_firewall {
        return Err(UNSUPPORTED_SETTING);
    }
    let mut filters = match &entry.annotations.access {
        Some(own) => {
            let basic = entry.basic.as_ref().map(|part| basic(part, snapshot));
            let external = external(entry, globals, snapshot)?;
            filters(
                own,
                basic.transpose()?,
                external.as_ref(),
                &entry.rank.name.to_string(),
                globals,
            )?
        }
        None if globals.access.is_default() => Vec::new(),
        None => filters(&AccessValues::default(), None, None, "", globals)?,
    };
    if let Some(part) = &entry.backend_tls {
        let tls = backend_tls::of(part, snapshot).map_err(|_| INVALID_SECRET)?;
        filters.push(Filter::BackendTls(Arc::new(tls)));
    }
    let custom = headers::custom(entry, globals, snapshot);
    filters.extend(custom.map_err(|_| headers::INVALID_CONFIGMAP)?);
    Ok(filters)
}

/// The filters of a route that no Ingress asks for.
pub(crate) fn of_all(globals: &Globals) -> Result<Vec<Filter>, &'static str> {
    if globals.access.firewall {
        return Err(UNSUPPORTED_SETTING);
    }
    filters(&AccessValues::default(), None, None, "", globals)
}

/// Another server that is asked, with the headers for it.
fn external(
    entry: &Entry,
    globals: &Globals,
    snapshot: &Snapshot,
) -> Result<Option<Arc<ExternalAuth>>, &'static str> {
    let Some(external) = &entry.external else {
        return Ok(None);
    };
    let headers = headers::asked(entry, globals, snapshot);
    let mut headers = headers.map_err(|_| headers::INVALID_CONFIGMAP)?;
    if headers.is_empty() {
        return Ok(Some(Arc::clone(external)));
    }
    // What is said twice is as the snippet says.
    headers.extend(external.headers.iter().cloned());
    Ok(Some(Arc::new(ExternalAuth {
        headers,
        ..ExternalAuth::clone(external)
    })))
}

fn basic(part: &BasicPart, snapshot: &Snapshot) -> Result<BasicAuth, &'static str> {
    let users = snapshot.users(&part.secret, part.form);
    Ok(BasicAuth {
        realm: part
            .realm
            .clone()
            .unwrap_or_else(|| "Authentication Required".to_owned()),
        users: Arc::clone(users.map_err(|_| INVALID_SECRET)?),
    })
}

fn filters(
    own: &AccessValues,
    basic: Option<BasicAuth>,
    external: Option<&Arc<ExternalAuth>>,
    zone: &str,
    globals: &Globals,
) -> Result<Vec<Filter>, &'static str> {
    let global = &globals.access;
    if global.is_unreadable() {
        return Err(INVALID_SETTING);
    }
    let external = match (external, &global.external) {
        (Some(own), _) => Some(Arc::clone(own)),
        (None, _) if own.without_global => None,
        (None, Ok(global)) => global.clone(),
        (None, Err(())) => return Err(INVALID_SETTING),
    };
    let or_global = |own: Option<&Vec<_>>, global: &Result<Option<Vec<_>>, ()>| match (own, global)
    {
        (Some(own), _) => Ok(Some(own.clone())),
        (None, Ok(global)) => Ok(global.clone()),
        (None, Err(())) => Err(INVALID_SETTING),
    };
    let allow = or_global(own.allow.as_ref().or(own.whitelist.as_ref()), &global.allow)?;
    let mut deny = or_global(own.deny.as_ref(), &global.deny)?.unwrap_or_default();
    // No Ingress can take these back.
    deny.extend(global.block.iter().flatten().flatten());
    let access = Access {
        deny,
        allow,
        satisfy_any: own.satisfy_any,
        basic,
        external,
        limits: limits(own, zone, globals),
    };
    let mut filters = Vec::new();
    if !access.is_empty() {
        filters.push(Filter::Access(Arc::new(access)));
    }
    let pace = (global.pace, global.pace_after);
    filters.extend(own.pace(pace).map(Filter::Pace));
    Ok(filters)
}

fn limits(own: &AccessValues, zone: &str, globals: &Globals) -> Option<ClientLimits> {
    let some = |limit: u32| (limit > 0).then_some(limit);
    let limits = ClientLimits {
        zone: zone.into(),
        per_second: some(own.per_second),
        per_minute: some(own.per_minute),
        burst: own.burst.unwrap_or(5),
        concurrent: some(own.concurrent),
        except: own.unlimited.clone(),
        rate_status: globals.access.rate_status,
        concurrent_status: globals.access.concurrent_status,
    };
    let any = [limits.per_second, limits.per_minute, limits.concurrent];
    any.iter().any(Option::is_some).then_some(limits)
}

/// The same for a path that shows nothing of a backend over plain HTTP.
pub(crate) fn without_tls(wanted: &ClientCertificate) -> ClientCertificate {
    ClientCertificate {
        open_without_tls: true,
        ..wanted.clone()
    }
}

/// The same filters for a path where nobody has to say who it is. Addresses and rates count there as well.
pub(crate) fn without_authentication(filters: &[Filter]) -> Vec<Filter> {
    let open = |filter: &Filter| {
        if let Filter::ClientCertificate(wanted) = filter {
            return Some(Filter::ClientCertificate(Arc::new(without_tls(wanted))));
        }
        let Filter::Access(access) = filter else {
            return Some(filter.clone());
        };
        let access = Access {
            basic: None,
            external: None,
            ..Access::clone(access)
        };
        (!access.is_empty()).then(|| Filter::Access(Arc::new(access)))
    };
    filters.iter().filter_map(open).collect()
}
