//! What a route can do to requests and responses besides choosing who answers.

pub(crate) mod addresses;
pub(crate) mod basic;
pub(crate) mod client_certificate;
pub(crate) mod cors;
pub(crate) mod deny;
pub(crate) mod external;
pub(crate) mod header_change;
pub(crate) mod https_redirect;
pub(crate) mod pace;
pub(crate) mod path_rules;
pub(crate) mod redirect;
pub(crate) mod response_rewrite;
pub(crate) mod rewrite;
pub(crate) mod variables;

use table::{CompiledFilter, CompiledRoute};

use crate::context::RequestContext;
use crate::phases::answer::Answer;
use crate::phases::original::Original;

/// Runs the filters that can answer a request before a backend is asked, in their order.
pub(crate) fn on_request(
    context: &mut RequestContext,
    route: &CompiledRoute,
    request: Original<'_>,
    host: &str,
    path: &str,
) -> Option<Answer> {
    route.filters.iter().find_map(|filter| match filter {
        CompiledFilter::HttpsRedirect { status, except } => {
            // A connection with TLS is never sent to https again, whatever a trusted peer says: it would loop.
            if context.client.https || context.connection.tls.is_some() {
                return None;
            }
            https_redirect::answer(*status, except, host, path, request.uri.query())
        }
        CompiledFilter::ClientCertificate(wanted) => {
            client_certificate::answer(context, wanted, host)
        }
        CompiledFilter::Deny(rules) => deny::answer(context, rules, request, path),
        CompiledFilter::PathRules(rules) => {
            path_rules::redirect(rules, context.client.https, host, path, request.uri.query())
        }
        CompiledFilter::Cors(cors) => cors::answer(context, cors, request),
        CompiledFilter::Access(_)
        | CompiledFilter::Pace(_)
        | CompiledFilter::BackendTls(_)
        | CompiledFilter::Hsts(_)
        | CompiledFilter::RequestHeaders(_)
        | CompiledFilter::ResponseHeaders(_)
        | CompiledFilter::Rewrite(_)
        | CompiledFilter::UpstreamHost(_)
        | CompiledFilter::ResponseRewrite(_) => None,
    })
}
