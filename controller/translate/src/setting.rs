//! The keys of the global ConfigMap: one table for reports and for `docs/configmap.md`.

use crate::annotation::{PENDING, Verdict, distance};

/// A key of the global ConfigMap.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// What applies where it is absent; empty for nothing.
    pub default: &'static str,
    /// What Lockgate makes of it.
    pub verdict: Verdict,
    /// What it does.
    pub about: &'static str,
}

/// Every key with a verdict, in the order of the alphabet.
pub fn all() -> &'static [Setting] {
    SETTINGS
}

/// The key of this name.
pub fn find(name: &str) -> Option<&'static Setting> {
    let place = SETTINGS.binary_search_by(|setting| setting.name.cmp(name));
    place.ok().and_then(|place| SETTINGS.get(place))
}

/// The key whose name differs least, if that is little.
pub(crate) fn nearest(name: &str) -> Option<&'static Setting> {
    if name.len() > 64 {
        return None;
    }
    let near = SETTINGS
        .iter()
        .map(|setting| (distance(name, setting.name), setting));
    near.min_by_key(|(distance, setting)| (*distance, setting.name))
        .filter(|(distance, _)| *distance <= 2)
        .map(|(_, setting)| setting)
}

const fn honoured(name: &'static str, default: &'static str, about: &'static str) -> Setting {
    Setting {
        name,
        default,
        verdict: Verdict::Honoured,
        about,
    }
}

const fn different(
    name: &'static str,
    default: &'static str,
    about: &'static str,
    difference: &'static str,
) -> Setting {
    Setting {
        name,
        default,
        verdict: Verdict::Different(difference),
        about,
    }
}

const fn ignored(
    name: &'static str,
    default: &'static str,
    about: &'static str,
    why: &'static str,
) -> Setting {
    Setting {
        name,
        default,
        verdict: Verdict::Ignored(why),
        about,
    }
}

const fn refused(
    name: &'static str,
    default: &'static str,
    about: &'static str,
    why: &'static str,
) -> Setting {
    Setting {
        name,
        default,
        verdict: Verdict::Refused(why),
        about,
    }
}

const BUFFERS: &str = "read, and nothing follows: see the annotation of the same name";
const COLLECTED: &str = "with `on`, as with the annotation of the same name: bodies of a stated length up to 64 KiB; `off` without it";
const MAPPED: &str = "expressions (after `~` and `~*`) of linear time: no look-around, no back-references; a list that cannot be read closes all routes";
const NO_WORKERS: &str = "there are no nginx processes; see `--workers`";
const NO_LUA: &str = "there is no Lua in here";
/// Why nothing of `ModSecurity` can be honoured.
pub(crate) const NO_FIREWALL: &str =
    "there is no ModSecurity in here; put a firewall before or behind Lockgate";
const NOT_EXECUTED: &str = "raw configuration is never executed";
const LOG_FLAGS: &str = "see `log-format-upstream`, `--access-log` and `--access-log-format`";
const SESSIONS: &str = "sessions are resumed with tickets whose keys the gateway makes";
const POOLS: &str = "the gateway sizes its pools of connections itself";
const NAMED: &str = "`--header-configmaps` has to name it; headers whose values have variables, and `Host`, are left out";
const ADMISSION: &str = "values are read strictly, and nothing is ever executed";

/// In the order of the alphabet, which [`find`] relies on.
static SETTINGS: &[Setting] = &[
    ignored(
        "access-log-params",
        "",
        "Parameters of the access log.",
        LOG_FLAGS,
    ),
    ignored(
        "access-log-path",
        "/var/log/nginx/access.log",
        "Where the access log goes.",
        "it goes to standard output",
    ),
    different(
        "add-headers",
        "",
        "A ConfigMap with headers of every response.",
        NAMED,
    ),
    different(
        "allow-backend-server-header",
        "false",
        "Passes on the `Server` of backends.",
        "without `server-tokens` it is passed on, unless `--compat nginx` is given",
    ),
    ignored(
        "allow-cross-namespace-resources",
        "false",
        "Lets annotations name objects of other namespaces.",
        "objects of other namespaces are read where a `ReferenceGrant` there allows it",
    ),
    ignored(
        "allow-snippet-annotations",
        "false",
        "Lets Ingresses have snippets.",
        NOT_EXECUTED,
    ),
    ignored(
        "annotation-value-word-blocklist",
        "",
        "Words that no annotation may have.",
        ADMISSION,
    ),
    ignored(
        "annotations-risk-level",
        "High",
        "The highest risk that annotations may have.",
        ADMISSION,
    ),
    ignored(
        "auth-snippet",
        "",
        "Raw configuration for authentication.",
        NOT_EXECUTED,
    ),
    ignored(
        "bind-address",
        "",
        "Addresses to listen on.",
        "see `--http-listen` and `--https-listen`",
    ),
    honoured(
        "block-cidrs",
        "",
        "Clients that never pass, whatever an Ingress says.",
    ),
    different(
        "block-referers",
        "",
        "Values of `Referer` that get 403, whatever an Ingress says.",
        MAPPED,
    ),
    different(
        "block-user-agents",
        "",
        "Values of `User-Agent` that get 403, whatever an Ingress says.",
        MAPPED,
    ),
    ignored(
        "brotli-level",
        "4",
        "How hard responses are compressed.",
        "responses are not compressed",
    ),
    ignored(
        "brotli-types",
        "",
        "Which responses are compressed.",
        "responses are not compressed",
    ),
    different(
        "client-body-buffer-size",
        "8k",
        "How much of a request body is kept in memory.",
        BUFFERS,
    ),
    honoured(
        "client-body-timeout",
        "60",
        "How long to wait for more of a request body.",
    ),
    ignored(
        "client-header-buffer-size",
        "1k",
        "The usual size of a request head.",
        "memory is taken as a head comes; see `large-client-header-buffers`",
    ),
    different(
        "client-header-timeout",
        "60",
        "How long to wait for a request head.",
        "30 seconds without it",
    ),
    honoured(
        "compute-full-forwarded-for",
        "false",
        "Appends to `X-Forwarded-For` instead of replacing it.",
    ),
    honoured(
        "custom-http-errors",
        "",
        "Statuses whose answers come from the default backend instead.",
    ),
    honoured(
        "denylist-source-range",
        "",
        "Clients that get 403 unless an Ingress has a list of its own.",
    ),
    different(
        "disable-access-log",
        "false",
        "Writes no access log.",
        "requests that no route matches are logged; see `--access-log`",
    ),
    ignored(
        "disable-ipv6",
        "false",
        "Listens on IPv4 only.",
        "see `--http-listen` and `--https-listen`",
    ),
    ignored(
        "disable-ipv6-dns",
        "false",
        "Looks up IPv4 addresses only.",
        "both families are looked up",
    ),
    honoured(
        "disable-proxy-intercept-errors",
        "false",
        "What pods answer stays, whatever `custom-http-errors` says.",
    ),
    ignored(
        "enable-access-log-for-default-backend",
        "false",
        "Logs requests that no route matches.",
        "they are logged",
    ),
    ignored(
        "enable-aio-write",
        "true",
        "How files are written.",
        NO_WORKERS,
    ),
    ignored(
        "enable-brotli",
        "false",
        "Compresses responses with Brotli.",
        "responses are not compressed",
    ),
    refused(
        "enable-modsecurity",
        "false",
        "Inspects every request with ModSecurity.",
        "there is no ModSecurity in here; put a firewall before or behind Lockgate; `true` closes the routes of Ingresses without `lockgate.dev/accept-without-waf: \"true\"`",
    ),
    ignored(
        "enable-multi-accept",
        "true",
        "How connections are accepted.",
        NO_WORKERS,
    ),
    ignored("enable-ocsp", "false", "Staples OCSP answers.", PENDING),
    ignored("enable-opentelemetry", "false", "Sends traces.", PENDING),
    ignored(
        "enable-owasp-modsecurity-crs",
        "false",
        "Inspects every request with the OWASP rules.",
        NO_FIREWALL,
    ),
    honoured(
        "enable-real-ip",
        "false",
        "Believes those that `proxy-real-ip-cidr` lists about the address of the client, and about nothing else.",
    ),
    ignored(
        "enable-underscores-in-headers",
        "false",
        "Passes on headers with `_` in their names.",
        PENDING,
    ),
    ignored(
        "error-log-level",
        "notice",
        "How much is logged.",
        "see `--log-level`",
    ),
    ignored(
        "error-log-path",
        "/var/log/nginx/error.log",
        "Where the log goes.",
        "it goes to standard error",
    ),
    honoured(
        "force-ssl-redirect",
        "false",
        "Sends plain HTTP to https, certificate or not.",
    ),
    different(
        "forwarded-for-header",
        "X-Forwarded-For",
        "The header that names the client.",
        "`compute-full-forwarded-for` extends `X-Forwarded-For` all the same",
    ),
    ignored(
        "generate-request-id",
        "true",
        "Gives every request an `X-Request-ID`.",
        "every request has one",
    ),
    honoured(
        "global-allowed-response-headers",
        "",
        "Headers that `custom-headers` may set.",
    ),
    honoured(
        "global-auth-always-set-cookie",
        "false",
        "`auth-always-set-cookie` of `global-auth-url`.",
    ),
    honoured(
        "global-auth-cache-duration",
        "200 202 401 5m",
        "`auth-cache-duration` of `global-auth-url`.",
    ),
    honoured(
        "global-auth-cache-key",
        "",
        "`auth-cache-key` of `global-auth-url`.",
    ),
    honoured(
        "global-auth-method",
        "GET",
        "`auth-method` of `global-auth-url`.",
    ),
    honoured(
        "global-auth-request-redirect",
        "",
        "`auth-request-redirect` of `global-auth-url`.",
    ),
    honoured(
        "global-auth-response-headers",
        "",
        "`auth-response-headers` of `global-auth-url`.",
    ),
    honoured(
        "global-auth-signin",
        "",
        "`auth-signin` of `global-auth-url`.",
    ),
    honoured(
        "global-auth-signin-redirect-param",
        "rd",
        "`auth-signin-redirect-param` of `global-auth-url`.",
    ),
    different(
        "global-auth-snippet",
        "",
        "Raw configuration for authentication.",
        "raw configuration is never executed; the routes that it is for are closed",
    ),
    different(
        "global-auth-url",
        "",
        "Asks this server about every request.",
        "as `auth-url`; `enable-global-auth: \"false\"` opts out; a value that cannot be read closes the routes",
    ),
    ignored(
        "gzip-level",
        "1",
        "How hard responses are compressed.",
        "responses are not compressed",
    ),
    ignored(
        "gzip-min-length",
        "256",
        "Which responses are compressed.",
        "responses are not compressed",
    ),
    ignored(
        "gzip-types",
        "",
        "Which responses are compressed.",
        "responses are not compressed",
    ),
    honoured(
        "hide-headers",
        "",
        "Response headers that are not passed on.",
    ),
    honoured("hsts", "true", "Adds `Strict-Transport-Security` over TLS."),
    honoured(
        "hsts-include-subdomains",
        "true",
        "Adds `includeSubDomains` to it.",
    ),
    honoured("hsts-max-age", "31536000", "For how many seconds it holds."),
    honoured("hsts-preload", "false", "Adds `preload` to it."),
    ignored(
        "http-access-log-path",
        "",
        "Where the access log goes.",
        "it goes to standard output",
    ),
    honoured(
        "http-redirect-code",
        "308",
        "The status of redirects to https and `www.`.",
    ),
    ignored("http-snippet", "", "Raw configuration.", NOT_EXECUTED),
    honoured(
        "http2-max-concurrent-streams",
        "128",
        "Requests at once on a connection of HTTP/2.",
    ),
    ignored(
        "ignore-invalid-headers",
        "true",
        "Drops headers with invalid names.",
        "a request with one is refused",
    ),
    honoured(
        "keep-alive",
        "75",
        "How long a client connection may be idle.",
    ),
    different(
        "keep-alive-requests",
        "1000",
        "Requests on one client connection.",
        "10,000 without it; on one of HTTP/2 as many for each stream that there may be at once",
    ),
    different(
        "large-client-header-buffers",
        "4 8k",
        "The largest request head.",
        "number times size is the largest head, and a field may have all of it; 64k without it",
    ),
    honoured(
        "limit-conn-status-code",
        "503",
        "The status where a client has too many requests at once.",
    ),
    ignored(
        "limit-conn-zone-variable",
        "$binary_remote_addr",
        "What is a client.",
        "a client is an address, for IPv6 a /64 network",
    ),
    honoured(
        "limit-rate",
        "0",
        "Kilobytes per second of a response; 0 is no limit.",
    ),
    honoured(
        "limit-rate-after",
        "0",
        "Kilobytes of a response that go first.",
    ),
    honoured(
        "limit-req-status-code",
        "503",
        "The status where a client comes too often.",
    ),
    honoured(
        "load-balance",
        "round_robin",
        "How an endpoint is chosen: `round_robin`, `ewma`, `least_request` (or `least_conn`), `random`.",
    ),
    ignored("location-snippet", "", "Raw configuration.", NOT_EXECUTED),
    different(
        "log-format-escape-json",
        "false",
        "Escapes values in lines of the access log as JSON does.",
        "only with `log-format-upstream`; bytes that are not UTF-8 become U+FFFD",
    ),
    different(
        "log-format-escape-none",
        "false",
        "Does not escape values in lines of the access log.",
        "only with `log-format-upstream`; control characters are escaped all the same",
    ),
    ignored(
        "log-format-stream",
        "",
        "The access log of TCP and UDP.",
        "lines of streams have a fixed set of fields, or those of ingress-nginx's default; see `--access-log-format`",
    ),
    different(
        "log-format-upstream",
        "",
        "Lines of the access log.",
        "it goes before `--access-log-format`; variables that are not known are reported, and `-` in a line; `$bytes_sent` counts the header section as far as it is known when it is made; what answers without a backend, such as a redirect, has no `$service_name`",
    ),
    ignored("lua-shared-dicts", "", "Memory for Lua.", NO_LUA),
    ignored("main-snippet", "", "Raw configuration.", NOT_EXECUTED),
    ignored(
        "map-hash-bucket-size",
        "64",
        "Memory for tables.",
        NO_WORKERS,
    ),
    ignored(
        "max-worker-connections",
        "16384",
        "Connections of one process.",
        "see `--max-connections`",
    ),
    ignored(
        "max-worker-open-files",
        "0",
        "Open files of one process.",
        NO_WORKERS,
    ),
    ignored(
        "modsecurity-snippet",
        "",
        "Rules for ModSecurity.",
        NO_FIREWALL,
    ),
    different(
        "no-auth-locations",
        "/.well-known/acme-challenge",
        "Paths that need no authentication.",
        "whole segments count, and of regular expressions those that are plain text",
    ),
    honoured(
        "no-tls-redirect-locations",
        "/.well-known/acme-challenge",
        "Paths that are not redirected to https.",
    ),
    ignored("otlp-collector-host", "", "Where traces go.", PENDING),
    ignored("otlp-collector-port", "4317", "Where traces go.", PENDING),
    ignored(
        "proxy-add-original-uri-header",
        "false",
        "Sends `X-Original-Uri` to backends.",
        PENDING,
    ),
    honoured(
        "proxy-body-size",
        "1m",
        "The largest request body; 0 is no limit.",
    ),
    different(
        "proxy-buffer-size",
        "4k",
        "The largest response head.",
        BUFFERS,
    ),
    different(
        "proxy-buffering",
        "off",
        "Keeps responses in memory.",
        BUFFERS,
    ),
    different(
        "proxy-buffers-number",
        "4",
        "How much of a response is kept in memory.",
        BUFFERS,
    ),
    ignored(
        "proxy-busy-buffers-size",
        "8k",
        "How much of a response is kept in memory.",
        "responses are passed on as they come",
    ),
    honoured(
        "proxy-connect-timeout",
        "5",
        "Seconds to wait for a connection to a backend.",
    ),
    ignored(
        "proxy-cookie-domain",
        "off",
        "Domains of cookies, and what replaces them.",
        "the annotation of the same name says it per Ingress",
    ),
    ignored(
        "proxy-cookie-path",
        "off",
        "Paths of cookies, and what replaces them.",
        "the annotation of the same name says it per Ingress",
    ),
    ignored(
        "proxy-headers-hash-bucket-size",
        "64",
        "Memory for tables.",
        NO_WORKERS,
    ),
    ignored(
        "proxy-headers-hash-max-size",
        "512",
        "Memory for tables.",
        NO_WORKERS,
    ),
    ignored(
        "proxy-http-version",
        "1.1",
        "The version of HTTP towards backends.",
        "1.1 is spoken",
    ),
    ignored(
        "proxy-max-temp-file-size",
        "1024m",
        "How much of a response goes to a file.",
        "nothing is written to files",
    ),
    different(
        "proxy-next-upstream",
        "error timeout",
        "When another endpoint is tried.",
        "without it, a request that a pod may have seen is not sent twice; tries have a budget; requests of HTTP/1 go by Pingora's engine",
    ),
    honoured(
        "proxy-next-upstream-timeout",
        "0",
        "Seconds after which no other endpoint is tried; 0 is no limit.",
    ),
    different(
        "proxy-next-upstream-tries",
        "3",
        "How many endpoints are tried; 0 is all of them.",
        "8 at most",
    ),
    honoured(
        "proxy-read-timeout",
        "60",
        "Seconds between two reads from a backend.",
    ),
    honoured(
        "proxy-real-ip-cidr",
        "0.0.0.0/0,::/0",
        "Who is believed about the address of the client.",
    ),
    ignored(
        "proxy-redirect-from",
        "off",
        "The beginning of `Location`, and what replaces it.",
        "the annotation of the same name says it per Ingress",
    ),
    different(
        "proxy-request-buffering",
        "on",
        "Keeps request bodies before a backend is asked.",
        COLLECTED,
    ),
    honoured(
        "proxy-send-timeout",
        "60",
        "Seconds between two writes to a backend.",
    ),
    different(
        "proxy-set-headers",
        "",
        "A ConfigMap with headers of every request to a backend.",
        NAMED,
    ),
    honoured(
        "proxy-stream-next-upstream",
        "true",
        "Whether another endpoint is tried where no connection of TCP can be made.",
    ),
    honoured(
        "proxy-stream-next-upstream-timeout",
        "600s",
        "How long other endpoints are tried; 0 is no limit.",
    ),
    honoured(
        "proxy-stream-next-upstream-tries",
        "3",
        "How many endpoints are tried; 0 is no limit.",
    ),
    different(
        "proxy-stream-responses",
        "1",
        "Datagrams that answer one of a client of UDP.",
        "a client that has all its answers is forgotten after ten seconds of silence, not at once",
    ),
    honoured(
        "proxy-stream-timeout",
        "600s",
        "How long TCP, UDP and TLS that is passed on may be silent.",
    ),
    ignored(
        "relative-redirects",
        "false",
        "Redirects without scheme and host.",
        "redirects name scheme and host",
    ),
    honoured(
        "retry-non-idempotent",
        "false",
        "Sends requests again that may do something twice.",
    ),
    ignored(
        "reuse-port",
        "true",
        "One socket per worker.",
        "each worker has its own sockets",
    ),
    ignored(
        "server-name-hash-bucket-size",
        "",
        "Memory for tables.",
        NO_WORKERS,
    ),
    ignored(
        "server-name-hash-max-size",
        "1024",
        "Memory for tables.",
        NO_WORKERS,
    ),
    ignored("server-snippet", "", "Raw configuration.", NOT_EXECUTED),
    different(
        "server-tokens",
        "false",
        "Says what the server is.",
        "`Server: lockgate`",
    ),
    ignored(
        "service-upstream",
        "false",
        "Sends requests to the addresses of Services.",
        "the annotation of the same name says it per Ingress",
    ),
    ignored(
        "skip-access-log-urls",
        "",
        "Paths that are not logged.",
        "`enable-access-log: \"false\"` says it per Ingress",
    ),
    different(
        "ssl-ciphers",
        "",
        "Cipher suites of TLS 1.2.",
        "those that are left after DHE and CBC",
    ),
    ignored("ssl-dh-param", "", "Parameters for DHE.", "there is no DHE"),
    ignored(
        "ssl-early-data",
        "false",
        "Accepts data before the handshake ends.",
        "it can be replayed and is never accepted",
    ),
    ignored(
        "ssl-ecdh-curve",
        "auto",
        "Curves of the key exchange.",
        "the gateway chooses, post-quantum first",
    ),
    different(
        "ssl-protocols",
        "TLSv1.2 TLSv1.3",
        "Versions of TLS.",
        "1.2 and 1.3; 1.3 is always offered",
    ),
    honoured(
        "ssl-redirect",
        "true",
        "Sends plain HTTP to https where the host has a certificate.",
    ),
    different(
        "ssl-reject-handshake",
        "false",
        "Refuses names without a certificate, and clients that send no name.",
        "also names that have rules, but no entry in `spec.tls` that covers them",
    ),
    ignored("ssl-session-cache", "true", "Resumes sessions.", SESSIONS),
    ignored(
        "ssl-session-cache-size",
        "10m",
        "Resumes sessions.",
        SESSIONS,
    ),
    ignored("ssl-session-ticket-key", "", "Resumes sessions.", SESSIONS),
    ignored(
        "ssl-session-tickets",
        "false",
        "Resumes sessions.",
        SESSIONS,
    ),
    ignored("ssl-session-timeout", "10m", "Resumes sessions.", SESSIONS),
    ignored("stream-snippet", "", "Raw configuration.", NOT_EXECUTED),
    ignored(
        "strict-validate-path-type",
        "true",
        "Refuses characters of regular expressions in `Exact` and `Prefix`.",
        "such a path is taken as it is written",
    ),
    ignored(
        "upstream-keepalive-connections",
        "320",
        "Idle connections to backends.",
        POOLS,
    ),
    ignored(
        "upstream-keepalive-requests",
        "10000",
        "Requests on one connection to a backend.",
        POOLS,
    ),
    ignored(
        "upstream-keepalive-time",
        "1h",
        "How long a connection to a backend lives.",
        POOLS,
    ),
    ignored(
        "upstream-keepalive-timeout",
        "60",
        "How long a connection to a backend may be idle.",
        POOLS,
    ),
    honoured(
        "use-forwarded-headers",
        "false",
        "Believes `X-Forwarded-*` of those that `proxy-real-ip-cidr` lists.",
    ),
    ignored(
        "use-geoip",
        "false",
        "Where clients are from.",
        "there are no variables to put it into",
    ),
    ignored(
        "use-geoip2",
        "false",
        "Where clients are from.",
        "there are no variables to put it into",
    ),
    ignored(
        "use-gzip",
        "false",
        "Compresses responses.",
        "responses are not compressed",
    ),
    honoured("use-http2", "true", "Offers HTTP/2 over TLS."),
    honoured(
        "use-proxy-protocol",
        "false",
        "Expects the PROXY protocol from those that `proxy-real-ip-cidr` lists.",
    ),
    ignored(
        "variables-hash-bucket-size",
        "256",
        "Memory for tables.",
        NO_WORKERS,
    ),
    ignored(
        "variables-hash-max-size",
        "2048",
        "Memory for tables.",
        NO_WORKERS,
    ),
    honoured(
        "whitelist-source-range",
        "",
        "The only clients that pass unless an Ingress has a list of its own.",
    ),
    ignored(
        "worker-cpu-affinity",
        "",
        "Processors of processes.",
        NO_WORKERS,
    ),
    ignored(
        "worker-processes",
        "auto",
        "How many processes there are.",
        NO_WORKERS,
    ),
    ignored(
        "worker-serial-reloads",
        "false",
        "One reload after the other.",
        "nothing is reloaded",
    ),
    ignored(
        "worker-shutdown-timeout",
        "240s",
        "How long connections live after a reload.",
        "nothing is reloaded; see `--drain-timeout`",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_order_and_found() {
        for pair in SETTINGS.windows(2) {
            assert!(
                pair[0].name < pair[1].name,
                "{} is out of order",
                pair[1].name
            );
        }
        for setting in all() {
            assert!(find(setting.name).is_some_and(|found| found.name == setting.name));
            assert!(!setting.about.is_empty());
        }
        assert!(find("proxy-body-sise").is_none());
        assert_eq!(
            nearest("proxy-read-timout").map(|near| near.name),
            Some("proxy-read-timeout")
        );
        assert!(nearest("something-else").is_none());
    }
}
