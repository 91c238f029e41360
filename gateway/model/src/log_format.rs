//! What a line of the access log looks like.

use serde::{Deserialize, Serialize};

/// A format of the access log, as `log_format` of nginx has it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LogFormat {
    /// The line, with variables in it.
    pub text: String,
    /// How values are escaped.
    #[serde(default)]
    pub escape: LogEscape,
}

/// How values in a line are escaped.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogEscape {
    /// `\xHH` for quotes, backslashes and what is not ASCII; `-` for what is not there.
    #[default]
    Default,
    /// As in a string of JSON; nothing for what is not there.
    Json,
    /// Only control characters; nothing for what is not there.
    None,
}

/// A part of a line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LogPart {
    /// The same in every line.
    Text(String),
    /// What a request says.
    Variable(LogVariable),
    /// A variable that does not exist, by its name.
    Unknown(String),
}

macro_rules! variables {
    ($($(#[$doc:meta])* $variant:ident: $($name:literal)|+,)+) => {
        /// What a request can say in its line. Names are those of nginx and of ingress-nginx.
        #[derive(Clone, Debug, Eq, PartialEq)]
        pub enum LogVariable {
            $($(#[$doc])* $variant,)+
            /// `$http_NAME`: a field of the request.
            Header(String),
            /// `$sent_http_NAME`: a field of the response to the client.
            SentHeader(String),
            /// `$upstream_http_NAME`: a field of the backend's response.
            UpstreamHeader(String),
            /// `$arg_NAME`: a parameter of the query.
            Arg(String),
            /// `$cookie_NAME`
            Cookie(String),
        }

        /// The variables whose names have no other names in them.
        fn fixed(name: &str) -> Option<LogVariable> {
            match name {
                $($($name)|+ => Some(LogVariable::$variant),)+
                _ => None,
            }
        }
    };
}

variables! {
    /// The address of the client.
    RemoteAddr: "remote_addr" | "the_real_ip" | "realip_remote_addr",
    /// The port of the client.
    RemotePort: "remote_port" | "realip_remote_port",
    /// The name that the client says with a password.
    RemoteUser: "remote_user",
    /// `22/Nov/2026:18:38:00 +0000`
    TimeLocal: "time_local",
    /// `2026-11-22T18:38:00+00:00`
    TimeIso8601: "time_iso8601",
    /// Seconds since 1970, with milliseconds.
    Msec: "msec",
    /// Method, target and protocol.
    Request: "request",
    /// The method.
    RequestMethod: "request_method",
    /// The target as it came.
    RequestUri: "request_uri",
    /// The path, decoded and in normal form.
    Uri: "uri" | "document_uri",
    /// The query.
    Args: "args" | "query_string",
    /// `?` where there is a query.
    IsArgs: "is_args",
    /// `HTTP/1.1`
    ServerProtocol: "server_protocol",
    /// The status.
    Status: "status",
    /// Bytes of the response's body.
    BodyBytesSent: "body_bytes_sent",
    /// Bytes of the response.
    BytesSent: "bytes_sent",
    /// Bytes of the request.
    RequestLength: "request_length",
    /// From the first byte to the last.
    RequestTime: "request_time",
    /// The identity of the request.
    RequestId: "request_id" | "req_id",
    /// The host in normal form.
    Host: "host",
    /// The host as the client wrote it.
    HttpHost: "http_host" | "best_http_host",
    /// The host of the route.
    ServerName: "server_name",
    /// The address that the client connected to.
    ServerAddr: "server_addr",
    /// Its port.
    ServerPort: "server_port" | "pass_server_port" | "pass_port",
    /// The name of the machine.
    Hostname: "hostname",
    /// The number of the process.
    Pid: "pid",
    /// `http` or `https`, of the connection.
    Scheme: "scheme",
    /// The same, or what a trusted peer says.
    PassScheme: "pass_access_scheme",
    /// `on` with TLS.
    Https: "https",
    /// `h2` or `h2c`.
    Http2: "http2",
    /// `.`, since requests of one connection wait for each other.
    Pipe: "pipe",
    /// The number of the connection.
    Connection: "connection",
    /// Requests on it so far.
    ConnectionRequests: "connection_requests",
    /// The client that a PROXY protocol header named.
    ProxyProtocolAddr: "proxy_protocol_addr",
    /// Its port.
    ProxyProtocolPort: "proxy_protocol_port",
    /// `X-Forwarded-For` and the client.
    ProxyAddForwardedFor: "proxy_add_x_forwarded_for",
    /// `TLSv1.3`
    SslProtocol: "ssl_protocol",
    /// The cipher suite in OpenSSL's words.
    SslCipher: "ssl_cipher",
    /// The server name that the client asked for.
    SslServerName: "ssl_server_name",
    /// What is thought of the client's certificate.
    SslClientVerify: "ssl_client_verify",
    /// Its subject.
    SslClientSubject: "ssl_client_s_dn",
    /// Its issuer.
    SslClientIssuer: "ssl_client_i_dn",
    /// The backend of the path, as ingress-nginx names it.
    UpstreamName: "proxy_upstream_name",
    /// The canary that took its place.
    AlternativeUpstreamName: "proxy_alternative_upstream_name",
    /// The endpoints that were asked.
    UpstreamAddr: "upstream_addr",
    /// Their statuses.
    UpstreamStatus: "upstream_status",
    /// The lengths of their responses.
    UpstreamResponseLength: "upstream_response_length",
    /// The time that they took.
    UpstreamResponseTime: "upstream_response_time",
    /// The time until there was a connection.
    UpstreamConnectTime: "upstream_connect_time",
    /// The time until there was a header section.
    UpstreamHeaderTime: "upstream_header_time",
    /// Nothing is cached.
    UpstreamCacheStatus: "upstream_cache_status",
    /// The namespace of the Ingress.
    Namespace: "namespace",
    /// Its name.
    IngressName: "ingress_name",
    /// The Service of the path.
    ServiceName: "service_name",
    /// Its port.
    ServicePort: "service_port",
    /// The path of the rule.
    LocationPath: "location_path",
}

impl LogFormat {
    /// The default line of ingress-nginx, which many pipelines have a pattern for.
    pub fn ingress_nginx() -> Self {
        Self {
            text: r#"$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent" $request_length $request_time [$proxy_upstream_name] [$proxy_alternative_upstream_name] $upstream_addr $upstream_response_length $upstream_response_time $upstream_status $req_id"#.to_owned(),
            escape: LogEscape::Default,
        }
    }

    /// Its parts. `$name` and `${name}` are variables; a backslash means what it means between quotes in a
    /// configuration of nginx, where the line stands.
    pub fn parts(&self) -> Vec<LogPart> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = self.text.as_str();
        while let Some(at) = rest.find(['$', '\\']) {
            let (before, special) = rest.split_at(at);
            literal.push_str(before);
            if let Some(behind) = special.strip_prefix('\\') {
                let mut following = behind.chars();
                rest = match following.next() {
                    Some(quoted @ ('"' | '\'' | '\\')) => {
                        literal.push(quoted);
                        following.as_str()
                    }
                    Some('t') => {
                        literal.push('\t');
                        following.as_str()
                    }
                    Some('n') => {
                        literal.push('\n');
                        following.as_str()
                    }
                    Some('r') => {
                        literal.push('\r');
                        following.as_str()
                    }
                    Some(_) | None => {
                        literal.push('\\');
                        behind
                    }
                };
                continue;
            }
            let Some((name, behind)) = name(special) else {
                literal.push('$');
                rest = special.strip_prefix('$').unwrap_or_default();
                continue;
            };
            rest = behind;
            if !literal.is_empty() {
                parts.push(LogPart::Text(std::mem::take(&mut literal)));
            }
            parts.push(match variable(name) {
                Some(variable) => LogPart::Variable(variable),
                None => LogPart::Unknown(name.to_owned()),
            });
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(LogPart::Text(literal));
        }
        parts
    }
}

/// The name that follows a `$`, and what stands behind it.
fn name(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('$')?;
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (name, behind) = match text.strip_prefix('{') {
        Some(inner) => inner.split_once('}')?,
        None => text.split_at(text.find(|c| !is_part(c)).unwrap_or(text.len())),
    };
    (!name.is_empty() && name.chars().all(is_part)).then_some((name, behind))
}

fn variable(name: &str) -> Option<LogVariable> {
    let lower = name.to_ascii_lowercase();
    if let Some(fixed) = fixed(&lower) {
        return Some(fixed);
    }
    let field = |name: &str| name.replace('_', "-");
    let with_name = |prefix: &str| lower.strip_prefix(prefix).filter(|name| !name.is_empty());
    if matches!(&*lower, "content_type" | "content_length") {
        return Some(LogVariable::Header(field(&lower)));
    }
    if let Some(name) = with_name("http_") {
        return Some(LogVariable::Header(field(name)));
    }
    if let Some(name) = with_name("sent_http_") {
        return Some(LogVariable::SentHeader(field(name)));
    }
    if let Some(name) = with_name("upstream_http_") {
        return Some(LogVariable::UpstreamHeader(field(name)));
    }
    // The case of these matters to whoever reads them.
    if let Some(name) = name.strip_prefix("arg_").filter(|name| !name.is_empty()) {
        return Some(LogVariable::Arg(name.to_owned()));
    }
    let cookie = name.strip_prefix("cookie_").filter(|name| !name.is_empty());
    cookie.map(|name| LogVariable::Cookie(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<LogPart> {
        let format = LogFormat {
            text: text.to_owned(),
            escape: LogEscape::Default,
        };
        format.parts()
    }

    #[test]
    fn lines_are_taken_apart_as_nginx_does() {
        use LogPart::{Text, Unknown, Variable};
        use LogVariable as V;
        let text = |text: &str| Text(text.to_owned());
        for (line, want) in [
            ("", vec![]),
            ("plain", vec![text("plain")]),
            (
                r#"{"a": "$host", "b": ${status}0}"#,
                vec![
                    text(r#"{"a": ""#),
                    Variable(V::Host),
                    text(r#"", "b": "#),
                    Variable(V::Status),
                    text("0}"),
                ],
            ),
            (
                "$http_x_request_id$sent_http_content_type",
                vec![
                    Variable(V::Header("x-request-id".to_owned())),
                    Variable(V::SentHeader("content-type".to_owned())),
                ],
            ),
            (
                "$upstream_http_server-$arg_userId $cookie_SID",
                vec![
                    Variable(V::UpstreamHeader("server".to_owned())),
                    text("-"),
                    Variable(V::Arg("userId".to_owned())),
                    text(" "),
                    Variable(V::Cookie("SID".to_owned())),
                ],
            ),
            (
                "$geoip2_city_name|$http_host",
                vec![
                    Unknown("geoip2_city_name".to_owned()),
                    text("|"),
                    Variable(V::HttpHost),
                ],
            ),
            (r#"a\"b\\c\'d\te\n\w"#, vec![text("a\"b\\c'd\te\n\\w")]),
            ("5 $ ${ $-", vec![text("5 $ ${ $-")]),
            (r"\$host\", vec![text("\\"), Variable(V::Host), text("\\")]),
        ] {
            assert_eq!(parts(line), want, "{line}");
        }
    }

    #[test]
    fn the_default_of_ingress_nginx_has_no_unknown_variable() {
        let parts = LogFormat::ingress_nginx().parts();
        assert_eq!(parts.len(), 17 + 16);
        assert!(
            parts
                .iter()
                .all(|part| !matches!(part, LogPart::Unknown(_)))
        );
    }
}
