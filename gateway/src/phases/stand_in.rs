//! Backends that answer in the place of another one: for one without endpoints, and for responses that are not to be
//! seen.
//!
//! Only what a backend answers, or fails to, is replaced. What Lockgate itself decides about a request (a closed route,
//! an address, a password, a limit) is never handed over: nobody can turn it into a success.

use http::header::ACCEPT;
use http::uri::PathAndQuery;
use http::{HeaderValue, StatusCode};
use table::{BackendSlot, CompiledRoute};

use super::fields::Fields;
use super::original::Original;
use super::{retry, upstream};
use crate::context::RequestContext;
use crate::engine::Worker;

/// Why another backend answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StandIn {
    /// The status that the client would have got.
    pub(crate) status: StatusCode,
    /// The backend that it stands in for.
    of: Option<BackendSlot>,
    /// It makes an error page: it is asked for `/`.
    pub(crate) for_page: bool,
    /// How many tries there had been.
    pub(crate) after: usize,
}

impl StandIn {
    /// For a backend without endpoints: it gets the request as it is.
    pub(super) fn without_endpoints(context: &RequestContext) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            of: context.target.as_ref().map(|target| target.slot),
            for_page: false,
            after: context.tries.len(),
        }
    }
}

/// Is the response of an endpoint with this status to be replaced? Then the next try goes to the backend that makes error
/// pages. The engine has made sure that the request is still at hand as a whole.
pub(crate) fn replaces(context: &mut RequestContext, worker: &Worker, status: StatusCode) -> bool {
    take_over(context, worker, status, true)
}

/// The same for an endpoint that does not answer, whose status would be this one.
pub(crate) fn replaces_failure(
    context: &mut RequestContext,
    worker: &Worker,
    status: StatusCode,
) -> bool {
    take_over(context, worker, status, false)
}

fn take_over(
    context: &mut RequestContext,
    worker: &Worker,
    status: StatusCode,
    answered: bool,
) -> bool {
    if context.stand_in.is_some() {
        return false;
    }
    let route = context.route.as_ref();
    let options = route.and_then(|route| route.options.as_ref());
    let Some(errors) = options.and_then(|options| options.errors.as_ref()) else {
        return false;
    };
    if !errors.statuses.contains(&status.as_u16())
        || answered && errors.keeps_answers
        || !upstream::has_endpoints(context, errors.backend)
    {
        return false;
    }
    let stand_in = StandIn {
        status,
        of: context.target.as_ref().map(|target| target.slot),
        for_page: true,
        after: context.tries.len(),
    };
    let backend = errors.backend;
    retry::end_try(context);
    let Some(target) = upstream::target(context, worker, backend) else {
        return false;
    };
    context.target = Some(target);
    context.stand_in = Some(stand_in);
    // It makes a page, whatever was asked for.
    context.path = Some("/".to_owned());
    true
}

/// Tells a backend why it is asked, in the headers that error backends of ingress-nginx read.
pub(super) fn explain(
    stand_in: StandIn,
    context: &RequestContext,
    route: &CompiledRoute,
    original: Original<'_>,
    fields: &mut impl Fields,
) {
    let mut set = |name: &'static str, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            fields.set(name, value);
        }
    };
    let format = original.headers.text(&ACCEPT);
    set("X-Code", stand_in.status.as_str());
    set("X-Format", format.unwrap_or_default());
    let uri = original.uri;
    set(
        "X-Original-URI",
        uri.path_and_query().map_or("/", PathAndQuery::as_str),
    );
    set("X-Namespace", &route.origin.object.namespace);
    set("X-Ingress-Name", &route.origin.object.name);
    let of = stand_in.of.and_then(|slot| context.table.backend(slot));
    if let Some(backend) = of {
        set("X-Service-Name", &backend.id.service);
        let port = backend.id.port.split('+').next();
        set("X-Service-Port", port.unwrap_or_default());
    }
}
