//! Refuses requests by what they are.

use table::CompiledDeny;

use crate::context::RequestContext;
use crate::error::Reason;
use crate::phases::answer::Answer;
use crate::phases::original::Original;

/// The answer of the first rule that holds.
pub(crate) fn answer(
    context: &RequestContext,
    rules: &[CompiledDeny],
    request: Original<'_>,
    path: &str,
) -> Option<Answer> {
    let client = context.client.address;
    let rule = rules
        .iter()
        .find(|rule| rule.holds(request.method, path, request.headers.map(), client))?;
    Some(Answer::with_status(rule.status, Reason::RequestDenied))
}
