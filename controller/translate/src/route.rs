//! A path of an Ingress → a route, with what its annotations ask for.

mod redirects;

use std::sync::Arc;

use model::{
    Action, Affinity, BackendId, Canary, CanaryHeader, CanaryValue, Cors, ErrorPages, Filter,
    HashBy, HeaderChange, HttpsRedirect, ListenerSelector, MOST_COLLECTED, Origin, PathMatch,
    Redirect, ResponseRewrite, Retry, Rewrite, Route, RouteMatch, RouteOptions, Timeouts,
    WeightedBackend,
};

pub(crate) use self::redirects::{app_root, to_host, with_slash};
use crate::NamespacedName;
use crate::access;
use crate::annotation::{self, Annotations, Sessions, Traffic};
use crate::configmap::{GlobalRetries, Globals, ServerField};
use crate::headers::Fields;
use crate::ingress::{Entry, PathPart, Target};
use crate::service;
use crate::settings::Compat;

/// Where a route stands.
pub(crate) struct Place<'a> {
    /// Some TLS entry covers the host.
    pub(crate) has_certificate: bool,
    /// The paths of the host are regular expressions.
    pub(crate) regex: bool,
    pub(crate) globals: &'a Globals,
}

impl Place<'_> {
    /// Is this path a regular expression? By the specification only one of type `ImplementationSpecific` can be.
    fn is_regex(&self, entry: &Entry, path: &PathPart) -> bool {
        match self.globals.compat {
            Some(Compat::Strict) => path.free && entry.annotations.wants_regex(),
            Some(Compat::Nginx) | None => self.regex,
        }
    }
}

/// What ingress-nginx sends where `cors-allow-methods` is absent.
const CORS_METHODS: &str = "GET, PUT, POST, DELETE, PATCH, OPTIONS";
/// The same for `cors-allow-headers`.
const CORS_HEADERS: &str = "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization";
/// The same for `cors-max-age`.
const CORS_MAX_AGE: u32 = 1_728_000;

/// The route of a path.
///
/// `access` is what guards it, or why that cannot be done.
pub(crate) fn route(
    entry: &Entry,
    path: &PathPart,
    access: &Result<Vec<Filter>, &'static str>,
    place: &Place<'_>,
) -> Route {
    let annotations = &entry.annotations;
    let globals = place.globals;
    let closed = annotations
        .closed
        .or_else(|| access.as_ref().err().copied());
    let redirect = redirect(annotations).filter(|_| closed.is_none());
    let action = match (&path.target, redirect) {
        _ if closed.is_some() => unavailable(closed.unwrap_or_default()),
        (_, Some(redirect)) => Action::Redirect(Box::new(redirect)),
        (Target::Backend(id), None) => Action::Forward(vec![WeightedBackend {
            backend: id.clone(),
            weight: 1,
        }]),
        (Target::Unavailable(reason), None) => unavailable(reason),
    };
    let mut filters = filters(annotations, place.has_certificate, globals);
    if matches!(action, Action::Redirect(_)) {
        // It comes before the one to https.
        filters.retain(|filter| !matches!(filter, Filter::HttpsRedirect(_)));
    }
    let regex = place.is_regex(entry, path);
    let open = is_open(path, regex, globals);
    match access {
        Ok(access) if open => filters.extend(access::without_authentication(access)),
        Ok(access) => filters.extend(access.iter().cloned()),
        Err(_) => {}
    }
    if matches!(action, Action::Redirect(_)) {
        open_without_tls(&mut filters);
    }
    if closed.is_some() {
        // It is closed for all alike.
        filters.retain(|filter| !matches!(filter, Filter::ClientCertificate(_)));
    }
    if closed.is_none() {
        if let Some(policy) = &annotations.policy {
            filters.extend(policy.headers());
        }
        filters.splice(0..0, cors(annotations));
        // Before anything else, as `if` and `return` of nginx.
        let policy = annotations.policy.as_ref();
        filters.splice(0..0, policy.and_then(|policy| policy.refusals()));
        filters.splice(0..0, globals.access.refusals());
        if !matches!(action, Action::Redirect(_)) {
            let policy = annotations.policy.as_ref();
            filters.extend(policy.and_then(|policy| policy.paths()));
        }
        filters.extend(rewrite(annotations, path));
        filters.extend(upstream_host(entry, path));
        filters.extend(response_rewrite(annotations));
    }
    order(&mut filters);
    Route {
        matches: RouteMatch::path(if regex {
            PathMatch::Regex(expression(path))
        } else {
            path.path.clone()
        }),
        listeners: ListenerSelector::All,
        filters: filters.into(),
        action,
        timeouts: Timeouts {
            connect: annotations
                .connect_timeout
                .unwrap_or(globals.timeouts.connect),
            read: annotations.read_timeout.unwrap_or(globals.timeouts.read),
            send: annotations.send_timeout.unwrap_or(globals.timeouts.send),
        },
        body_limit: match annotations.body_limit {
            Some(0) => None,
            Some(limit) => Some(limit),
            None => globals.body_limit,
        },
        options: options(entry, path, regex, globals).into(),
        origin: Origin::shared(&entry.object, &path.field),
    }
}

/// A client without a certificate learns nothing else, but over plain HTTP that it has to use https.
fn order(filters: &mut [Filter]) {
    if filters
        .iter()
        .any(|filter| matches!(filter, Filter::ClientCertificate(_)))
    {
        filters.sort_by_key(|filter| {
            if matches!(filter, Filter::HttpsRedirect(_)) {
                0
            } else if matches!(filter, Filter::ClientCertificate(_)) {
                1
            } else {
                2
            }
        });
    }
}

/// What redirects shows nothing of a backend.
fn open_without_tls(filters: &mut [Filter]) {
    for filter in filters {
        if let Filter::ClientCertificate(wanted) = filter {
            *wanted = Arc::new(access::without_tls(wanted));
        }
    }
}

/// Does nobody have to say who it is on this path?
fn is_open(path: &PathPart, regex: bool, globals: &Globals) -> bool {
    let text = match &path.path {
        PathMatch::Exact(text) | PathMatch::Prefix(text) if !regex => text.as_str(),
        PathMatch::Exact(_) | PathMatch::Prefix(_) | PathMatch::Regex(_) => written(path),
    };
    let regex = regex || matches!(path.path, PathMatch::Regex(_));
    globals.access.is_open(text, regex)
}

fn unavailable(reason: &str) -> Action {
    Action::Respond {
        status: 503,
        reason: reason.to_owned(),
    }
}

/// Plain HTTP goes to https where the host has a certificate, or where that is forced. `Strict-Transport-Security` goes
/// with every response over TLS, as with ingress-nginx: a client believes it only where it believes the certificate.
pub(crate) fn filters(
    annotations: &Annotations,
    has_certificate: bool,
    globals: &Globals,
) -> Vec<Filter> {
    let mut filters = Vec::new();
    let wanted = annotations.ssl_redirect.unwrap_or(globals.ssl_redirect);
    let forced = annotations
        .force_ssl_redirect
        .unwrap_or(globals.force_ssl_redirect);
    if forced || (wanted && has_certificate) {
        filters.push(Filter::HttpsRedirect(HttpsRedirect {
            status: globals.redirect_status,
            except: globals.redirect_except.clone(),
        }));
    }
    if let Some(hsts) = &globals.hsts {
        filters.push(Filter::Hsts(hsts.clone()));
    }
    let change = |fields: &Fields| HeaderChange {
        set: fields.clone(),
        ..HeaderChange::default()
    };
    if !globals.headers.hidden.is_empty() {
        filters.push(Filter::ResponseHeaders(HeaderChange {
            remove: globals.headers.hidden.clone(),
            ..HeaderChange::default()
        }));
    }
    if !globals.headers.request.is_empty() {
        filters.push(Filter::RequestHeaders(change(&globals.headers.request)));
    }
    if !globals.headers.response.is_empty() {
        filters.push(Filter::ResponseHeaders(change(&globals.headers.response)));
    }
    let name = || "Server".to_owned();
    match globals.server {
        ServerField::Backend => {}
        ServerField::Nobody => filters.push(Filter::ResponseHeaders(HeaderChange {
            remove: vec![name()],
            ..HeaderChange::default()
        })),
        ServerField::Own => filters.push(Filter::ResponseHeaders(HeaderChange {
            set: vec![(name(), "lockgate".to_owned())],
            ..HeaderChange::default()
        })),
    }
    filters
}

/// The path as a regular expression without regard to case; the end is free.
fn expression(path: &PathPart) -> String {
    format!("(?i){}", written(path))
}

fn written(path: &PathPart) -> &str {
    match (&path.written, &path.path) {
        (Some(written), _) => written,
        (None, PathMatch::Regex(text)) => text,
        (None, PathMatch::Exact(path) | PathMatch::Prefix(path)) => path.as_str(),
    }
}

fn rewrite(annotations: &Annotations, path: &PathPart) -> Option<Filter> {
    let routing = annotations.routing.as_ref()?;
    let target = routing.rewrite.as_ref()?;
    if target == written(path) {
        return None;
    }
    Some(Filter::Rewrite(Box::new(Rewrite {
        pattern: expression(path),
        target: target.clone(),
        prefix: routing.prefix.clone(),
    })))
}

fn redirect(annotations: &Annotations) -> Option<Redirect> {
    let routing = annotations.routing.as_ref()?;
    let (location, status) = match (&routing.temporal, &routing.permanent) {
        (Some(url), _) => (url, routing.temporal_code.unwrap_or(302)),
        (None, Some(url)) => (url, routing.permanent_code.unwrap_or(301)),
        (None, None) => return None,
    };
    Some(Redirect {
        status,
        location: Some(location.clone()),
        ..Redirect::default()
    })
}

fn upstream_host(entry: &Entry, path: &PathPart) -> Option<Filter> {
    let text = entry.annotations.routing.as_ref()?.upstream_host.as_ref()?;
    let name = &entry.rank.name;
    let (service, port) = match &path.target {
        Target::Backend(BackendId { service, port, .. }) => (&**service, &**port),
        Target::Unavailable(_) => ("", ""),
    };
    // What is known already; the rest is up to the request.
    let mut text = text.clone();
    for (variable, value) in [
        ("namespace", &*name.namespace),
        ("ingress_name", &*name.name),
        ("service_name", service),
        ("service_port", port.split('+').next().unwrap_or_default()),
    ] {
        text = text
            .replace(&format!("${{{variable}}}"), value)
            .replace(&format!("${variable}"), value);
    }
    Some(Filter::UpstreamHost(text))
}

fn response_rewrite(annotations: &Annotations) -> Option<Filter> {
    let traffic = annotations.traffic.as_ref()?;
    let change = ResponseRewrite {
        location: traffic
            .redirect_from
            .clone()
            .zip(traffic.redirect_to.clone()),
        cookie_domain: traffic.cookie_domain.clone(),
        cookie_path: traffic.cookie_path.clone(),
    };
    let asked = change != ResponseRewrite::default();
    asked.then(|| Filter::ResponseRewrite(Box::new(change)))
}

fn cors(annotations: &Annotations) -> Option<Filter> {
    let cors = annotations.cors.as_ref().filter(|cors| cors.enabled)?;
    let text =
        |value: &Option<String>, default: &str| value.clone().unwrap_or_else(|| default.to_owned());
    Some(Filter::Cors(Box::new(Cors {
        origins: cors.origins.clone().unwrap_or_else(|| vec!["*".to_owned()]),
        methods: text(&cors.methods, CORS_METHODS),
        headers: text(&cors.headers, CORS_HEADERS),
        expose: cors.expose.clone(),
        credentials: cors.credentials.unwrap_or(true),
        max_age: cors.max_age.unwrap_or(CORS_MAX_AGE),
    })))
}

fn options(entry: &Entry, path: &PathPart, regex: bool, globals: &Globals) -> RouteOptions {
    let sessions = entry.annotations.sessions.as_deref();
    let mut options = RouteOptions {
        balance: globals.balance,
        affinity: sessions.and_then(|sessions| affinity(sessions, path, regex)),
        hash_by: sessions.and_then(|sessions| {
            let key = sessions.hash_by.clone()?;
            let subset = sessions.subset.then(|| sessions.subset_size.unwrap_or(3));
            let bound = sessions.bound;
            Some(HashBy { key, subset, bound })
        }),
        errors: errors(entry, globals),
        mirror: entry.mirror.as_deref().cloned(),
        ..RouteOptions::default()
    };
    let traffic = entry.annotations.traffic.as_deref();
    options.retry = retry(traffic, &globals.retries);
    options.unlogged = globals.unlogged;
    let collects = traffic.and_then(|traffic| traffic.collects);
    if collects.unwrap_or(globals.collects) {
        options.collect = MOST_COLLECTED;
    }
    let Some(traffic) = traffic else {
        return options;
    };
    options.deadlines = traffic.deadlines;
    options.backup = own_default_backend(entry);
    options.balance = traffic.balance.unwrap_or(options.balance);
    options.slow_start = traffic.slow_start;
    options.unlogged |= traffic.unlogged;
    options
}

/// When another endpoint is asked, where anybody says something about that.
fn retry(own: Option<&Traffic>, global: &GlobalRetries) -> Option<Retry> {
    let conditions = own.and_then(|own| own.retry.as_ref());
    let conditions = conditions.or(global.conditions.as_ref());
    let tries = own.and_then(|own| own.tries).or(global.tries);
    let timeout = own.and_then(|own| own.tries_timeout).or(global.timeout);
    if conditions.is_none() && tries.is_none() && timeout.is_none() && !global.non_idempotent {
        return None;
    }
    let mut retry = conditions.cloned().unwrap_or_default();
    retry.tries = tries.unwrap_or(retry.tries);
    retry.timeout_seconds = timeout.unwrap_or(retry.timeout_seconds);
    retry.non_idempotent |= global.non_idempotent;
    Some(retry)
}

fn own_default_backend(entry: &Entry) -> Option<BackendId> {
    let name = entry
        .annotations
        .traffic
        .as_ref()?
        .default_backend
        .as_ref()?;
    let namespace = &entry.rank.name.namespace;
    Some(service::first_port(&NamespacedName::new(namespace, name)))
}

/// What makes error pages: the default backend of the Ingress, else the one for all.
fn errors(entry: &Entry, globals: &Globals) -> Option<ErrorPages> {
    let traffic = entry.annotations.traffic.as_deref();
    let own = traffic.and_then(|traffic| traffic.error_statuses.as_ref());
    let statuses = own.unwrap_or(&globals.errors.statuses);
    if statuses.is_empty() {
        return None;
    }
    Some(ErrorPages {
        statuses: statuses.clone(),
        backend: own_default_backend(entry).or_else(|| globals.errors.backend.clone())?,
        keeps_answers: traffic
            .and_then(|traffic| traffic.keeps_answers)
            .unwrap_or(globals.errors.keeps_answers),
    })
}

/// Users who stay at one endpoint. The path of the cookie is that of the rule; a regular expression is none.
fn affinity(sessions: &Sessions, path: &PathPart, regex: bool) -> Option<Affinity> {
    if !sessions.cookie {
        return None;
    }
    let of_rule = match &path.path {
        PathMatch::Exact(path) | PathMatch::Prefix(path)
            if !regex && !path.as_str().contains(';') =>
        {
            path.as_str()
        }
        PathMatch::Exact(_) | PathMatch::Prefix(_) | PathMatch::Regex(_) => "/",
    };
    let name = sessions.name.as_deref().unwrap_or("INGRESSCOOKIE");
    Some(Affinity {
        cookie: name.to_owned(),
        mode: sessions.mode,
        path: sessions.path.clone().unwrap_or_else(|| of_rule.to_owned()),
        domain: sessions.domain.clone(),
        same_site: sessions.same_site,
        same_site_by_browser: sessions.same_site_by_browser,
        secure: sessions.secure,
        expires: sessions.expires,
        max_age: sessions.max_age,
        change_on_failure: sessions.change_on_failure,
        without_canaries: sessions.without_canaries,
    })
}

/// The share that a canary asks for. Nothing where it cannot answer.
pub(crate) fn canary(entry: &Entry, path: &PathPart) -> Option<Canary> {
    let annotation::Canary {
        enabled: _,
        weight,
        total,
        header,
        header_value,
        header_pattern,
        cookie,
    } = entry.annotations.canary.as_deref()?;
    let Target::Backend(backend) = &path.target else {
        return None;
    };
    let value = match (header_value, header_pattern) {
        (Some(value), _) => CanaryValue::Exact(value.clone()),
        (None, Some(pattern)) => CanaryValue::Regex(pattern.clone()),
        (None, None) => CanaryValue::Word,
    };
    Some(Canary {
        backend: backend.clone(),
        weight: *weight,
        // As in ingress-nginx, a smaller total counts for nothing.
        total: total.filter(|total| *total >= 100).unwrap_or(100),
        header: header.as_ref().map(|name| CanaryHeader {
            name: name.clone(),
            value,
        }),
        cookie: cookie.clone(),
    })
}
