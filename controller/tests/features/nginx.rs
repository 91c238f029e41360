//! The same requests to nginx and to Lockgate: status, where a redirect leads to, what the backend saw, and the line in the
//! access log have to be the same, but for what docs/nginx.md lists with a reason.
//!
//! The configuration of nginx is written by hand, as ingress-nginx would write it for the Ingresses beside it. Without
//! nginx the test says so and shows nothing; `.ci/setup nginx` installs it.

mod backends;
mod checks;
mod formats;
#[path = "../../../gateway/tests/shared/nginx.rs"]
mod program;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use self::backends::Backends;
use self::checks::{Check, Difference};
use crate::client::PATIENCE;
use crate::manifest::service;
use crate::process::Process;
use crate::world::put;

/// nginx on a port of this machine. It is killed when this is dropped.
struct Nginx {
    child: Child,
    home: TempDir,
    address: SocketAddr,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Nginx {
    /// Another program may take the port between two looks at it, so that several are tried.
    async fn start(program: &Path, backends: &Backends) -> Self {
        Self::with(program, |address, home| {
            put(home, "users", checks::USERS);
            checks::configuration(address, home, backends)
        })
        .await
    }

    /// With this configuration for an address and a folder.
    async fn with(program: &Path, configuration: impl Fn(SocketAddr, &Path) -> String) -> Self {
        for _ in 0..5 {
            let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = free.local_addr().unwrap();
            drop(free);
            let home = TempDir::new().unwrap();
            let text = configuration(address, home.path());
            put(home.path(), "nginx.conf", &text);
            let child = Command::new(program)
                .args(["-e", "stderr", "-p"])
                .arg(home.path())
                .args(["-c", "nginx.conf"])
                .env("TZ", "UTC")
                .stdin(Stdio::null())
                .spawn()
                .unwrap();
            let mut nginx = Self {
                child,
                home,
                address,
            };
            if nginx.answers().await {
                return nginx;
            }
        }
        panic!("nginx does not start");
    }

    async fn answers(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if TcpStream::connect(self.address).await.is_ok() {
                return true;
            }
            sleep(Duration::from_millis(5)).await;
        }
        false
    }

    /// What it has logged, once it has logged everything.
    async fn logged(&self, lines: usize) -> Vec<String> {
        self.logged_in("access.log", lines).await
    }

    async fn logged_in(&self, name: &str, lines: usize) -> Vec<String> {
        let file = self.home.path().join(name);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            let found: Vec<String> = text.lines().map(str::to_owned).collect();
            if found.len() >= lines || Instant::now() > deadline {
                return found;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// What came of a request, a line for each thing that is compared.
type Outcome = Vec<String>;

/// Sends a request and reads until the connection is closed.
async fn ask(address: SocketAddr, check: &Check, id: &str) -> Outcome {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&check.bytes(id)).await.unwrap();
        let mut all = Vec::new();
        // A reset is an end as well.
        let _ = stream.read_to_end(&mut all).await;
        all
    };
    let bytes = timeout(PATIENCE, exchange)
        .await
        .expect("an answer in time");
    outcome(&bytes)
}

fn outcome(bytes: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let mut outcome = vec![format!("status {}", status.unwrap_or("none"))];
    let mut fields: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name = name.to_ascii_lowercase();
        fields.entry(name).or_default().push(value.trim());
    }
    for name in ["location", "www-authenticate", "set-cookie", "server"] {
        if let Some(values) = fields.get(name) {
            outcome.push(format!("{name}: {}", values.join(" | ")));
        }
    }
    outcome.extend(backends::seen(body));
    outcome
}

/// A line of the access log without what is another one each time: the moment, how long things took, and the name of the
/// request. The pages that both make themselves have other texts, so that their length is left out as well.
fn timeless(line: &str) -> String {
    let Some((before, rest)) = line.split_once('[') else {
        return line.to_owned();
    };
    let after = rest.split_once(']').map_or(rest, |(_, after)| after);
    let is_time = |word: &str| {
        let word = word.trim_end_matches(',');
        word.split_once('.').is_some_and(|(seconds, rest)| {
            rest.len() == 3 && seconds.parse::<u32>().is_ok() && rest.parse::<u32>().is_ok()
        })
    };
    let words = after.split(' ').map(|word| {
        if is_time(word) {
            word.replace(|c: char| c.is_ascii_digit(), "0")
        } else {
            word.to_owned()
        }
    });
    let mut words: Vec<String> = words.collect();
    words.pop();
    let from_backend = words.last().is_some_and(|status| status == "200");
    let protocol = words.iter().position(|word| word.ends_with("HTTP/1.1\""));
    // The status, then the length.
    let length = protocol.and_then(|at| words.get_mut(at + 2));
    if let Some(length) = length.filter(|_| !from_backend) {
        "PAGE".clone_into(length);
    }
    format!("{before}[]{}", words.join(" "))
}

/// What one of the two shows and the other one does not, in words.
fn differences(nginx: &[String], lockgate: &[String]) -> Option<(String, String)> {
    let only = |these: &[String], those: &[String]| {
        let only: Vec<&str> = these
            .iter()
            .filter(|line| !those.contains(line))
            .map(String::as_str)
            .collect();
        only.join("; ")
    };
    let pair = (only(nginx, lockgate), only(lockgate, nginx));
    (pair != (String::new(), String::new())).then_some(pair)
}

#[tokio::test]
async fn nginx_and_lockgate_answer_alike() {
    let Some(program) = program::nginx() else {
        eprintln!("skipped: there is no nginx here; `.ci/setup nginx` installs it");
        return;
    };
    let backends = Backends::start().await;
    let nginx = Nginx::start(&program, &backends).await;
    let folder = TempDir::new().unwrap();
    put(folder.path(), "all.yaml", checks::MANIFESTS);
    for (name, ports) in backends.services() {
        put(
            folder.path(),
            &format!("{name}.yaml"),
            &service(name, &ports),
        );
    }
    let flags = [
        "--compat=nginx",
        "--access-log-format=nginx",
        "--configmap=test/settings",
    ];
    let mut lockgate = Process::start(folder.path(), &flags).await;

    let mut seen = Vec::new();
    for (number, check) in checks::all().enumerate() {
        let id = format!("check-{number}");
        let mut both = Vec::new();
        for address in [nginx.address, lockgate.http] {
            // All but the last answer are only counted on.
            let mut outcome = ask(address, check, &id).await;
            let mut statuses = outcome.first().cloned().unwrap_or_default();
            for _ in 1..check.times {
                outcome = ask(address, check, &id).await;
                let status = outcome.first().map(|line| line.replace("status", ""));
                statuses.push_str(&status.unwrap_or_default());
            }
            if check.times > 1 {
                outcome = vec![statuses];
            }
            both.push(outcome);
        }
        seen.push((id, check, both));
    }
    let lines = nginx.logged(seen.iter().map(|(_, check, _)| check.times).sum());
    let by_id = |lines: &[String]| -> BTreeMap<String, String> {
        let lines = lines.iter().filter_map(|line| {
            let (_, id) = line.rsplit_once(' ')?;
            Some((id.to_owned(), timeless(line)))
        });
        lines.collect()
    };
    let of_nginx = by_id(&lines.await);
    lockgate.signal("TERM");
    let (_, text) = lockgate.ended().await;
    let of_lockgate = by_id(&text.lines().map(str::to_owned).collect::<Vec<_>>());

    let mut wrong = String::new();
    let mut found = Vec::new();
    for (id, check, both) in &seen {
        let [nginx, lockgate] = both.as_slice() else {
            continue;
        };
        let (mut nginx, mut lockgate) = (nginx.clone(), lockgate.clone());
        let logged = |of: &BTreeMap<String, String>| {
            let line = of.get(id).map(|line| format!("log {line}"));
            line.unwrap_or_else(|| "not logged".to_owned())
        };
        // Which of the two says what in its line follows from the rest, so that it is looked at where the rest agrees.
        let answers_agree = differences(&nginx, &lockgate).is_none();
        if answers_agree && check.logged {
            nginx.push(logged(&of_nginx));
            lockgate.push(logged(&of_lockgate));
        }
        let Some((theirs, ours)) = differences(&nginx, &lockgate) else {
            if checks::difference(check).is_some() {
                writeln!(wrong, "{check}: there is no difference any more").unwrap();
            }
            continue;
        };
        match checks::difference(check) {
            Some(known) if known.is(&backends.neutral(&theirs), &backends.neutral(&ours)) => {
                found.push((*check, known));
            }
            _ => writeln!(
                wrong,
                "{check}\n  nginx:    {}\n  Lockgate: {}",
                backends.neutral(&theirs),
                backends.neutral(&ours)
            )
            .unwrap(),
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    page(seen.len(), &found);
}

/// docs/nginx.md.
fn page(checks: usize, found: &[(&Check, &Difference)]) {
    let mut page = format!(
        "# Beside nginx\n\n\
         {checks} requests go to nginx 1.31 and to Lockgate (`--compat nginx`), with a configuration as ingress-nginx writes it on the one side and the\n\
         Ingresses for it on the other: rewriting, matching, redirects, header fields, limits, and backends that fail. Compared are status, `Location`,\n\
         `WWW-Authenticate`, `Set-Cookie`, `Server`, what the backend saw, and the line in the access log. {} of them are answered alike. The others\n\
         are here; a test (`controller/tests/features/nginx.rs`) fails when one comes or goes. Written by that test.\n\n\
         | group | request | nginx | Lockgate | why |\n| --- | --- | --- | --- | --- |\n",
        checks - found.len()
    );
    let shown = |text: &str| match text {
        "" => "–".to_owned(),
        text => format!("`{}`", text.replace('|', "\\|").replace('`', "'")),
    };
    for (check, difference) in found {
        writeln!(
            page,
            "| {} | {} | {} | {} | {} |",
            check.group,
            shown(&check.request()),
            shown(difference.nginx),
            shown(difference.lockgate),
            difference.why
        )
        .unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/nginx.md");
    if std::env::var_os("LOCKGATE_WRITE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(kept, page, "run `make docs`");
}
