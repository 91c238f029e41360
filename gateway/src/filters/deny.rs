//! Refuses requests by what they are.

use http::request::Parts;
use table::CompiledDeny;

use crate::context::RequestContext;
use crate::error::Reason;
use crate::phases::answer::Answer;

/// The answer of the first rule that holds.
pub(crate) fn answer(
    context: &RequestContext,
    rules: &[CompiledDeny],
    parts: &Parts,
    path: &str,
) -> Option<Answer> {
    let client = context.client.address;
    let rule = rules
        .iter()
        .find(|rule| rule.holds(&parts.method, path, &parts.headers, client))?;
    Some(Answer::with_status(rule.status, Reason::RequestDenied))
}
