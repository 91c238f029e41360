//! Requests that belong together, compiled.

use std::fmt::Write as _;

use http::HeaderValue;
use model::{Affinity, AffinityMode, HashBy, SameSite};

use crate::template::Template;

/// Keeps a user at one endpoint by a cookie.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an attribute of the cookie or a switch that users write"
)]
pub struct CompiledAffinity {
    /// The name of the cookie.
    pub cookie: Box<str>,
    /// Users never move while their endpoint is there.
    pub persistent: bool,
    /// What stands behind the value of the cookie whatever the request is. `HttpOnly` is in it.
    pub attributes: Box<str>,
    /// `SameSite`
    pub same_site: Option<SameSite>,
    /// `SameSite=None` is left out for browsers that take it for `Strict`.
    pub same_site_by_browser: bool,
    /// `Secure` also over plain HTTP.
    pub secure: bool,
    /// `Expires`, in seconds from the response on.
    pub expires: Option<u32>,
    /// A user whose endpoint fails moves to another one.
    pub change_on_failure: bool,
    /// Canaries give no cookie.
    pub without_canaries: bool,
}

impl CompiledAffinity {
    pub(crate) fn compile(affinity: &Affinity) -> Result<Self, String> {
        let Affinity {
            cookie,
            mode,
            path,
            domain,
            same_site,
            same_site_by_browser,
            secure,
            expires,
            max_age,
            change_on_failure,
            without_canaries,
        } = affinity;
        // A token (RFC 6265, 4.1.1; RFC 9110, 5.6.2).
        let token = !cookie.is_empty()
            && cookie
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
        if !token {
            return Err(format!(
                "`{}` is not the name of a cookie",
                cookie.escape_debug()
            ));
        }
        let mut attributes = format!("; Path={}", attribute("path", path)?);
        // Writing into a String cannot fail.
        if let Some(domain) = domain {
            let _ = write!(attributes, "; Domain={}", attribute("domain", domain)?);
        }
        if let Some(seconds) = max_age {
            let _ = write!(attributes, "; Max-Age={seconds}");
        }
        attributes.push_str("; HttpOnly");
        Ok(Self {
            cookie: cookie.as_str().into(),
            persistent: *mode == AffinityMode::Persistent,
            attributes: attributes.into(),
            same_site: *same_site,
            same_site_by_browser: *same_site_by_browser,
            secure: *secure,
            expires: *expires,
            change_on_failure: *change_on_failure,
            without_canaries: *without_canaries,
        })
    }
}

/// The value of an attribute of a cookie: nothing that ends it or begins another one.
fn attribute<'a>(name: &str, text: &'a str) -> Result<&'a str, String> {
    if text.contains(';') || HeaderValue::from_str(text).is_err() {
        return Err(format!(
            "`{}` is not the {name} of a cookie",
            text.escape_debug()
        ));
    }
    Ok(text)
}

/// Sends requests with the same key to the same endpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CompiledHash {
    /// The key.
    pub key: Template,
    /// Not to one endpoint but to any of so many.
    pub subset: Option<usize>,
    /// How many hundredths of the average an endpoint may have to do.
    pub bound: Option<u32>,
}

impl CompiledHash {
    pub(crate) fn compile(hash: &HashBy) -> Result<Self, String> {
        let HashBy { key, subset, bound } = hash;
        Ok(Self {
            key: Template::parse(key)?,
            subset: subset.map(|size| usize::try_from(size).unwrap_or(usize::MAX).max(1)),
            bound: bound.map(|percent| percent.max(100)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn affinity(cookie: &str, path: &str, domain: Option<&str>) -> Affinity {
        Affinity {
            cookie: cookie.to_owned(),
            mode: AffinityMode::Balanced,
            path: path.to_owned(),
            domain: domain.map(str::to_owned),
            same_site: None,
            same_site_by_browser: false,
            secure: false,
            expires: None,
            max_age: Some(9),
            change_on_failure: false,
            without_canaries: false,
        }
    }

    #[test]
    fn an_attribute_does_not_begin_another_one() {
        let compiled = CompiledAffinity::compile(&affinity("route", "/a", Some("a.test"))).unwrap();
        assert_eq!(
            &*compiled.attributes,
            "; Path=/a; Domain=a.test; Max-Age=9; HttpOnly"
        );
        for bad in [
            affinity("a=b", "/", None),
            affinity("", "/", None),
            affinity("a", "/; Domain=b.test", None),
            affinity("a", "/", Some("b.test; Secure")),
            affinity("a", "/\r\nx: y", None),
        ] {
            assert!(CompiledAffinity::compile(&bad).is_err(), "{bad:?}");
        }
    }
}
