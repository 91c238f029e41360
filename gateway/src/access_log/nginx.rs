//! One request as the default line of ingress-nginx.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderValue;
use http::header::{AUTHORIZATION, REFERER, USER_AGENT};

use super::clock::Clock;
use super::line::{Facts, protocol};
use super::write::{escape_text, show, write_address, write_ip, write_number, write_seconds};
use crate::asked::Asked;
use crate::context::Try;
use crate::error::{Reason, Source};

/// Appends the default line of ingress-nginx, which many pipelines have a pattern for:
///
/// `$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"
/// $request_length $request_time [$proxy_upstream_name] [$proxy_alternative_upstream_name] $upstream_addr
/// $upstream_response_length $upstream_response_time $upstream_status $req_id`
pub(super) fn line(out: &mut Vec<u8>, facts: &Facts<'_>, clock: &mut Clock) {
    let context = facts.context;
    let request = facts.outcome.request;
    write_ip(out, context.client.address);
    out.extend_from_slice(b" - ");
    match remote_user(request.headers.get(AUTHORIZATION)) {
        Some(user) => escape_text(out, &user),
        None => out.push(b'-'),
    }
    out.extend_from_slice(b" [");
    // A line tells when it was written.
    clock.local(out, context.started_at + facts.elapsed);
    out.extend_from_slice(b"] \"");
    escape_text(out, request.method.as_str().as_bytes());
    out.push(b' ');
    escape_text(out, facts.outcome.target);
    out.push(b' ');
    out.extend_from_slice(protocol(request.version).as_bytes());
    out.extend_from_slice(b"\" ");
    write_number(out, facts.status.as_u16().into());
    out.push(b' ');
    write_number(out, facts.outcome.sent);
    out.extend_from_slice(b" \"");
    escape_text(out, facts.header(&REFERER).unwrap_or(b"-"));
    out.extend_from_slice(b"\" \"");
    escape_text(out, facts.header(&USER_AGENT).unwrap_or(b"-"));
    out.extend_from_slice(b"\" ");
    write_number(out, context.header_bytes + facts.outcome.received);
    out.push(b' ');
    write_seconds(out, facts.elapsed);
    out.extend_from_slice(b" [");
    let asked = Asked::by(context);
    match asked.main {
        Some(main) => show(out, main),
        None if context.route.is_none() => out.extend_from_slice(b"upstream-default-backend"),
        // A route that answers by itself.
        None => out.push(b'-'),
    }
    out.extend_from_slice(b"] [");
    if let Some(canary) = asked.canary {
        show(out, canary);
    }
    out.extend_from_slice(b"] ");
    upstream_text(out, facts);
    out.push(b' ');
    match &context.request_id {
        Some(id) => escape_text(out, id.as_bytes()),
        None => out.push(b'-'),
    }
    out.push(b'\n');
}

/// Address, length, time and status of each try. Those of a backend that stands in for another one follow a colon.
fn upstream_text(out: &mut Vec<u8>, facts: &Facts<'_>) {
    let context = facts.context;
    let tries = &context.tries;
    if tries.is_empty() {
        out.extend_from_slice(b"- - - -");
        return;
    }
    let page = context.stand_in.filter(|stand_in| stand_in.for_page);
    let border = page.map(|page| page.after);
    let mut each = |value: &mut dyn FnMut(&mut Vec<u8>, &Try, bool)| {
        for (index, attempt) in tries.iter().enumerate() {
            if index > 0 {
                let colon = border == Some(index);
                out.extend_from_slice(if colon { b" : " } else { b", " });
            }
            value(out, attempt, index + 1 == tries.len());
        }
        out.push(b' ');
    };
    each(&mut |out, attempt, _| write_address(out, attempt.address()));
    each(&mut |out, _, last| {
        // Of a response that was not passed on nothing counts.
        let length = if last {
            facts.outcome.upstream_received
        } else {
            0
        };
        write_number(out, length);
    });
    each(&mut |out, attempt, _| write_seconds(out, attempt.ended.unwrap_or_default()));
    each(&mut |out, attempt, last| {
        let failure = context.reason.as_ref().filter(|reason| {
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
    });
    out.pop();
}

/// The name that a client gives with `Basic`, whether anybody asks for it or not.
fn remote_user(header: Option<&HeaderValue>) -> Option<Vec<u8>> {
    let text = header?.as_bytes();
    let (scheme, rest) = text.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let mut pair = STANDARD_NO_PAD_OR_PAD.decode(rest.trim_ascii()).ok()?;
    let end = pair.iter().position(|byte| *byte == b':')?;
    pair.truncate(end);
    (!pair.is_empty()).then_some(pair)
}

/// With or without padding, as nginx reads it.
const STANDARD_NO_PAD_OR_PAD: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_who_the_client_says() {
        for (header, want) in [
            ("Basic YWxpY2U6c2VjcmV0", Some("alice")),
            ("basic  YWxpY2U6cw==", Some("alice")),
            ("Basic YWxpY2U6cw", Some("alice")),
            ("Basic OnNlY3JldA==", None),
            ("Basic YWxpY2U=", None),
            ("Basic !", None),
            ("Bearer YWxpY2U6c2VjcmV0", None),
            ("Basic", None),
        ] {
            let header = HeaderValue::from_static(header);
            let user = remote_user(Some(&header)).map(|user| String::from_utf8(user).unwrap());
            assert_eq!(user.as_deref(), want, "{header:?}");
        }
    }
}
