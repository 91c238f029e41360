//! Users who stay at one endpoint, by a cookie.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use http::header::{SET_COOKIE, USER_AGENT};
use http::{HeaderMap, HeaderValue};
use model::SameSite;
use table::{BackendSlot, CompiledAffinity, CompiledOptions, WeightedTargets, cookie};

use super::fields::Fields;
use super::upstream::{drawn, has_endpoints};
use crate::context::RequestContext;
use crate::engine::Worker;
use crate::upstream::{Session, Token};

/// Chooses the backend of a request: the one where the user has been before, else as usual. A session goes before the
/// headers, cookies and shares of canaries.
pub(super) fn choose(
    context: &mut RequestContext,
    worker: &Worker,
    headers: &HeaderMap,
    (options, affinity): (&CompiledOptions, &CompiledAffinity),
    targets: &WeightedTargets,
) -> Option<BackendSlot> {
    let token = cookie(headers, &affinity.cookie).and_then(Token::parse);
    let mark = |slot: BackendSlot| {
        let backend = context.table.backend(slot)?;
        Some(worker.picker.mark(slot, backend, &worker.shared))
    };
    let is_canary = |slot| options.canaries.iter().any(|canary| canary.backend == slot);
    let before = token.and_then(|token| {
        let of_route = targets.iter().map(|(slot, _)| slot);
        let canaries = options.canaries.iter().map(|canary| canary.backend);
        of_route
            .chain(canaries.filter(|_| !affinity.without_canaries))
            .find(|slot| mark(*slot) == Some(token.mark))
            .filter(|slot| !is_canary(*slot) || has_endpoints(context, *slot))
    });
    let slot = before
        .or_else(|| drawn(context, worker, headers, options))
        .or_else(|| targets.choose(worker.random.next_u32()))?;
    let is_main = targets.iter().any(|(target, _)| target == slot);
    if is_main || !affinity.without_canaries {
        let session = Session {
            number: token.filter(|_| before.is_some()).map(|token| token.number),
            mark: mark(slot)?,
            new: false,
            misreads_none: affinity.same_site_by_browser
                && affinity.same_site == Some(SameSite::None)
                && misreads_none(headers),
        };
        context.session = Some(Box::new(session));
    }
    Some(slot)
}

/// Tells a new user where it is.
pub(super) fn tell(context: &RequestContext, fields: &mut impl Fields) {
    let Some(session) = context.session.as_deref().filter(|session| session.new) else {
        return;
    };
    let route = context.route.as_ref();
    let options = route.and_then(|route| route.options.as_ref());
    let affinity = options.and_then(|options| options.affinity.as_ref());
    let (Some(affinity), Some(number)) = (affinity, session.number) else {
        return;
    };
    let text = text(
        affinity,
        session,
        number,
        context.client.https,
        SystemTime::now(),
    );
    if let Ok(value) = HeaderValue::try_from(text) {
        fields.append(&SET_COOKIE, value);
    }
}

fn text(
    affinity: &CompiledAffinity,
    session: &Session,
    number: u128,
    https: bool,
    now: SystemTime,
) -> String {
    let mut text = format!("{}=", affinity.cookie);
    let token = Token {
        number,
        mark: session.mark,
    };
    token.write(&mut text);
    text.push_str(&affinity.attributes);
    let expires = affinity.expires.and_then(|seconds| {
        let time = now.checked_add(Duration::from_secs(u64::from(seconds)))?;
        // The format has four digits for the year.
        let last = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
        Some(httpdate::HttpDate::from(time.min(last)))
    });
    if let Some(expires) = expires {
        // Writing into a String cannot fail.
        let _ = write!(text, "; Expires={expires}");
    }
    if affinity.secure || https {
        text.push_str("; Secure");
    }
    text.push_str(match affinity.same_site {
        Some(SameSite::None) if !session.misreads_none => "; SameSite=None",
        Some(SameSite::Lax) => "; SameSite=Lax",
        Some(SameSite::Strict) => "; SameSite=Strict",
        Some(SameSite::None) | None => "",
    });
    text
}

/// Browsers that refuse cookies with `SameSite=None` or take it for `Strict`: Chrome 51 to 66, those on iOS 12, Safari on
/// macOS 10.14.
fn misreads_none(headers: &HeaderMap) -> bool {
    let agent = headers
        .get(USER_AGENT)
        .and_then(|value| value.to_str().ok());
    let Some(agent) = agent else { return false };
    let has = |text: &str| agent.contains(text);
    let version = |of: &str| {
        let (_, rest) = agent.split_once(of)?;
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse::<u32>().ok()
    };
    let chrome = version("Chrome/").or_else(|| version("Chromium/"));
    chrome.is_some_and(|version| (51..=66).contains(&version))
        || (has("CPU iPhone OS 12_") || has("CPU OS 12_")) && has("AppleWebKit/")
        || has("Mac OS X 10_14") && has("Version/") && has("Safari/") && chrome.is_none()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_cookie_says_what_it_was_asked_to() {
        let affinity = CompiledAffinity {
            cookie: "route".into(),
            persistent: false,
            attributes: "; Path=/; HttpOnly".into(),
            same_site: Some(SameSite::None),
            same_site_by_browser: true,
            secure: false,
            expires: Some(60),
            change_on_failure: false,
            without_canaries: false,
        };
        let session = Session {
            number: Some(7),
            mark: 1,
            new: true,
            misreads_none: false,
        };
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let value = "000000000000000000000000000000070000000000000001";
        assert_eq!(
            text(&affinity, &session, 7, true, now),
            format!(
                "route={value}; Path=/; HttpOnly; Expires=Sun, 06 Nov 1994 08:50:37 GMT; Secure; SameSite=None"
            )
        );
        let old = Session {
            misreads_none: true,
            ..session
        };
        assert_eq!(
            text(&affinity, &old, 7, false, now),
            format!("route={value}; Path=/; HttpOnly; Expires=Sun, 06 Nov 1994 08:50:37 GMT")
        );
    }

    #[test]
    fn browsers_that_misread_none_are_known() {
        for (agent, want) in [
            (
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/60.0.3112.90 Safari/537.36",
                true,
            ),
            (
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/67.0.1.1 Safari/537.36",
                false,
            ),
            (
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
                false,
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 12_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/12.1.2 Mobile/15E148 Safari/604.1",
                true,
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 13_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/13.0 Mobile/15E148 Safari/604.1",
                false,
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_14_6) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/12.1.2 Safari/605.1.15",
                true,
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_14_6) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/80.0.3987.87 Safari/537.36",
                false,
            ),
            ("curl/8.0", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(USER_AGENT, HeaderValue::from_str(agent).unwrap());
            assert_eq!(misreads_none(&headers), want, "{agent}");
        }
    }
}
