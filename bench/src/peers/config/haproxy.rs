//! `HAProxy`.

use std::ffi::OsString;
use std::fmt::Write as _;

use anyhow::Result;

use super::{BACKTRACKING, EXPRESSION, Setting, To, arguments};

/// Writes the configuration; gives the arguments.
pub(in crate::peers) fn haproxy(setting: &Setting<'_>) -> Result<Vec<OsString>> {
    let [ecdsa, rsa] = setting.key_files()?;
    // One look into a prefix tree for host and path, as ingress controllers on it do.
    let mut map = String::new();
    for rule in setting.rules() {
        writeln!(map, "{}{} {}", rule.host, rule.path, rule.to.name())?;
    }
    let map = setting.write("routes.map", &map)?;
    let (log_target, log) = if setting.logged {
        (
            "  log stdout format raw local0\n",
            "  log global\n  option httplog\n",
        )
    } else {
        ("", "")
    };
    let (tuning, timeouts, expression) = if setting.guarded {
        (
            "  tune.bufsize 65536\n  tune.http.maxhdr 128\n  tune.h2.max-concurrent-streams 128\n",
            "  timeout client 60s\n  timeout http-request 30s\n  timeout http-keep-alive 75s\n",
            format!(
                "  use_backend {} if {{ hdr(host) -i {EXPRESSION} }} {{ path_reg ^{BACKTRACKING} }}\n",
                To::Small.name()
            ),
        )
    } else {
        (
            "",
            "  timeout client 300s\n  timeout http-keep-alive 300s\n",
            String::new(),
        )
    };
    let mut text = format!(
        "global\n  nbthread 1\n  no strict-limits\n  maxconn 12000\n  ssl-default-bind-options ssl-min-ver TLSv1.2\n\
         {tuning}{log_target}\
         defaults\n  mode http\n  timeout connect 5s\n{timeouts}  timeout server 60s\n  \
         timeout tunnel 300s\n  option forwardfor\n  http-reuse always\n{log}"
    );
    let tls = format!(
        " ssl crt {} crt {} alpn h2,http/1.1",
        ecdsa.both.display(),
        rsa.both.display()
    );
    for (name, address, tls) in [("http", setting.http, ""), ("https", setting.https, &*tls)] {
        write!(
            text,
            "frontend {name}\n  bind {address}{tls}\n  http-request set-header X-Forwarded-Proto {name}\n  \
             http-request set-header X-Forwarded-Host %[req.hdr(host)]\n{expression}  use_backend %[base,map_beg({})]\n",
            map.display()
        )?;
    }
    for to in To::ALL {
        let h2 = if to == To::Grpc { " proto h2" } else { "" };
        write!(
            text,
            "backend {}\n  server one {}{h2}\n",
            to.name(),
            setting.address(to)
        )?;
    }
    let file = setting.write("haproxy.cfg", &text)?;
    Ok(arguments(["-db".as_ref(), "-f".as_ref(), file.as_ref()]))
}
