//! What annotations and the ConfigMap say about asking another server, which both say in the same words.

use std::sync::Arc;

use model::{AuthCache, BackendId, BackendProtocol, ExternalAuth};

use crate::report::quoted;
use crate::service;
use crate::settings::Settings;
use crate::value;

/// Methods with which can be asked.
const METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE",
];

/// For how long answers are remembered where only a key is given.
const DURATION: ([u16; 3], u32) = ([200, 202, 401], 300);

/// Values as they are written.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct ExternalValues {
    pub(crate) url: Option<String>,
    pub(crate) method: Option<String>,
    pub(crate) signin: Option<String>,
    pub(crate) signin_param: Option<String>,
    pub(crate) response_headers: Vec<String>,
    pub(crate) request_redirect: Option<String>,
    /// The ConfigMap with more headers, and its namespace if that is given. What it says is not known here.
    pub(crate) headers: Option<(Option<Box<str>>, Box<str>)>,
    pub(crate) always_set_cookie: bool,
    pub(crate) cache_key: Option<String>,
    pub(crate) cache_durations: Option<Vec<(Vec<u16>, u32)>>,
    /// More headers for the question; variables may stand in their values.
    pub(crate) more_headers: Vec<(String, String)>,
}

impl ExternalValues {
    /// Is there anything that has a meaning only with a URL?
    pub(crate) fn is_half(&self) -> bool {
        self.url.is_none() && *self != Self::default()
    }

    /// All of them together; nothing without a URL.
    pub(crate) fn together(&self, settings: &Settings) -> Option<Arc<ExternalAuth>> {
        let url = self.url.clone()?;
        let cache = self.cache_key.as_ref().map(|key| AuthCache {
            key: key.clone(),
            durations: self
                .cache_durations
                .clone()
                .unwrap_or_else(|| vec![(DURATION.0.to_vec(), DURATION.1)]),
        });
        Some(Arc::new(ExternalAuth {
            backend: in_cluster(&url, settings),
            url,
            method: self.method.clone(),
            headers: self.more_headers.clone(),
            response_headers: self.response_headers.clone(),
            signin: self
                .signin
                .as_deref()
                .map(|signin| with_way_back(signin, self.signin_param.as_deref().unwrap_or("rd"))),
            request_redirect: self.request_redirect.clone(),
            always_set_cookie: self.always_set_cookie,
            cache,
        }))
    }
}

/// The URL where users say who they are, with a parameter that says where they wanted to go, unless it is there.
fn with_way_back(signin: &str, param: &str) -> String {
    let query = signin.split_once('?').map(|(_, query)| query);
    let given = query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .any(|pair| {
            pair.split_once('=')
                .is_some_and(|(name, value)| name == param && !value.is_empty())
        });
    if given {
        return signin.to_owned();
    }
    let mark = match query {
        None => "?",
        Some("") => "",
        Some(_) => "&",
    };
    format!("{signin}{mark}{param}=$scheme://$http_host$escaped_request_uri")
}

/// The backend of a URL whose host is the name of a Service (`NAME.NAMESPACE.svc`, with or without `cluster.local`),
/// so that its endpoints are known and need not be looked up. Over TLS the name is looked up, since it is the one to
/// connect for.
pub(crate) fn in_cluster(url: &str, settings: &Settings) -> Option<BackendId> {
    let rest = url.strip_prefix("http://")?;
    let end = rest.find(['/', '?', '#', '$']).unwrap_or(rest.len());
    let authority = rest.get(..end)?;
    if rest
        .get(end..)
        .is_some_and(|rest| rest.starts_with("$host"))
    {
        return None;
    }
    let (host, port) = authority.split_once(':').unwrap_or((authority, "80"));
    let host = host.strip_suffix('.').unwrap_or(host);
    let name = host
        .strip_suffix(".svc.cluster.local")
        .or_else(|| host.strip_suffix(".svc"))?;
    let (service, namespace) = name.split_once('.')?;
    let known = service::is_service_name(service)
        && !namespace.contains('.')
        && service::is_service_name(namespace)
        && settings.watches(namespace)
        && port.parse::<u16>().is_ok_and(|port| port > 0);
    known.then(|| {
        service::backend_id(
            namespace,
            service,
            port,
            Some(BackendProtocol::Http1),
            false,
        )
    })
}

/// A URL with http or https in which variables may stand.
pub(crate) fn url(text: &str) -> Result<String, String> {
    let url = value::url(text)?;
    if url.starts_with('/') {
        return Err("it is not a URL with http or https".to_owned());
    }
    Ok(url)
}

/// A URL that copies of requests go to: variables may stand behind its host.
pub(crate) fn mirror(text: &str) -> Result<String, String> {
    let url = url(text)?;
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let host = rest.get(..end).unwrap_or_default();
    let host = host
        .split_once("$request_uri")
        .map_or(host, |(host, _)| host);
    if host.is_empty() || host.contains(['$', '@']) {
        return Err("its host is none, or has variables in it".to_owned());
    }
    Ok(url)
}

/// A URL, whose scheme may be that of the request, or a path.
pub(crate) fn signin(text: &str) -> Result<String, String> {
    let text = text.trim();
    match text
        .strip_prefix("$scheme://")
        .or_else(|| text.strip_prefix("$pass_access_scheme://"))
    {
        Some(rest) => value::url(&format!("https://{rest}")).map(|_| text.to_owned()),
        None => value::url(text),
    }
}

/// The method of the question.
pub(crate) fn method(text: &str) -> Result<String, String> {
    let text = text.trim();
    METHODS
        .contains(&text)
        .then(|| text.to_owned())
        .ok_or_else(|| format!("it is none of {}", METHODS.join(", ")))
}

/// Names of headers, at least one.
pub(crate) fn names(text: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = value::list(text)
        .map(|entry| {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            if entry.len() <= 128 && entry.bytes().all(legal) {
                Ok(entry.to_owned())
            } else {
                Err(format!("{} is not the name of a header", quoted(entry)))
            }
        })
        .collect::<Result<_, _>>()?;
    if names.is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(names)
}

/// A text of letters, digits, `-`, `_` and variables.
pub(crate) fn cache_key(text: &str) -> Result<String, String> {
    let text = text.trim();
    let legal =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'$' | b'{' | b'}');
    if text.is_empty() || !text.bytes().all(legal) {
        return Err("it is not made of letters, digits, `-`, `_` and variables".to_owned());
    }
    Ok(text.to_owned())
}

/// Lists of statuses, each with a time behind it: `200 202 401 5m, 403 10s`. A time alone is for 200, 301 and 302.
pub(crate) fn durations(text: &str) -> Result<Vec<(Vec<u16>, u32)>, String> {
    let lists: Vec<_> = value::list(text)
        .map(|entry| {
            let mut words: Vec<&str> = entry.split_whitespace().collect();
            let time = words.pop().unwrap_or_default();
            let seconds = seconds(time).ok_or_else(|| {
                format!("{} is not a time such as `30s`, `5m` or `1h`", quoted(time))
            })?;
            let statuses = words.iter().map(|word| {
                word.parse::<u16>()
                    .ok()
                    .filter(|status| (100..600).contains(status) && word.len() == 3)
                    .ok_or_else(|| format!("{} is not a status", quoted(word)))
            });
            let mut statuses: Vec<u16> = statuses.collect::<Result<_, _>>()?;
            if statuses.is_empty() {
                statuses = vec![200, 301, 302];
            }
            Ok((statuses, seconds))
        })
        .collect::<Result<_, String>>()?;
    if lists.is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(lists)
}

fn seconds(text: &str) -> Option<u32> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u32 = digits
        .parse()
        .ok()
        .filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let unit = match text.strip_prefix(digits)? {
        // Less than a second is nothing.
        "ms" => return Some(number / 1000),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        "M" => 30 * 86_400,
        "y" => 365 * 86_400,
        _ => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_nginx_reads_them() {
        for (text, want) in [
            ("200 202 401 5m", Some(vec![(vec![200, 202, 401], 300)])),
            (
                "200 202 10m, 401 5s",
                Some(vec![(vec![200, 202], 600), (vec![401], 5)]),
            ),
            ("1h", Some(vec![(vec![200, 301, 302], 3600)])),
            ("200 1500ms", Some(vec![(vec![200], 1)])),
            ("200 401", None),
            ("200 5", None),
            ("5m 200", None),
            ("2000 5m", None),
            ("any 5m", None),
            ("200 99999999999h", None),
            ("200 5q", None),
            ("", None),
        ] {
            assert_eq!(durations(text).ok(), want, "{text}");
        }
    }

    #[test]
    fn the_way_back_is_added_once() {
        const BACK: &str = "$scheme://$http_host$escaped_request_uri";
        for (signin, param, want) in [
            (
                "https://a.test/start",
                "rd",
                format!("https://a.test/start?rd={BACK}"),
            ),
            (
                "https://a.test/start?x=1",
                "rd",
                format!("https://a.test/start?x=1&rd={BACK}"),
            ),
            (
                "https://a.test/start?",
                "rd",
                format!("https://a.test/start?rd={BACK}"),
            ),
            (
                "https://a.test/start",
                "to",
                format!("https://a.test/start?to={BACK}"),
            ),
            (
                "https://a.test/?rd=/x",
                "rd",
                "https://a.test/?rd=/x".to_owned(),
            ),
            (
                "https://a.test/?rd=",
                "rd",
                format!("https://a.test/?rd=&rd={BACK}"),
            ),
        ] {
            assert_eq!(with_way_back(signin, param), want);
        }
    }

    #[test]
    fn services_of_the_cluster_are_known_by_their_names() {
        let settings = Settings::default();
        for (url, want) in [
            (
                "http://auth.sso.svc.cluster.local:4180/oauth2/auth",
                Some("sso/auth:4180+http1"),
            ),
            ("http://auth.sso.svc/x?y", Some("sso/auth:80+http1")),
            ("http://auth.sso.svc$request_uri", Some("sso/auth:80+http1")),
            ("https://auth.sso.svc/x", None),
            ("http://auth.sso/x", None),
            ("http://a.auth.sso.svc/x", None),
            ("http://auth.example.com/x", None),
            ("http://auth.sso.svc:0/x", None),
            ("http://$host/x", None),
            ("http://auth.sso.svc$host/x", None),
        ] {
            let found = in_cluster(url, &settings).map(|id| id.to_string());
            assert_eq!(found.as_deref(), want, "{url}");
        }
    }

    #[test]
    fn values_of_the_wrong_kind_are_refused() {
        for (text, legal) in [
            ("http://auth.test/verify?to=$request_uri", true),
            ("https://$host/oauth2/auth", true),
            ("/oauth2/auth", false),
            ("auth.test", false),
            ("http://a b.test/", false),
        ] {
            assert_eq!(url(text).is_ok(), legal, "{text}");
        }
        for (text, legal) in [
            ("$scheme://$host/oauth2/start?rd=$escaped_request_uri", true),
            ("https://sso.test/", true),
            ("/login", true),
            ("$scheme:///x", false),
            ("javascript:alert(1)", false),
        ] {
            assert_eq!(signin(text).is_ok(), legal, "{text}");
        }
        assert!(method("POST").is_ok() && method("CONNECT").is_err() && method("post").is_err());
        assert_eq!(names("X-User, X-Email").unwrap(), ["X-User", "X-Email"]);
        assert!(names("").is_err() && names("a b").is_err() && names("x\ny").is_err());
        assert!(cache_key("$remote_user$http_authorization").is_ok());
        assert!(cache_key("").is_err() && cache_key("a b").is_err());
    }
}
