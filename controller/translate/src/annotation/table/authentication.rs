//! Who a user is.

use super::super::{Annotation, Group, Risk, Scope, Value, Verify};
use crate::secret::UsersForm;
use crate::{external, policy, value};

/// Who a user is.
pub(super) static AUTHENTICATION: &[Annotation] = &[
    Annotation::different(
        "auth-type",
        Value::OneOf(&["basic"]),
        |read, text| match text.trim() {
            "basic" => {
                read.access().basic = true;
                Ok(())
            }
            "digest" => Err("digest needs passwords, or what is as good as them, in clear; use `basic`".to_owned()),
            _ => Err("it is not `basic`".to_owned()),
        },
        "`digest` cannot be used and closes the route; without a Secret that can be read the route is closed",
    ).alike_if_readable()
    .guarding()
    .about(Group::Authentication, "Asks for name and password."),
    Annotation::different(
        "auth-secret",
        Value::Object,
        |read, text| value::object(text).map(|secret| read.access().secret = Some(secret)),
        "it counts without `auth-type`, too; a Secret of another namespace needs a `ReferenceGrant`, or it closes the route; hashes are bcrypt, `$apr1$`, SHA-crypt, `{SHA}` and `{SSHA}`",
    )
    .risk(Risk::Medium)
    .guarding()
    .about(
        Group::Authentication,
        "The Secret with names and passwords.",
    ),
    Annotation::honoured(
        "auth-secret-type",
        Value::OneOf(&["auth-file", "auth-map"]),
        |read, text| {
            read.access().form = match text.trim() {
                "auth-file" => UsersForm::File,
                "auth-map" => UsersForm::Map,
                _ => return Err("it is neither `auth-file` nor `auth-map`".to_owned()),
            };
            Ok(())
        },
    )
    .by_default("auth-file")
    .guarding()
    .about(
        Group::Authentication,
        "How that Secret holds them: an htpasswd file in the key `auth`, or a key per name.",
    ),
    Annotation::honoured("auth-realm", Value::Text("text"), |read, text| {
        let legal = |c: char| !c.is_control() && !matches!(c, '"' | '\\');
        if !text.chars().all(legal) {
            return Err("it has control characters, quotes or backslashes in it".to_owned());
        }
        read.access().realm = Some(text.trim().to_owned());
        Ok(())
    })
    .by_default("Authentication Required")
    .risk(Risk::Medium)
    .about(
        Group::Authentication,
        "What the browser shows when it asks.",
    ),
    Annotation::different(
        "auth-url",
        Value::Url,
        |read, text| external::url(text).map(|url| read.access().external.url = Some(url)),
        "in the host only `$host` may be a variable, and not where a route answers for every host; endpoints of a Service in the cluster are asked directly; loopback and link-local addresses are not asked; the question has neither conditions nor ranges; no answer is 500",
    )
    .risk(Risk::High)
    .guarding()
    .about(
        Group::Authentication,
        "Asks this URL before each request: 2xx lets it pass, 401 and 403 do not.",
    ),
    Annotation::honoured("auth-signin", Value::Url, |read, text| {
        external::signin(text).map(|url| read.access().external.signin = Some(url))
    })
    .risk(Risk::High)
    .guarding()
    .about(Group::Authentication, "Where a browser goes on 401."),
    Annotation::honoured("auth-signin-redirect-param", Value::Name, |read, text| {
        value::name(text).map(|name| read.access().external.signin_param = Some(name))
    })
    .by_default("rd")
    .risk(Risk::Medium)
    .guarding()
    .about(
        Group::Authentication,
        "The query parameter that carries the way back.",
    ),
    Annotation::honoured("auth-response-headers", Value::Names, |read, text| {
        external::names(text).map(|names| read.access().external.response_headers = names)
    })
    .risk(Risk::Medium)
    .guarding()
    .about(
        Group::Authentication,
        "Headers of the answer of `auth-url` that go to the backend; those of the client do not.",
    ),
    Annotation::different(
        "auth-method",
        Value::OneOf(&[
            "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE",
        ]),
        |read, text| {
            external::method(text).map(|method| read.access().external.method = Some(method))
        },
        "`CONNECT` cannot be used",
    ).alike_if_readable()
    .by_default("GET")
    .guarding()
    .about(
        Group::Authentication,
        "The method of the question to `auth-url`.",
    ),
    Annotation::honoured("auth-request-redirect", Value::Url, |read, text| {
        value::url(text).map(|url| read.access().external.request_redirect = Some(url))
    })
    .risk(Risk::Medium)
    .guarding()
    .about(
        Group::Authentication,
        "The value of `X-Auth-Request-Redirect` in that question.",
    ),
    Annotation::honoured("auth-always-set-cookie", Value::Boolean, |read, text| {
        value::boolean(text).map(|always| read.access().external.always_set_cookie = always)
    })
    .by_default("false")
    .guarding()
    .about(
        Group::Authentication,
        "Passes cookies of `auth-url` on with errors, too.",
    ),
    Annotation::different(
        "auth-proxy-set-headers",
        Value::Object,
        |read, text| {
            value::object(text).map(|name| read.access().external.headers = Some(name))
        },
        "`--header-configmaps` has to name the ConfigMap; one that is missing or has anything else than headers in it closes the route",
    )
    .risk(Risk::Medium)
    .guarding()
    .about(
        Group::Authentication,
        "A ConfigMap with more headers for that question.",
    ),
    Annotation::different(
        "auth-cache-key",
        Value::Text("text with variables"),
        |read, text| external::cache_key(text).map(|key| read.access().external.cache_key = Some(key)),
        "requests for which it is empty are always asked about; answers with cookies are not kept",
    )
    .risk(Risk::Medium)
    .guarding()
    .about(
        Group::Authentication,
        "Remembers answers of `auth-url` under this key.",
    ),
    Annotation::different(
        "auth-cache-duration",
        Value::Text("statuses and times, by commas"),
        |read, text| {
            external::durations(text)
                .map(|durations| read.access().external.cache_durations = Some(durations))
        },
        "what cannot be read closes the route instead of opening it",
    )
    .by_default("200 202 401 5m")
    .risk(Risk::Medium)
    .guarding()
    .about(Group::Authentication, "For how long."),
    Annotation::ignored(
        "auth-keepalive",
        Value::Number(0, u32::MAX),
        "connections are always kept",
    )
    .by_default("0")
    .about(
        Group::Authentication,
        "How many connections to `auth-url` are kept.",
    ),
    Annotation::ignored(
        "auth-keepalive-share-vars",
        Value::Boolean,
        "there are no variables to share",
    )
    .by_default("false")
    .about(
        Group::Authentication,
        "Shares variables of nginx with the question.",
    ),
    Annotation::ignored(
        "auth-keepalive-requests",
        Value::Number(0, u32::MAX),
        "connections are used as long as they are good",
    )
    .by_default("1000")
    .about(
        Group::Authentication,
        "How many questions a connection may carry.",
    ),
    Annotation::ignored(
        "auth-keepalive-timeout",
        Value::Number(0, u32::MAX),
        "connections have one idle time for all backends",
    )
    .by_default("60")
    .about(
        Group::Authentication,
        "How long an idle connection is kept.",
    ),
    Annotation::different(
        "auth-snippet",
        Value::Text("configuration of nginx"),
        |read, text| policy::question(text).map(|headers| read.access().external.more_headers = headers),
        "never executed: headers of the question are translated; anything else closes the routes",
    )
    .risk(Risk::Critical)
    .guarding()
    .waived_by("accept-without-snippets")
    .about(
        Group::Authentication,
        "Raw configuration of nginx for the question.",
    ),
    Annotation::honoured("enable-global-auth", Value::Boolean, |read, text| {
        value::boolean(text).map(|enabled| read.access().without_global = !enabled)
    })
    .by_default("true")
    .guarding()
    .about(
        Group::Authentication,
        "`false` leaves the global `auth-url` of the ConfigMap out.",
    ),
    Annotation::different(
        "satisfy",
        Value::OneOf(&["any", "all"]),
        |read, text| match text.trim() {
            "any" => {
                read.access().satisfy_any = true;
                Ok(())
            }
            "all" => Ok(()),
            _ => Err("it is neither `any` nor `all`".to_owned()),
        },
        "`denylist-source-range` denies in any case",
    ).alike(|text| text.eq_ignore_ascii_case("all"))
    .by_default("all")
    .guarding()
    .about(
        Group::Authentication,
        "Whether one of address list and authentication suffices.",
    ),
];

/// Certificates of clients.
pub(super) static CERTIFICATES: &[Annotation] = &[
    Annotation::different(
        "auth-tls-secret",
        Value::Object,
        |read, text| {
            read.set_clients(value::object(text), |values, secret| {
                values.secret = Some(secret);
            })
        },
        "a Secret that is missing, broken or, without a `ReferenceGrant`, another namespace's closes the host (503); without TLS a client has no certificate; a certificate of version 1, or of an authority, has to come directly from an authority in `ca.crt`, and there may be no `ca.crl`; CRLs of version 1 cannot be read; of two Ingresses the older one in the namespace of the host decides, and a younger one that asks for more than that is closed",
    )
    .scope(Scope::Host)
    .risk(Risk::Medium)
    .guarding()
    .about(
        Group::ClientCertificates,
        "The Secret with the authorities (`ca.crt`) and revocation lists (`ca.crl`) for certificates of clients.",
    ),
    Annotation::honoured(
        "auth-tls-verify-client",
        Value::OneOf(&["on", "off", "optional", "optional_no_ca"]),
        |read, text| {
            let verify = match text.trim() {
                "on" => Ok(Verify::On),
                "off" => Ok(Verify::Off),
                "optional" => Ok(Verify::Optional),
                "optional_no_ca" => Ok(Verify::OptionalWithoutAuthority),
                _ => Err("it is none of `on`, `off`, `optional` and `optional_no_ca`".to_owned()),
            };
            read.set_clients(verify, |values, verify| values.verify = Some(verify))
        },
    )
    .by_default("on")
    .scope(Scope::Host)
    .risk(Risk::Medium)
    .guarding()
    .about(
        Group::ClientCertificates,
        "Whether a client has to have a certificate; without one, or with one that is not good, it gets 400.",
    ),
    Annotation::different(
        "auth-tls-verify-depth",
        Value::Number(0, u32::MAX),
        |read, text| {
            read.set_clients(value::number(text, 0, u32::MAX), |values, depth| {
                values.depth = Some(depth);
            })
        },
        "every certificate in `ca.crt` is the end of a chain",
    )
    .by_default("1")
    .scope(Scope::Host)
    .guarding()
    .about(
        Group::ClientCertificates,
        "How many authorities may stand between a certificate and one in `ca.crt`; 0 stands for the default.",
    ),
    Annotation::honoured(
        "auth-tls-pass-certificate-to-upstream",
        Value::Boolean,
        |read, text| read.set_clients(value::boolean(text), |values, pass| values.pass = pass),
    )
    .by_default("false")
    .scope(Scope::Host)
    .guarding()
    .about(
        Group::ClientCertificates,
        "Sends the certificate to the backend as `ssl-client-cert`, escaped as for a URL.",
    ),
    Annotation::different(
        "auth-tls-error-page",
        Value::Url,
        |read, text| {
            let url = value::url(text).and_then(|url| {
                if url.starts_with('/') {
                    return Err("a page of the host itself would need a certificate, too; give the whole URL".to_owned());
                }
                Ok(url)
            });
            read.set_clients(url, |values, url| values.error_page = Some(url))
        },
        "only whole URLs with http or https: a path or a named location closes the host",
    )
    .scope(Scope::Host)
    .risk(Risk::High)
    .guarding()
    .about(
        Group::ClientCertificates,
        "Where a client without a good certificate is sent, with 302.",
    ),
    Annotation::different(
        "auth-tls-match-cn",
        Value::Text("`CN=` and a regular expression"),
        |read, text| {
            let subject = match text.trim() {
                text if text.starts_with("CN=") && !text.contains(char::is_control) => Ok(text.to_owned()),
                _ => Err("it is not `CN=` and a regular expression".to_owned()),
            };
            read.set_clients(subject, |values, subject| values.subject = Some(subject))
        },
        "expressions are linear in time: look-around and back-references close the route",
    ).alike_if_readable()
    .scope(Scope::Host)
    .risk(Risk::High)
    .guarding()
    .about(
        Group::ClientCertificates,
        "The subject of the certificate has to match anywhere, else 403.",
    ),
];
