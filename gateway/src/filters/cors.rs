//! Cross-origin requests.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ORIGIN,
};
use http::{HeaderValue, Method};
use table::CompiledCors;

use crate::context::RequestContext;
use crate::error::Reason;
use crate::phases::answer::Answer;
use crate::phases::fields::Fields;
use crate::phases::original::Original;

/// Finds out whether the origin of the request may read the response, and answers `OPTIONS` for it. From another
/// origin the request goes on as if there was nothing.
pub(crate) fn answer(
    context: &mut RequestContext,
    cors: &CompiledCors,
    request: Original<'_>,
) -> Option<Answer> {
    context.allowed_origin = cors.allow(request.headers.value(&ORIGIN).as_ref());
    let preflight = context.allowed_origin.is_some() && *request.method == Method::OPTIONS;
    preflight.then(|| Answer::page(Reason::Preflight))
}

/// Says who may read a response. What the backend says about it does not count.
pub(crate) fn apply(context: &RequestContext, cors: &CompiledCors, fields: &mut impl Fields) {
    let Some(origin) = &context.allowed_origin else {
        return;
    };
    fields.replace(&ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    if cors.credentials {
        let value = HeaderValue::from_static("true");
        fields.replace(&ACCESS_CONTROL_ALLOW_CREDENTIALS, value);
    }
    fields.replace(&ACCESS_CONTROL_ALLOW_METHODS, cors.methods.clone());
    fields.replace(&ACCESS_CONTROL_ALLOW_HEADERS, cors.headers.clone());
    if let Some(expose) = &cors.expose {
        fields.replace(&ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
    }
    fields.replace(&ACCESS_CONTROL_MAX_AGE, cors.max_age.clone());
}
