//! Errors, headers, logs.

use super::super::{Annotation, Group, Risk, Scope, Value};
use crate::{service, value};

/// What happens instead of tracing.
const NO_TRACES: &str = "no spans are exported; headers such as `traceparent` go to the pods as they came, and every request has an `X-Request-ID`";

/// Errors, headers, logs.
pub(super) static RESPONSES: &[Annotation] = &[
    Annotation::different(
        "custom-http-errors",
        Value::Statuses,
        |read, text| value::error_statuses(text).map(|v| read.traffic().error_statuses = Some(v)),
        "what Lockgate decides itself (closed routes, addresses, passwords, limits) is never replaced; without a default backend, and for requests whose body is over 64 KiB, the answer of the pod stays",
    )
    .about(
        Group::Responses,
        "Answers of these statuses are replaced by those of the default backend.",
    ),
    Annotation::honoured(
        "default-backend",
        Value::Text("name of a Service"),
        |read, text| service_name(text).map(|v| read.traffic().default_backend = Some(v)),
    )
    .about(
        Group::Responses,
        "Answers when the Service has no endpoints, and for `custom-http-errors`.",
    ),
    Annotation::honoured(
        "disable-proxy-intercept-errors",
        Value::Boolean,
        |read, text| value::boolean(text).map(|v| read.traffic().keeps_answers = Some(v)),
    )
    .by_default("false")
    .about(
        Group::Responses,
        "Keeps the error pages of the pods; failures to reach them are still replaced.",
    ),
    Annotation::different(
        "custom-headers",
        Value::Object,
        |read, text| value::object(text).map(|name| read.traffic().headers = Some(name)),
        "`--header-configmaps` has to name the ConfigMap; one that is missing, and one with a header that is not allowed, closes the route",
    )
    .risk(Risk::Medium)
    .otherwise("responses get no such headers")
    .about(
        Group::Responses,
        "A ConfigMap with headers for responses, each of which is in `global-allowed-response-headers`.",
    ),
    Annotation::honoured("enable-access-log", Value::Boolean, |read, text| {
        value::boolean(text).map(|v| read.traffic().unlogged = !v)
    })
    .by_default("true")
    .about(Group::Responses, "Whether requests are logged."),
    Annotation::ignored(
        "enable-rewrite-log",
        Value::Boolean,
        "there is no such log; the access log has the path that went to the backend",
    )
    .by_default("false")
    .about(Group::Responses, "Logs rewrites."),
    Annotation::ignored("enable-opentelemetry", Value::Boolean, NO_TRACES)
        .about(Group::Responses, "Traces requests."),
    Annotation::ignored("opentelemetry-trust-incoming-span", Value::Boolean, NO_TRACES).harmless(&["true"])
        .by_default("true")
        .about(Group::Responses, "Joins the trace of the client."),
    Annotation::ignored("opentelemetry-operation-name", Value::Text("name"), NO_TRACES)
        .risk(Risk::Medium)
        .about(Group::Responses, "The name of the span."),
];

/// TLS towards clients.
pub(super) static TLS: &[Annotation] = &[
    Annotation::different("ssl-passthrough", Value::Boolean, |annotations, text| {
        annotations.passthrough = value::boolean(text)?;
        Ok(())
    }, "without `--enable-ssl-passthrough`, on a host that an older Ingress has, and together with annotations that guard requests, the routes answer 503 rather than being decrypted or unguarded; plain HTTP goes to https unless `ssl-redirect` says otherwise; pods are connected to, not the address of the Service")
        .by_default("false")
        .scope(Scope::Host)
        .risk(Risk::High)
        .guarding()
        .about(
            Group::Tls,
            "Passes TLS connections on as they are, by server name.",
        ),
    Annotation::ignored(
        "ssl-ciphers",
        Value::Text("OpenSSL names, by colons"),
        "the setting `ssl-ciphers` of the ConfigMap decides for all hosts",
    )
    .scope(Scope::Host)
    .about(Group::Tls, "Cipher suites of the host."),
    Annotation::ignored("ssl-prefer-server-ciphers", Value::Boolean, "all suites that are offered are good, and the client knows which is the fastest for it")
        .by_default("true")
        .scope(Scope::Host)
        .about(Group::Tls, "Whose order of cipher suites counts."),
];

fn service_name(text: &str) -> Result<String, String> {
    let name = text.trim();
    if service::is_service_name(name) {
        Ok(name.to_owned())
    } else {
        Err("it is not the name of a Service".to_owned())
    }
}
