//! nginx.

use std::ffi::OsString;
use std::fmt::Write as _;

use anyhow::Result;

use super::{BACKTRACKING, EXPRESSION, KEPT, KeyFiles, RSA, Setting, To, arguments};

/// Writes the configuration; gives the arguments.
pub(in crate::peers) fn nginx(setting: &Setting<'_>) -> Result<Vec<OsString>> {
    let [ecdsa, rsa] = setting.key_files()?;
    let log = if setting.logged {
        format!("access_log {} combined", setting.log_file().display())
    } else {
        "access_log off".to_owned()
    };
    let limits = if setting.guarded {
        "keepalive_timeout 75s;\nclient_header_timeout 30s;\nclient_body_timeout 60s;\nsend_timeout 60s;\n\
         large_client_header_buffers 4 16k;\nhttp2_max_concurrent_streams 128;"
    } else {
        "keepalive_timeout 300s;"
    };
    // Bodies are passed on as they come, as the others do: no buffering of requests, no temporary files.
    let mut text = format!(
        "daemon off;\nworker_processes 1;\nworker_rlimit_nofile 32768;\npid nginx.pid;\nerror_log stderr error;\n\
         events {{ worker_connections 32768; }}\nhttp {{\n{log};\n{limits}\n\
         keepalive_requests 1000000000;\nserver_names_hash_max_size 8192;\nserver_names_hash_bucket_size 128;\n\
         client_max_body_size 0;\nproxy_request_buffering off;\nproxy_max_temp_file_size 0;\n\
         proxy_http_version 1.1;\nproxy_read_timeout 300s;\n\
         map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}\n\
         ssl_protocols TLSv1.2 TLSv1.3;\nssl_session_cache shared:sessions:10m;\n"
    );
    for kind in ["proxy", "grpc"] {
        write!(
            text,
            "{kind}_set_header Host $host;\n{kind}_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
             {kind}_set_header X-Forwarded-Host $host;\n{kind}_set_header X-Forwarded-Proto $scheme;\n"
        )?;
    }
    text.push_str("proxy_set_header Upgrade $http_upgrade;\nproxy_set_header Connection $connection_upgrade;\n");
    for to in To::ALL {
        writeln!(
            text,
            "upstream {} {{ server {}; keepalive {KEPT}; keepalive_requests 1000000000; keepalive_timeout 300s; }}",
            to.name(),
            setting.address(to)
        )?;
    }
    for (host, rules) in setting.hosts() {
        let KeyFiles {
            certificate, key, ..
        } = if host == RSA { &rsa } else { &ecdsa };
        write!(
            text,
            "server {{\nlisten {};\nlisten {} ssl;\nhttp2 on;\nserver_name {host};\nssl_certificate {};\n\
             ssl_certificate_key {};\n",
            setting.http,
            setting.https,
            certificate.display(),
            key.display()
        )?;
        for rule in rules {
            let to = rule.to.name();
            let pass = if rule.to == To::Grpc {
                "grpc_pass grpc"
            } else {
                "proxy_pass http"
            };
            writeln!(text, "location {} {{ {pass}://{to}; }}", rule.path)?;
        }
        text.push_str("}\n");
    }
    if setting.guarded {
        writeln!(
            text,
            "server {{ listen {}; server_name {EXPRESSION}; location ~* ^{BACKTRACKING} {{ proxy_pass http://{}; }} }}",
            setting.http,
            To::Small.name()
        )?;
    }
    text.push_str("}\n");
    let file = setting.write("nginx.conf", &text)?;
    let mut list = arguments([
        "-p".as_ref(),
        setting.home.as_ref(),
        "-c".as_ref(),
        file.as_ref(),
    ]);
    if rustix::process::getuid().is_root() {
        // Else the worker is somebody who may not enter the directory.
        list.extend(["-g".into(), "user root;".into()]);
    }
    Ok(list)
}
