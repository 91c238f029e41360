//! Changes where redirects and cookies of a backend point to.

use http::HeaderValue;
use http::header::{LOCATION, REFRESH, SET_COOKIE};
use model::ResponseRewrite;

use crate::phases::fields::Fields;

/// Applies the changes to a response of a backend.
pub(crate) fn apply(change: &ResponseRewrite, fields: &mut impl Fields) {
    let ResponseRewrite {
        location,
        cookie_domain,
        cookie_path,
    } = change;
    if let Some((from, to)) = location {
        for name in [LOCATION, REFRESH] {
            let changed = fields
                .map()
                .get(&name)
                .and_then(|value| redirected(value.to_str().ok()?, from, to));
            if let Some(value) = changed.and_then(|text| HeaderValue::try_from(text).ok()) {
                fields.replace(&name, value);
            }
        }
    }
    if cookie_domain.is_none() && cookie_path.is_none() {
        return;
    }
    let cookies: Vec<HeaderValue> = fields.map().get_all(SET_COOKIE).iter().cloned().collect();
    if cookies.is_empty() {
        return;
    }
    fields.remove(&SET_COOKIE);
    for cookie in cookies {
        let changed = cookie
            .to_str()
            .ok()
            .map(|text| cookie_text(text, cookie_domain.as_ref(), cookie_path.as_ref()))
            .and_then(|text| HeaderValue::try_from(text).ok());
        fields.append(&SET_COOKIE, changed.unwrap_or(cookie));
    }
}

/// The value with another beginning of its URL, which in `Refresh` stands behind `url=`.
fn redirected(value: &str, from: &str, to: &str) -> Option<String> {
    if let Some(rest) = value.strip_prefix(from) {
        return Some(format!("{to}{rest}"));
    }
    let (before, url) = value.split_once("url=")?;
    let rest = url.strip_prefix(from)?;
    Some(format!("{before}url={to}{rest}"))
}

fn cookie_text(
    cookie: &str,
    domain: Option<&(String, String)>,
    path: Option<&(String, String)>,
) -> String {
    let mut text = String::with_capacity(cookie.len());
    for (number, part) in cookie.split(';').enumerate() {
        if number > 0 {
            text.push(';');
        }
        let attribute = part
            .split_once('=')
            .filter(|_| number > 0)
            .map(|(name, value)| (name, name.trim(), value.trim()));
        let changed = attribute.and_then(|(spelt, name, value)| {
            let value = if name.eq_ignore_ascii_case("domain") {
                let (from, to) = domain?;
                let bare = |text: &str| text.trim_start_matches('.').to_ascii_lowercase();
                (bare(value) == bare(from)).then(|| to.clone())?
            } else if name.eq_ignore_ascii_case("path") {
                let (from, to) = path?;
                format!("{to}{}", value.strip_prefix(from.as_str())?)
            } else {
                return None;
            };
            Some(format!("{spelt}={value}"))
        });
        text.push_str(changed.as_deref().unwrap_or(part));
    }
    text
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn pair(from: &str, to: &str) -> (String, String) {
        (from.to_owned(), to.to_owned())
    }

    #[test]
    fn beginnings_of_urls_are_replaced() {
        for (value, want) in [
            ("http://in.test/a?b", Some("https://out.test/a?b")),
            ("http://other.test/a", None),
            ("/a", None),
            ("5; url=http://in.test/a", Some("5; url=https://out.test/a")),
            ("5", None),
        ] {
            let changed = redirected(value, "http://in.test/", "https://out.test/");
            assert_eq!(changed.as_deref(), want, "{value}");
        }
    }

    #[test]
    fn attributes_of_cookies_are_replaced() {
        let change = ResponseRewrite {
            location: None,
            cookie_domain: Some(pair("in.test", "out.test")),
            cookie_path: Some(pair("/app/", "/")),
        };
        for (cookie, want) in [
            (
                "a=b; Domain=.IN.test; Path=/app/x; Secure",
                "a=b; Domain=out.test; Path=/x; Secure",
            ),
            (
                "a=b; Domain=other.test; path=/b",
                "a=b; Domain=other.test; path=/b",
            ),
            ("domain=in.test; HttpOnly", "domain=in.test; HttpOnly"),
        ] {
            let mut fields = HeaderMap::new();
            fields.append(SET_COOKIE, HeaderValue::from_static("x=y"));
            fields.append(SET_COOKIE, HeaderValue::from_static(cookie));
            apply(&change, &mut fields);
            let cookies: Vec<_> = fields.get_all(SET_COOKIE).iter().collect();
            assert_eq!(cookies, ["x=y", want]);
        }
    }
}
