//! Changes paths, or redirects, by rules.

use http::HeaderValue;
use table::CompiledPathRule;

use super::redirect::location;
use super::rewrite;
use crate::error::Reason;
use crate::phases::answer::Answer;

/// The first rule that matches, and what it makes of the path.
fn first<'a>(rules: &'a [CompiledPathRule], path: &str) -> Option<(&'a CompiledPathRule, String)> {
    rules
        .iter()
        .find_map(|rule| rule.apply(path).map(|made| (rule, made)))
}

/// The redirect, if the rule that counts is one. A path is one of the same host, without a port, as all redirects.
pub(crate) fn redirect(
    rules: &[CompiledPathRule],
    https: bool,
    host: &str,
    path: &str,
    query: Option<&str>,
) -> Option<Answer> {
    let (rule, made) = first(rules, path)?;
    let status = rule.redirect?;
    let scheme = if https { "https" } else { "http" };
    let url = if made.starts_with('/') {
        location(scheme, host, None, &made, query)
    } else {
        absolute(&made, scheme, host, query)
    };
    Some(match url {
        Some(url) => Answer::redirect(status, Reason::Redirect, url),
        None => Answer::page(Reason::Internal),
    })
}

/// A URL, which may keep scheme and host.
fn absolute(url: &str, scheme: &str, host: &str, query: Option<&str>) -> Option<HeaderValue> {
    let mut url = url
        .replacen("$scheme", scheme, 1)
        .replacen("$host", host, 1);
    if let Some(query) = query {
        url.push(if url.contains('?') { '&' } else { '?' });
        url.push_str(query);
    }
    HeaderValue::try_from(url).ok()
}

/// The path for the backend, in normal form. Nothing where no rule matches.
pub(crate) fn apply(rules: &[CompiledPathRule], path: &str) -> Result<Option<String>, Reason> {
    match first(rules, path) {
        Some((rule, made)) if rule.redirect.is_none() => rewrite::normal(made).map(Some),
        Some(_) | None => Ok(None),
    }
}
