//! What a route does, compiled: every name, value and status checked once, so that requests need not.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode, header};
use model::{
    Action, BackendTls, Filter, HeaderChange, HostName, HostPattern, Hsts, HttpsRedirect, Origin,
    Pace, PathMatch, Redirect, ResponseRewrite, Route, Timeouts, WeightedBackend,
};

use crate::access::{self, Accesses, CompiledAccess};
use crate::backend_tls;
use crate::backends::{BackendSlot, Backends, WeightedTargets};
use crate::clients::CompiledClientCertificate;
use crate::deny::CompiledDeny;
use crate::filters::CompiledFilters;
use crate::options::CompiledOptions;
use crate::path_rule::CompiledPathRule;
use crate::pattern::Patterns;
use crate::reject::Reject;
use crate::rewrite::{self, CompiledCors, CompiledRewrite};
use crate::template::Template;

/// The reason of the answers of a route whose action or filters could not be compiled.
pub const INVALID_ROUTE: &str = "invalid-route";

/// What happens to the requests of one route.
#[derive(Debug)]
pub struct CompiledRoute {
    /// The virtual host that it belongs to.
    pub host: HostPattern,
    /// The path that it matches.
    pub path: PathMatch,
    /// Where it was asked for.
    pub origin: Origin,
    /// What happens on the way, in this order.
    pub filters: CompiledFilters,
    /// What answers.
    pub action: CompiledAction,
    /// How long to wait for the backend.
    pub timeouts: Timeouts,
    /// The largest request body in bytes.
    pub body_limit: Option<u64>,
    /// What few routes ask for.
    pub options: Option<Box<CompiledOptions>>,
}

/// What answers a request.
#[derive(Clone, Debug, PartialEq)]
pub enum CompiledAction {
    /// One of these backends.
    Forward(WeightedTargets),
    /// A redirect. Its status is one of 301, 302, 303, 307 and 308, its other parts may stand in a URL.
    Redirect(Box<Redirect>),
    /// The gateway itself, with a small page.
    Respond {
        /// The status.
        status: StatusCode,
        /// The reason for log and metrics.
        reason: Arc<str>,
    },
}

/// One step of a route's processing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CompiledFilter {
    /// Sends clients of plain HTTP to https.
    HttpsRedirect {
        /// Status of the answer.
        status: StatusCode,
        /// Paths that start with one of these texts are not redirected.
        except: Vec<String>,
    },
    /// Asks for a certificate of the client.
    ClientCertificate(Arc<CompiledClientCertificate>),
    /// Answers some requests with an error.
    Deny(Arc<[CompiledDeny]>),
    /// Lets only some clients pass, or only so often.
    Access(Arc<CompiledAccess>),
    /// How TLS is spoken to the endpoints.
    BackendTls(Arc<BackendTls>),
    /// Slows the response down.
    Pace(Pace),
    /// Adds this value of `Strict-Transport-Security` to responses over TLS.
    Hsts(HeaderValue),
    /// Changes headers of the request that goes upstream.
    RequestHeaders(CompiledHeaderChange),
    /// Changes headers of the response that goes to the client.
    ResponseHeaders(CompiledHeaderChange),
    /// Answers preflight requests and says who may read responses.
    Cors(Box<CompiledCors>),
    /// Changes the path of the request that goes upstream.
    Rewrite(Box<CompiledRewrite>),
    /// Changes paths, or redirects; the first rule that matches counts.
    PathRules(Arc<[CompiledPathRule]>),
    /// The `Host` of the request that goes upstream.
    UpstreamHost(Template),
    /// Changes where redirects and cookies of the backend point to.
    ResponseRewrite(Box<ResponseRewrite>),
}

/// Headers to remove, set and add, in this order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CompiledHeaderChange {
    /// Names to remove.
    pub remove: Vec<HeaderName>,
    /// Names and values that replace what is there.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Names and values that join what is there.
    pub add: Vec<(HeaderName, HeaderValue)>,
}

/// Compiles what `route` does; its filters, unless that has been done. Its targets are acquired from `backends` and listed in `acquired`.
///
/// When an action or a filter cannot be compiled, the route keeps its place and answers 503: its requests must not
/// fall to a less specific route, or pass without a step that was asked for.
pub(crate) fn compile_route(
    host: &HostPattern,
    (route, filters): (&Route, Option<CompiledFilters>),
    backends: &mut Backends,
    patterns: &mut Patterns,
    acquired: &mut Vec<BackendSlot>,
    accesses: &mut Accesses,
    rejects: &mut Vec<Reject>,
) -> CompiledRoute {
    let filters = match filters {
        Some(filters) => Ok(filters),
        None => route
            .filters
            .iter()
            .map(|filter| {
                let Filter::Access(access) = filter else {
                    return compile_filter(filter, patterns);
                };
                access::compile(access, accesses, host, backends, acquired)
                    .map(CompiledFilter::Access)
            })
            .collect::<Result<Vec<_>, _>>()
            .map(CompiledFilters::from),
    };
    let checked = filters.and_then(|filters| {
        let action = compile_action(&route.action, backends, acquired)?;
        let mut faults = Vec::new();
        let options =
            CompiledOptions::compile(&route.options, backends, acquired, patterns, &mut faults);
        rejects.extend(faults.into_iter().map(|reason| Reject {
            origin: route.origin.clone(),
            reason,
        }));
        Ok((filters, action, options))
    });
    let (filters, action, options) = checked.unwrap_or_else(|fault| {
        rejects.push(Reject {
            origin: route.origin.clone(),
            reason: format!("{fault}; requests of this route are answered with status 503"),
        });
        let action = CompiledAction::Respond {
            status: StatusCode::SERVICE_UNAVAILABLE,
            reason: INVALID_ROUTE.into(),
        };
        (CompiledFilters::default(), action, None)
    });
    CompiledRoute {
        host: host.clone(),
        path: route.matches.path.clone(),
        origin: route.origin.clone(),
        filters,
        action,
        timeouts: route.timeouts,
        body_limit: route.body_limit,
        options,
    }
}

fn compile_action(
    action: &Action,
    backends: &mut Backends,
    acquired: &mut Vec<BackendSlot>,
) -> Result<CompiledAction, String> {
    match action {
        Action::Forward(targets) => {
            let targets = targets.iter().map(|target| {
                let WeightedBackend { backend, weight } = target;
                let slot = backends.acquire(backend);
                acquired.push(slot);
                (slot, *weight)
            });
            Ok(CompiledAction::Forward(WeightedTargets::new(targets)))
        }
        Action::Redirect(redirect) => {
            check_redirect(redirect)?;
            Ok(CompiledAction::Redirect(redirect.clone()))
        }
        Action::Respond { status, reason } => match StatusCode::from_u16(*status) {
            Ok(code) if (200..600).contains(status) => Ok(CompiledAction::Respond {
                status: code,
                reason: reason.as_str().into(),
            }),
            _ => Err(format!("status {status} is not between 200 and 599")),
        },
    }
}

fn check_redirect(redirect: &Redirect) -> Result<(), String> {
    let Redirect {
        status,
        scheme,
        host,
        port,
        path,
        keeps_query: _,
        location,
    } = redirect;
    redirect_status(*status)?;
    if let Some(location) = location {
        HeaderValue::from_str(location)
            .map_err(|_| "the URL of a redirect has to be printable ASCII".to_owned())?;
    }
    if let Some(scheme) = scheme
        && !matches!(scheme.as_str(), "http" | "https")
    {
        return Err(format!(
            "a redirect to the scheme `{scheme}` is not possible"
        ));
    }
    if let Some(host) = host {
        HostName::parse(host).map_err(|fault| format!("redirect host `{host}`: {fault}"))?;
    }
    if *port == Some(0) {
        return Err("there is no port 0 to redirect to".to_owned());
    }
    if let Some(path) = path
        && !(path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        return Err(
            "the path of a redirect has to start with `/` and to be printable ASCII".to_owned(),
        );
    }
    Ok(())
}

pub(crate) fn redirect_status(status: u16) -> Result<StatusCode, String> {
    match StatusCode::from_u16(status) {
        Ok(code) if matches!(status, 301 | 302 | 303 | 307 | 308) => Ok(code),
        _ => Err(format!(
            "status {status} is not one of 301, 302, 303, 307, 308"
        )),
    }
}

fn compile_filter(filter: &Filter, patterns: &mut Patterns) -> Result<CompiledFilter, String> {
    match filter {
        Filter::HttpsRedirect(HttpsRedirect { status, except }) => {
            Ok(CompiledFilter::HttpsRedirect {
                status: redirect_status(*status)?,
                except: except.clone(),
            })
        }
        Filter::ClientCertificate(wanted) => CompiledClientCertificate::compile(wanted, patterns)
            .map(|wanted| CompiledFilter::ClientCertificate(Arc::new(wanted))),
        Filter::Deny(rules) => rules
            .iter()
            .map(|rule| CompiledDeny::compile(rule, patterns))
            .collect::<Result<_, _>>()
            .map(CompiledFilter::Deny),
        // It takes more than this to compile.
        Filter::Access(_) => Err("access is compiled with its route".to_owned()),
        Filter::BackendTls(tls) => {
            if let Some(limits) = &tls.limits {
                backend_tls::check(limits)?;
            }
            Ok(CompiledFilter::BackendTls(Arc::clone(tls)))
        }
        Filter::Pace(pace) if pace.bytes_per_second == 0 => {
            Err("a response without any bytes per second would never end".to_owned())
        }
        Filter::Pace(pace) => Ok(CompiledFilter::Pace(*pace)),
        Filter::Hsts(hsts) => Ok(CompiledFilter::Hsts(hsts_value(hsts)?)),
        Filter::RequestHeaders(change) => {
            compile_header_change(change).map(CompiledFilter::RequestHeaders)
        }
        Filter::ResponseHeaders(change) => {
            compile_header_change(change).map(CompiledFilter::ResponseHeaders)
        }
        Filter::Cors(cors) => {
            CompiledCors::compile(cors).map(|cors| CompiledFilter::Cors(Box::new(cors)))
        }
        Filter::Rewrite(rewrite) => CompiledRewrite::compile(rewrite, patterns)
            .map(|rewrite| CompiledFilter::Rewrite(Box::new(rewrite))),
        Filter::PathRules(rules) => rules
            .iter()
            .map(|rule| CompiledPathRule::compile(rule, patterns))
            .collect::<Result<_, _>>()
            .map(CompiledFilter::PathRules),
        Filter::UpstreamHost(text) => Template::parse(text).map(CompiledFilter::UpstreamHost),
        Filter::ResponseRewrite(change) => {
            rewrite::check_response_rewrite(change)?;
            Ok(CompiledFilter::ResponseRewrite(change.clone()))
        }
    }
}

/// The value of `Strict-Transport-Security` (RFC 6797, 6.1).
fn hsts_value(hsts: &Hsts) -> Result<HeaderValue, String> {
    let Hsts {
        max_age,
        include_subdomains,
        preload,
    } = hsts;
    let mut value = format!("max-age={max_age}");
    if *include_subdomains {
        value.push_str("; includeSubDomains");
    }
    if *preload {
        value.push_str("; preload");
    }
    HeaderValue::try_from(value).map_err(|fault| fault.to_string())
}

fn compile_header_change(change: &HeaderChange) -> Result<CompiledHeaderChange, String> {
    let HeaderChange { remove, set, add } = change;
    let fields = |list: &[(String, String)]| {
        list.iter()
            .map(|(name, value)| {
                let value = HeaderValue::from_str(value)
                    .map_err(|_| format!("the value for header `{name}` is not a header value"))?;
                Ok((header_name(name)?, value))
            })
            .collect::<Result<Vec<_>, String>>()
    };
    Ok(CompiledHeaderChange {
        remove: remove
            .iter()
            .map(|name| header_name(name))
            .collect::<Result<_, _>>()?,
        set: fields(set)?,
        add: fields(add)?,
    })
}

/// A name that a route may change. Headers that delimit the message or belong to the connection are the gateway's:
/// changing them is how requests get smuggled (RFC 9112, 11.2).
pub(crate) fn header_name(name: &str) -> Result<HeaderName, String> {
    const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
    const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

    let parsed = HeaderName::try_from(name)
        .map_err(|_| format!("`{}` is not a header name", name.escape_debug()))?;
    let gateways_own = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        KEEP_ALIVE,
        PROXY_CONNECTION,
    ];
    if gateways_own.contains(&parsed) {
        return Err(format!("header `{parsed}` is not a route's to change"));
    }
    Ok(parsed)
}
