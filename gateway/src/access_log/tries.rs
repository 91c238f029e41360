//! What a request's tries say, as nginx lists them.

use model::LogVariable;

use super::line::Facts;
use super::write::{write_address, write_number, write_seconds};
use crate::context::Try;
use crate::error::{Reason, Source};

/// One value for each try, of which there is at least one. Those of a backend that stands in for another one follow a
/// colon.
pub(super) fn write(out: &mut Vec<u8>, facts: &Facts<'_>, variable: &LogVariable) {
    let context = facts.context;
    let page = context.stand_in.filter(|stand_in| stand_in.for_page);
    let border = page.map(|page| page.after);
    for (index, attempt) in context.tries.iter().enumerate() {
        if index > 0 {
            let colon = border == Some(index);
            out.extend_from_slice(if colon { b" : " } else { b", " });
        }
        let last = index + 1 == context.tries.len();
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the others are elsewhere, and the caller names them all"
        )]
        match variable {
            LogVariable::UpstreamAddr => write_address(out, attempt.address()),
            LogVariable::UpstreamResponseLength => {
                // Of a response that was not passed on nothing counts.
                let length = if last {
                    facts.outcome.upstream_received
                } else {
                    0
                };
                write_number(out, length);
            }
            LogVariable::UpstreamResponseTime => {
                write_seconds(out, attempt.ended.unwrap_or_default());
            }
            LogVariable::UpstreamConnectTime => match attempt.connected {
                Some(connected) => write_seconds(out, connected),
                None => out.push(b'-'),
            },
            LogVariable::UpstreamHeaderTime => match attempt.header {
                Some(header) => write_seconds(out, header),
                None => out.push(b'-'),
            },
            LogVariable::UpstreamStatus => status(out, facts, attempt, last),
            _ => out.push(b'-'),
        }
    }
}

fn status(out: &mut Vec<u8>, facts: &Facts<'_>, attempt: &Try, last: bool) {
    let failure = facts.context.reason.as_ref().filter(|reason| {
        last && match reason.source() {
            Source::Upstream => true,
            Source::Client | Source::Gateway => false,
        }
    });
    let failed = attempt.failed.or_else(|| failure.map(Reason::status));
    match attempt.status.or(failed) {
        Some(status) => write_number(out, status.as_u16().into()),
        None => out.push(b'-'),
    }
}
