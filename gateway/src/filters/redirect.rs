//! Redirects that a route asks for.

use http::{HeaderValue, StatusCode};
use model::Redirect;

use crate::error::Reason;
use crate::phases::answer::Answer;

/// The redirect for this request.
pub(crate) fn answer(
    redirect: &Redirect,
    https: bool,
    authority: &str,
    path: &str,
    query: Option<&str>,
) -> Answer {
    if let Some(url) = &redirect.location {
        return match (
            StatusCode::from_u16(redirect.status),
            HeaderValue::from_str(url),
        ) {
            (Ok(status), Ok(url)) => Answer::redirect(status, Reason::Redirect, url),
            _ => Answer::page(Reason::Internal),
        };
    }
    let asks_for_nothing_else =
        redirect.scheme.is_none() && redirect.host.is_none() && redirect.port.is_none();
    // Another scheme has another port, and the one that the client used is not it.
    let kept = match authority.rsplit_once(':') {
        Some((host, port)) if !asks_for_nothing_else && !port.contains(']') => host,
        _ => authority,
    };
    let own_scheme = if https { "https" } else { "http" };
    let scheme = redirect.scheme.as_deref().unwrap_or(own_scheme);
    let host = redirect.host.as_deref().unwrap_or(kept);
    let default_port = if scheme == "https" { 443 } else { 80 };
    let port = redirect.port.filter(|port| *port != default_port);
    let location = match &redirect.path {
        Some(path) => {
            let query = query.filter(|_| redirect.keeps_query);
            location(scheme, host, port, path, query)
        }
        None => location(scheme, host, port, path, query),
    };
    match (StatusCode::from_u16(redirect.status), location) {
        (Ok(status), Some(location)) => Answer::redirect(status, Reason::Redirect, location),
        _ => Answer::page(Reason::Internal),
    }
}

/// A URL as the value of `Location`.
pub(super) fn location(
    scheme: &str,
    host: &str,
    port: Option<u16>,
    path: &str,
    query: Option<&str>,
) -> Option<HeaderValue> {
    let mut url = format!("{scheme}://{host}");
    if let Some(port) = port {
        url.push(':');
        url.push_str(&port.to_string());
    }
    url.push_str(path);
    if let Some(query) = query {
        url.push('?');
        url.push_str(query);
    }
    HeaderValue::try_from(url).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_is_kept() {
        let redirect =
            |scheme: Option<&str>, host: Option<&str>, port, path: Option<&str>| Redirect {
                status: 302,
                scheme: scheme.map(str::to_owned),
                host: host.map(str::to_owned),
                port,
                path: path.map(str::to_owned),
                keeps_query: false,
                location: None,
            };
        let with_query = Redirect {
            keeps_query: true,
            ..redirect(None, None, None, Some("/p/"))
        };
        for (redirect, https, want) in [
            (redirect(None, None, None, None), false, "http://a.test/p?q"),
            (redirect(None, None, None, None), true, "https://a.test/p?q"),
            (
                redirect(Some("https"), None, Some(443), None),
                false,
                "https://a.test/p?q",
            ),
            (
                redirect(Some("https"), Some("b.test"), Some(8443), None),
                false,
                "https://b.test:8443/p?q",
            ),
            (
                redirect(None, None, None, Some("/other")),
                false,
                "http://a.test/other",
            ),
            (with_query, false, "http://a.test/p/?q"),
        ] {
            let answer = answer(&redirect, https, "a.test", "/p", Some("q"));
            assert_eq!(answer.location.unwrap(), want);
            assert_eq!(answer.status, StatusCode::FOUND);
        }
    }
}
