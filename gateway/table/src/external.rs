//! Asking another server about a request, compiled.

use http::{HeaderName, Method, StatusCode, header};
use model::{AuthCache, ExternalAuth, HostPattern};

use crate::backends::{BackendSlot, Backends};
use crate::route::header_name;
use crate::template::{Template, Variable};

/// How another server is asked about a request, and what becomes of its answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CompiledExternal {
    /// Over TLS?
    pub https: bool,
    /// Host and port.
    pub authority: Template,
    /// Path and query.
    pub target: Template,
    /// Whose endpoints are asked.
    pub backend: Option<BackendSlot>,
    /// How to ask, where it is said.
    pub method: Option<Method>,
    /// More headers for the question.
    pub headers: Vec<(HeaderName, Template)>,
    /// Headers of the answer that the backend gets.
    pub response_headers: Vec<HeaderName>,
    /// Where a client goes instead of getting 401.
    pub signin: Option<Template>,
    /// What the question says about where the client wants to go.
    pub request_redirect: Option<Template>,
    /// Cookies of the answer go to the client whatever its response is.
    pub always_set_cookie: bool,
    /// Answers are remembered.
    pub cache: Option<CompiledAuthCache>,
}

/// For how long answers about requests are remembered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CompiledAuthCache {
    /// Requests with the same text get the same answer.
    pub key: Template,
    /// Stands for the host and for everything that the question is made of: an answer to another one does not count.
    pub identity: Box<str>,
    /// Statuses with seconds.
    durations: Vec<(Vec<u16>, u32)>,
}

impl CompiledAuthCache {
    /// For how many seconds an answer with this status holds.
    pub fn seconds(&self, status: StatusCode) -> Option<u32> {
        self.durations
            .iter()
            .find(|(statuses, _)| statuses.contains(&status.as_u16()))
            .map(|(_, seconds)| *seconds)
            .filter(|seconds| *seconds > 0)
    }
}

impl CompiledExternal {
    pub(crate) fn compile(
        external: &ExternalAuth,
        host: &HostPattern,
        backends: &mut Backends,
        acquired: &mut Vec<BackendSlot>,
    ) -> Result<Self, String> {
        let ExternalAuth {
            url,
            backend,
            method,
            headers,
            response_headers,
            signin,
            request_redirect,
            always_set_cookie,
            cache,
        } = external;
        let (https, authority, target) = split(url)?;
        let authority = Template::parse(authority)?;
        for variable in authority.variables() {
            if *variable != Variable::Host {
                return Err(
                    "of variables only `$host` can stand in the host of the server that is asked"
                        .to_owned(),
                );
            }
            if *host == HostPattern::Any {
                return Err(
                    "`$host` is whatever a client says where a route answers for every host, and so would be the server that is asked"
                        .to_owned(),
                );
            }
        }
        let method = method.as_deref().map(|method| {
            Method::from_bytes(method.as_bytes())
                .ok()
                .filter(|method| *method != Method::CONNECT)
                .ok_or_else(|| format!("`{}` is no method to ask with", method.escape_debug()))
        });
        let headers = headers
            .iter()
            .map(|(name, value)| Ok::<_, String>((header_name(name)?, Template::parse(value)?)));
        let response_headers = response_headers.iter().map(|name| {
            header_name(name).and_then(|name| match name {
                header::HOST => Err("header `host` is not the answer's to change".to_owned()),
                name => Ok(name),
            })
        });
        let template = |text: &Option<String>| text.as_deref().map(Template::parse).transpose();
        let compiled = Self {
            https,
            authority,
            target: Template::parse(&target)?,
            backend: None,
            method: method.transpose()?,
            headers: headers.collect::<Result<_, _>>()?,
            response_headers: response_headers.collect::<Result<_, _>>()?,
            signin: template(signin)?,
            request_redirect: template(request_redirect)?,
            always_set_cookie: *always_set_cookie,
            cache: match cache {
                Some(AuthCache { key, durations }) => Some(CompiledAuthCache {
                    key: Template::parse(key)?,
                    identity: format!("{host} {external:?}").into(),
                    durations: durations.clone(),
                }),
                None => None,
            },
        };
        // What fails before this takes no place.
        let slot = backend.as_ref().map(|id| backends.acquire(id));
        acquired.extend(slot);
        Ok(Self {
            backend: slot,
            ..compiled
        })
    }
}

/// TLS or not, host with port, path with query.
pub(crate) fn split(url: &str) -> Result<(bool, &str, String), String> {
    let (https, rest) = if let Some(rest) = url.strip_prefix("https://") {
        (true, rest)
    } else if let Some(rest) = url.strip_prefix("http://") {
        (false, rest)
    } else {
        return Err("the server that is asked needs a URL with http or https".to_owned());
    };
    // A path may begin with what stands for one.
    let end = [
        "/",
        "?",
        "#",
        "$request_uri",
        "${request_uri}",
        "$uri",
        "${uri}",
    ]
    .iter()
    .filter_map(|mark| rest.find(mark))
    .min()
    .unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    if authority.is_empty() || authority.contains('@') || target.contains('#') {
        return Err(
            "the URL of the server that is asked has no host, or more than it needs".to_owned(),
        );
    }
    let target = match target.as_bytes().first() {
        None => "/".to_owned(),
        Some(b'?') => format!("/{target}"),
        Some(_) => target.to_owned(),
    };
    Ok((https, authority, target))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(url: &str, host: &str) -> Result<CompiledExternal, String> {
        let external = ExternalAuth {
            url: url.to_owned(),
            ..ExternalAuth::default()
        };
        let host = HostPattern::parse(host).unwrap();
        CompiledExternal::compile(&external, &host, &mut Backends::new(), &mut Vec::new())
    }

    #[test]
    fn a_url_has_a_host_that_its_owner_chose() {
        for (url, host, legal) in [
            ("http://auth.test/verify?x=$request_uri", "a.test", true),
            ("https://auth.test", "a.test", true),
            ("http://auth.test$request_uri", "a.test", true),
            ("https://$host/oauth2/auth", "a.test", true),
            ("https://$host/oauth2/auth", "*.a.test", true),
            ("https://$host/oauth2/auth", "*", false),
            ("https://$http_host/oauth2/auth", "a.test", false),
            ("http://$arg_to/", "a.test", false),
            ("http://$http_x_to.test/", "a.test", false),
            ("http://auth.test/#x", "a.test", false),
            ("http://user@auth.test/", "a.test", false),
            ("http:///x", "a.test", false),
            ("ftp://auth.test/", "a.test", false),
            ("/verify", "a.test", false),
            ("http://auth.test/$nothing", "a.test", false),
        ] {
            assert_eq!(compile(url, host).is_ok(), legal, "{url} {host}");
        }
    }

    #[test]
    fn a_url_is_split_where_its_path_begins() {
        for (url, want) in [
            ("http://a.test", (false, "a.test", "/")),
            ("https://a.test:8443?x=1", (true, "a.test:8443", "/?x=1")),
            ("http://a.test/b/c?d", (false, "a.test", "/b/c?d")),
            (
                "http://a.test$request_uri",
                (false, "a.test", "$request_uri"),
            ),
        ] {
            let (https, authority, target) = split(url).unwrap();
            assert_eq!((https, authority, target.as_str()), want, "{url}");
        }
    }
}
