//! `HAProxy` and nginx, configured as plain proxies with limits like those of Lockgate.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use crate::nginx::nginx;
use crate::support::soon;

/// A proxy in front of a backend. It is killed when this is dropped.
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) version: String,
    pub(super) address: SocketAddr,
    child: Child,
    _home: TempDir,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first version number in what a program says about itself.
fn version(program: &PathBuf) -> String {
    let said = Command::new(program).arg("-v").output().unwrap();
    let text =
        String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    let words = text.split(|c: char| c.is_whitespace() || c == '/' || c == '-');
    let mut numbers = words
        .filter(|word| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.'));
    numbers.next().expect("a version").to_owned()
}

/// A port that is free now. Another program may take it before the peer does, which the caller notices.
async fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

impl Peer {
    pub(super) async fn haproxy(backend: SocketAddr) -> Self {
        let given = std::env::var_os("LOCKGATE_HAPROXY").map(PathBuf::from);
        let program = given.unwrap_or_else(|| "/usr/sbin/haproxy".into());
        let address = free().await;
        let configuration = format!(
            "global\n  tune.bufsize 66560\n  tune.http.maxhdr 128\n\
             defaults\n  mode http\n  timeout connect 2s\n  timeout client 1s\n  timeout server 2s\n  \
             timeout http-request 1s\n  timeout http-keep-alive 1s\n\
             frontend all\n  bind {address}\n  default_backend web\n\
             backend web\n  server web {backend}\n"
        );
        let home = TempDir::new().unwrap();
        let file = home.path().join("haproxy.cfg");
        std::fs::write(&file, configuration).unwrap();
        let mut command = Command::new(&program);
        command.args(["-db", "-q", "-f"]).arg(file);
        Self::started("HAProxy", program, command, address, home).await
    }

    pub(super) async fn nginx(backend: SocketAddr) -> Self {
        let program = nginx().expect("`.ci/setup nginx` installs it");
        let address = free().await;
        let home = TempDir::new().unwrap();
        // The location is as ingress-nginx writes it.
        let configuration = format!(
            "daemon off; master_process off; pid nginx.pid; error_log /dev/null;\n\
             events {{ worker_connections 256; }}\n\
             http {{\n  access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n  \
             uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n  \
             client_header_timeout 1s; client_body_timeout 1s; keepalive_timeout 1s; lingering_close off;\n  \
             large_client_header_buffers 4 64k; http2 on;\n  \
             map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}\n  \
             server {{\n    listen {address};\n    location / {{\n      proxy_pass http://{backend};\n      \
             proxy_http_version 1.1; proxy_request_buffering off;\n      proxy_set_header Host $http_host;\n      \
             proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;\n    }}\n  }}\n}}\n"
        );
        std::fs::write(home.path().join("nginx.conf"), configuration).unwrap();
        let mut command = Command::new(&program);
        command
            .args(["-e", "/dev/null", "-p"])
            .arg(home.path())
            .args(["-c", "nginx.conf"]);
        Self::started("nginx", program, command, address, home).await
    }

    async fn started(
        name: &'static str,
        program: PathBuf,
        mut command: Command,
        address: SocketAddr,
        home: TempDir,
    ) -> Self {
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let mut peer = Self {
            name,
            version: version(&program),
            address,
            child,
            _home: home,
        };
        let up = async {
            while TcpStream::connect(address).await.is_err() {
                assert!(
                    peer.child.try_wait().unwrap().is_none(),
                    "{name} does not start"
                );
                tokio::task::yield_now().await;
            }
        };
        soon(up).await;
        peer
    }
}
