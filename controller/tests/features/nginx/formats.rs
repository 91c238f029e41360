//! The same format for the access log of nginx and for that of Lockgate: the same lines have to come of the same requests.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::backends::Backends;
use super::{Nginx, program};
use crate::client::{PATIENCE, head};
use crate::manifest::{ingress, service};
use crate::process::Process;
use crate::world::put;

/// What users of ingress-nginx log, and what they could. As it stands in a ConfigMap. Times are in a place of their own.
const FORMAT: &str = concat!(
    r#"{"id": "$req_id", "time": "$time_iso8601", "addr": "$remote_addr", "user": "$remote_user", "#,
    r#""x_forwarded_for": "$proxy_add_x_forwarded_for", "request": "$request", "method": "$request_method", "#,
    r#""target": "$request_uri", "uri": "$uri", "args": "$args", "is_args": "$is_args", "arg": "$arg_q", "#,
    r#""proto": "$server_protocol", "vhost": "$host", "raw_host": "$http_host", "server": "$server_name", "#,
    r#""status": $status, "body_bytes_sent": $body_bytes_sent, "request_length": $request_length, "#,
    r#""referer": "$http_referer", "agent": "$http_user_agent", "custom": "${http_x_custom}s", "cookie": "$cookie_sid", "#,
    r#""type": "$sent_http_content_type", "told": "$sent_http_x_told", "upstream_type": "$upstream_http_content_type", "#,
    r#""length": "$content_length", "upstream": "$proxy_upstream_name", "canary": "$proxy_alternative_upstream_name", "#,
    r#""upstream_addr": "$upstream_addr", "upstream_status": "$upstream_status", "#,
    r#""upstream_length": "$upstream_response_length", "cache": "$upstream_cache_status", "#,
    r#""ingress": "$namespace/$ingress_name/$service_name:$service_port", "scheme": "$scheme", "https": "$https", "#,
    r#""tls": "$ssl_protocol $ssl_cipher", "pipe": "$pipe", "nth": $connection_requests, "http2": "$http2", "#,
    r#""proxy_protocol": "$proxy_protocol_addr", "quoted": "a\'b\"c"}"#,
);

/// Header section and body of each request, without its name.
const REQUESTS: [&str; 8] = [
    "GET / HTTP/1.1\r\nHost: formats.test\r\n\r\n",
    "GET /a/b?x=1&q=two&q=three HTTP/1.1\r\nHost: FORMATS.test\r\nUser-Agent: curl/8\r\n\r\n",
    "GET /p%20q?set=x-told:say%20it HTTP/1.1\r\nHost: formats.test\r\nReferer: http://a.test/?\"b\r\n\r\n",
    "GET /e? HTTP/1.1\r\nHost: formats.test\r\nX-Forwarded-For: 192.0.2.1, 192.0.2.2\r\n\r\n",
    "GET /h HTTP/1.1\r\nHost: formats.test\r\nX-Custom: a \"b\" \\c\r\nX-Custom: d\r\nCookie: a=b; sid=1234\r\n\r\n",
    "GET /u HTTP/1.1\r\nHost: formats.test\r\nAuthorization: Basic YWxpY2U6c2VjcmV0\r\nUser-Agent: \r\n\r\n",
    "POST /body?q=%22 HTTP/1.1\r\nHost: formats.test\r\nContent-Length: 5\r\n\r\nhello",
    "DELETE /d?status=404 HTTP/1.1\r\nHost: formats.test\r\nX-Custom: tab\tin it\r\n\r\n",
];

const ESCAPES: [(&str, &str, &str); 3] = [
    ("default", "", ""),
    ("json", "escape=json", "log-format-escape-json"),
    ("none", "escape=none", "log-format-escape-none"),
];

fn configuration(address: SocketAddr, home: &Path, web: u16) -> String {
    let mut logs = String::new();
    for (name, escape, _) in ESCAPES {
        writeln!(
            logs,
            "log_format {name} {escape} '{FORMAT}'; access_log {home}/{name}.log {name};",
            home = home.display()
        )
        .unwrap();
    }
    let home = home.display();
    format!(
        "daemon off; master_process off; pid {home}/pid; error_log stderr emerg;
        events {{ worker_connections 64; }}
        http {{
        client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
        uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
        {logs}
        map $http_x_request_id $req_id {{ default $http_x_request_id; \"\" $request_id; }}
        server_tokens off; underscores_in_headers off; proxy_http_version 1.1; proxy_buffering off;
        proxy_set_header Host $http_host; proxy_set_header Connection \"\"; proxy_set_header X-Request-ID $req_id;
        proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Host $http_host; proxy_set_header X-Forwarded-Port 80;
        proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Scheme $scheme;
        proxy_set_header X-Scheme $scheme; proxy_set_header X-Original-Forwarded-For $http_x_forwarded_for;
        server {{
            listen {address}; server_name formats.test;
            set $proxy_upstream_name \"test-web-80\"; set $proxy_alternative_upstream_name \"\";
            set $namespace \"test\"; set $ingress_name \"formats\"; set $service_name \"web\"; set $service_port \"80\";
            location / {{ proxy_pass http://127.0.0.1:{web}; }}
        }}
        }}\n"
    )
}

/// Sends all requests, the first three on one connection.
async fn ask(address: SocketAddr) {
    let mut kept = TcpStream::connect(address).await.unwrap();
    for (number, request) in REQUESTS.iter().enumerate() {
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let keep = number < 3;
        let close = if keep { "" } else { "Connection: close\r\n" };
        let text = format!("{head}\r\n{close}X-Request-ID: {number}\r\n\r\n{body}");
        let exchange = async {
            if keep {
                kept.write_all(text.as_bytes()).await.unwrap();
                answer(&mut kept).await;
            } else {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(text.as_bytes()).await.unwrap();
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
            }
        };
        timeout(PATIENCE, exchange)
            .await
            .expect("an answer in time");
    }
}

/// Reads one response, by its length.
async fn answer(stream: &mut TcpStream) {
    let head = head(stream).await.unwrap().to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let length = length.map_or(0, |length| length.trim().parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
}

/// Lines by the number of their request, without the time, which is looked at for itself.
fn by_number(lines: impl Iterator<Item = String>) -> BTreeMap<usize, String> {
    let numbered = lines.filter_map(|line| {
        let rest = line.strip_prefix(r#"{"id": ""#)?;
        let (number, rest) = rest.split_once('"')?;
        let (before, rest) = rest.split_once(r#""time": ""#)?;
        let (time, after) = rest.split_once('"')?;
        assert!(
            time.len() == 25 && time.ends_with("+00:00") && time.get(10..11) == Some("T"),
            "{time}"
        );
        Some((number.parse().ok()?, format!("{before}{after}")))
    });
    numbered.collect()
}

#[tokio::test]
async fn a_format_gives_the_lines_that_it_gives_with_nginx() {
    let Some(program) = program::nginx() else {
        eprintln!("skipped: there is no nginx here; `.ci/setup nginx` installs it");
        return;
    };
    let backends = Backends::start().await;
    let (_, web) = backends
        .ports()
        .iter()
        .find(|(name, _)| *name == "web")
        .unwrap();
    let nginx = Nginx::with(&program, |address, home| configuration(address, home, *web)).await;
    ask(nginx.address).await;
    for (name, _, key) in ESCAPES {
        let theirs = nginx
            .logged_in(&format!("{name}.log"), REQUESTS.len())
            .await;
        let theirs = by_number(theirs.into_iter());
        assert_eq!(theirs.len(), REQUESTS.len(), "{theirs:?}");

        let folder = TempDir::new().unwrap();
        let format = serde_json::to_string(FORMAT).unwrap();
        let mut settings = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings, namespace: test}}\ndata:\n  log-format-upstream: {format}\n"
        );
        if !key.is_empty() {
            writeln!(settings, "  {key}: \"true\"").unwrap();
        }
        put(folder.path(), "settings.yaml", &settings);
        put(
            folder.path(),
            "formats.yaml",
            &ingress("formats", "formats.test", &[("/", "web")]),
        );
        put(folder.path(), "web.yaml", &service("web", &[*web]));
        let flags = ["--compat=nginx", "--configmap=test/settings"];
        let mut lockgate = Process::start(folder.path(), &flags).await;
        ask(lockgate.http).await;
        lockgate.signal("TERM");
        let (_, text) = lockgate.ended().await;
        let ours = by_number(text.lines().map(str::to_owned));
        for (number, request) in REQUESTS.iter().enumerate() {
            assert_eq!(ours.get(&number), theirs.get(&number), "{name}: {request}");
        }
    }
}
