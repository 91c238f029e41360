//! What is served, for people: the debug page and `lockgate render`.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::net::SocketAddr;

use jiff::Timestamp;
use model::{
    BackendId, BackendProtocol, EndpointSet, EnoughCertificate, Filter, ListenerSelector,
    RouteMatch, StreamRoute, Streams, TextMatch,
};
use serde::Serialize;
use table::{
    ActionDescription, BackendDescription, Description, RouteDescription, Table, TlsDescription,
};

use crate::columns::Columns;
use crate::problems::Entry;

/// Everything that is served, and what is wrong with it.
#[derive(Debug, Serialize)]
pub(crate) struct Overview {
    /// The number of the table.
    generation: u64,
    #[serde(flatten)]
    table: Description,
    /// The live state of endpoints that requests have gone to.
    live: Vec<Endpoint>,
    problems: Vec<Entry>,
}

/// The live state of one endpoint.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Endpoint {
    pub(crate) backend: BackendId,
    pub(crate) address: SocketAddr,
    /// Requests that it is working on.
    pub(crate) in_flight: u32,
    /// It did not answer, and has not proved to be well since.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) ejected: bool,
    /// It fails the checks of its health.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) unhealthy: bool,
    /// Others are preferred for now.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) avoided: bool,
}

impl Endpoint {
    /// What is wrong with it, if anything is.
    fn trouble(&self) -> Option<&'static str> {
        match (self.unhealthy, self.ejected, self.avoided) {
            (true, _, true) => Some("unhealthy"),
            (true, _, false) => Some("unhealthy, but used"),
            (false, true, true) => Some("ejected"),
            (false, true, false) => Some("ejected, but used"),
            (false, false, true) => Some("avoided"),
            (false, false, false) => None,
        }
    }
}

impl Overview {
    pub(crate) fn new(table: &Table, live: Vec<Endpoint>, problems: Vec<Entry>) -> Self {
        Self {
            generation: table.generation(),
            table: table.describe(),
            live,
            problems,
        }
    }
}

impl Display for Overview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            generation,
            table,
            live,
            problems,
        } = self;
        let Description {
            listeners: _, // each route names its own
            hosts,
            fallback,
            backends,
            tls,
            default_tls,
            certificates,
            trust: _, // settings, not routes
            log_format: _,
            client_bounds: _,
            streams,
        } = table;
        writeln!(f, "Generation {generation}\n")?;

        let mut rows = Columns::new(["HOST", "MATCHES", "ANSWERED BY", "ASKED FOR IN"]);
        for (host, routes) in hosts {
            for route in routes {
                rows.push([
                    host.to_string(),
                    matches(route),
                    answer(route),
                    route.origin.to_string(),
                ]);
            }
        }
        let (answered, origin) = match fallback {
            Some(route) => (answer(route), route.origin.to_string()),
            None => ("404".to_owned(), String::new()),
        };
        rows.push(["(any other)".to_owned(), String::new(), answered, origin]);
        writeln!(f, "{rows}")?;

        let live: BTreeMap<(&BackendId, SocketAddr), &Endpoint> = live
            .iter()
            .map(|endpoint| ((&endpoint.backend, endpoint.address), endpoint))
            .collect();
        let mut rows = Columns::new(["BACKEND", "PROTOCOL", "ENDPOINT", "STATE", "IN FLIGHT"]);
        for (id, backend) in backends {
            push_backend(&mut rows, id, backend.as_ref(), &live);
        }
        writeln!(f, "{rows}")?;

        if !streams.is_empty() {
            writeln!(f, "{}", passed_on(streams))?;
        }

        let mut rows = Columns::new(["SERVER NAME", "CERTIFICATE", "POLICY"]);
        let defaults = default_tls
            .iter()
            .map(|tls| ("(any other)".to_owned(), tls));
        for (name, tls) in tls
            .iter()
            .map(|(name, tls)| (name.to_string(), tls))
            .chain(defaults)
        {
            rows.push([name, served_certificates(tls), policy(tls)]);
        }
        writeln!(f, "{rows}")?;

        let mut rows = Columns::new(["CERTIFICATE", "EXPIRES", "KEY", "NAMES"]);
        for (id, certificate) in certificates {
            let expires = if certificate.usable {
                day(certificate.not_after)
            } else {
                "cannot be used".to_owned()
            };
            let key = format!("{:?}", certificate.algorithm);
            rows.push([id.to_string(), expires, key, certificate.names.join(" ")]);
        }
        writeln!(f, "{rows}")?;

        if problems.is_empty() {
            return writeln!(f, "No problems.");
        }
        writeln!(f, "PROBLEMS ({})", problems.len())?;
        problems
            .iter()
            .try_for_each(|problem| writeln!(f, "{problem}"))
    }
}

/// What is passed on unread, and where to.
fn passed_on(streams: &Streams) -> Columns<4> {
    let mut rows = Columns::new(["PASSED ON", "TO", "PROXY PROTOCOL", "ASKED FOR IN"]);
    let mut push = |entrance: String, route: &StreamRoute| {
        let proxy = match (route.proxy_in, route.proxy_out) {
            (true, true) => "expected and sent",
            (true, false) => "expected",
            (false, true) => "sent",
            (false, false) => "",
        };
        let origin = route.origin.to_string();
        rows.push([
            entrance,
            route.backend.to_string(),
            proxy.to_owned(),
            origin,
        ]);
    };
    for (port, route) in &streams.tcp {
        push(format!("TCP port {port}"), route);
    }
    for (port, route) in &streams.udp {
        push(format!("UDP port {port}"), route);
    }
    for (host, route) in &streams.hosts {
        push(format!("TLS for {host}"), route);
    }
    rows
}

fn push_backend(
    rows: &mut Columns<5>,
    id: &BackendId,
    backend: Option<&BackendDescription>,
    live: &BTreeMap<(&BackendId, SocketAddr), &Endpoint>,
) {
    let mut push = |protocol: &str, endpoint: String, state: &str, in_flight: String| {
        rows.push([
            id.to_string(),
            protocol.to_owned(),
            endpoint,
            state.to_owned(),
            in_flight,
        ]);
    };
    let Some(BackendDescription {
        protocol,
        endpoints,
        health: _,
    }) = backend
    else {
        return push("", "none".to_owned(), "unknown backend", String::new());
    };
    let protocol = match protocol {
        BackendProtocol::Http1 => "http",
        BackendProtocol::H2c => "h2c",
        BackendProtocol::Https => "https",
        BackendProtocol::Auto => "as the client",
    };
    match &**endpoints {
        EndpointSet::Addresses(addresses) if addresses.is_empty() => {
            push(protocol, "none".to_owned(), "answers 503", String::new());
        }
        EndpointSet::Addresses(addresses) => {
            for endpoint in addresses {
                let state = if endpoint.terminating {
                    "terminating"
                } else if endpoint.far {
                    "ready, far"
                } else {
                    "ready"
                };
                let live = live.get(&(id, endpoint.address));
                let in_flight = live.map_or(0, |live| live.in_flight);
                let trouble = live.and_then(|live| live.trouble());
                push(
                    protocol,
                    endpoint.address.to_string(),
                    trouble.unwrap_or(state),
                    in_flight.to_string(),
                );
            }
        }
        EndpointSet::Dns { host, port } => {
            push(
                protocol,
                format!("{host}:{port}"),
                "resolved when used",
                String::new(),
            );
        }
        EndpointSet::Invalid(reason) => push(protocol, "none".to_owned(), reason, String::new()),
    }
}

/// For example `= /login, POST, header x-a: b`.
fn matches(route: &RouteDescription) -> String {
    let RouteMatch {
        path,
        method,
        headers,
        query,
    } = &route.matches;
    let mut parts = vec![path.to_string()];
    parts.extend(method.clone());
    parts.extend(
        headers
            .iter()
            .map(|of| format!("header {}: {}", of.name, text(&of.value))),
    );
    parts.extend(
        query
            .iter()
            .map(|of| format!("query {}={}", of.name, text(&of.value))),
    );
    if let ListenerSelector::Only(names) = &route.listeners {
        let names: Vec<&str> = names.iter().map(model::ListenerName::as_str).collect();
        parts.push(format!("only {}", names.join(" ")));
    }
    parts.join(", ")
}

fn text(value: &TextMatch) -> String {
    match value {
        TextMatch::Exact(text) => text.clone(),
        TextMatch::Regex(pattern) => format!("~ {pattern}"),
    }
}

/// For example `https redirect (308), shop/web:80`.
fn answer(route: &RouteDescription) -> String {
    let filters = route.filters.iter().map(|filter| match filter {
        Filter::Access(access) => {
            let lists = usize::from(!access.deny.is_empty()) + usize::from(access.allow.is_some());
            let basic = if access.basic.is_some() {
                ", name and password"
            } else {
                ""
            };
            let limits = if access.limits.is_some() {
                ", limits"
            } else {
                ""
            };
            format!("access ({lists} address lists{basic}{limits})")
        }
        Filter::ClientCertificate(wanted) => {
            match wanted.asked.as_ref().map(|asked| asked.enough) {
                Some(EnoughCertificate::Good) => "client certificate".to_owned(),
                Some(EnoughCertificate::GoodOrNone) => "client certificate, if any".to_owned(),
                Some(EnoughCertificate::AnyAuthority) => "any client certificate".to_owned(),
                None => "no client certificate".to_owned(),
            }
        }
        Filter::BackendTls(tls) => match (&tls.client, &tls.authorities, &tls.limits) {
            (_, Some(_), None) => "verified TLS".to_owned(),
            (_, Some(_), Some(_)) => "verified, narrowed TLS".to_owned(),
            (Some(_), None, _) => "TLS with a client certificate".to_owned(),
            (None, None, Some(_)) => "narrowed TLS".to_owned(),
            (None, None, None) => "TLS with a name".to_owned(),
        },
        Filter::Deny(rules) => format!("refusals ({})", rules.len()),
        Filter::PathRules(rules) => format!("rules for paths ({})", rules.len()),
        Filter::Pace(pace) => format!("pace ({} bytes per second)", pace.bytes_per_second),
        Filter::HttpsRedirect(redirect) => format!("https redirect ({})", redirect.status),
        Filter::Hsts(hsts) => format!("HSTS ({} s)", hsts.max_age),
        Filter::RequestHeaders(_) => "request headers".to_owned(),
        Filter::ResponseHeaders(_) => "response headers".to_owned(),
        Filter::Cors(_) => "CORS".to_owned(),
        Filter::Rewrite(rewrite) => format!("rewrite to {}", rewrite.target),
        Filter::UpstreamHost(host) => format!("host {host}"),
        Filter::ResponseRewrite(_) => "redirects and cookies".to_owned(),
    });
    let action = match &route.action {
        ActionDescription::Forward(targets) => match targets.as_slice() {
            [] => "503".to_owned(),
            [(only, _)] => {
                let canaries = route.options.canaries.iter();
                let canaries = canaries.map(|canary| format!(" or canary {}", canary.backend));
                format!("{only}{}", canaries.collect::<String>())
            }
            several => several
                .iter()
                .map(|(id, weight)| format!("{id} ×{weight}"))
                .collect::<Vec<_>>()
                .join(" or "),
        },
        ActionDescription::Redirect(redirect) => format!("redirect ({})", redirect.status),
        ActionDescription::Respond { status, reason } => format!("{status} ({reason})"),
    };
    filters.chain([action]).collect::<Vec<_>>().join(", ")
}

fn served_certificates(tls: &TlsDescription) -> String {
    if tls.refused {
        return "none: handshakes are refused".to_owned();
    }
    let names: Vec<String> = tls
        .certificates
        .iter()
        .map(|(id, _)| id.to_string())
        .collect();
    let by_default = if tls.by_default { " (the default)" } else { "" };
    format!("{}{by_default}", names.join(", "))
}

fn policy(tls: &TlsDescription) -> String {
    let version = match tls.policy.min_version {
        model::TlsVersion::V1_2 => "TLS 1.2",
        model::TlsVersion::V1_3 => "TLS 1.3",
    };
    let http2 = if tls.policy.http2 { ", HTTP/2" } else { "" };
    let clients = match tls.policy.client_auth {
        Some(_) => ", asks clients for certificates",
        None => "",
    };
    format!("from {version}{http2}{clients}")
}

/// The day of a time in seconds since 1970.
fn day(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(
        |_| "never".to_owned(),
        |time| time.strftime("%Y-%m-%d").to_string(),
    )
}
