//! The configuration of each proxy: the same routes, certificates, limits and kept connections to the backends.
//!
//! All add `X-Forwarded-For`, `X-Forwarded-Host` and `X-Forwarded-Proto`. What a proxy does beyond that on its own (Lockgate's
//! `X-Request-ID` and further fields, Envoy's `x-request-id`, Traefik's `X-Real-Ip`) is left as users get it, and all of
//! Lockgate's routing, checks and metrics are on.

mod envoy;
mod floor;
mod haproxy;
mod lockgate;
mod nginx;
mod traefik;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

pub(super) use envoy::envoy;
pub(super) use floor::floor;
pub(super) use haproxy::haproxy;
pub(super) use lockgate::lockgate;
pub(super) use nginx::nginx;
pub(super) use traefik::traefik;

use super::case::{ECDSA, RSA};
use crate::certs::{Authority, Leaf};

/// Hosts of the table with many routes.
pub(super) const HOSTS: usize = 1000;
/// Paths of each.
pub(super) const PATHS: usize = 100;

/// How many idle connections to a backend are kept, where that can be said.
const KEPT: usize = 1024;

/// A host of the table with many routes.
pub(super) fn host(number: usize) -> String {
    format!("host-{number}.bench.test")
}

/// A path of it.
pub(super) fn path(number: usize) -> String {
    format!("/team-{}/service-{number}", number % 10)
}

/// A host whose only route is an expression that backtracks, where expressions can.
pub(crate) const EXPRESSION: &str = "expression.localhost";
/// The expression.
const BACKTRACKING: &str = "/x(a+)+b";

/// The backends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backends {
    /// Answers with 1 KiB, speaks gRPC and WebSocket.
    pub(super) small: SocketAddr,
    /// Answers with 100 KiB.
    pub(super) medium: SocketAddr,
    /// Answers with 10 MiB.
    pub(super) large: SocketAddr,
}

/// Certificate and key of a host as files.
#[derive(Debug)]
pub(super) struct KeyFiles {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    /// Both in one.
    pub(super) both: PathBuf,
}

impl KeyFiles {
    fn write(leaf: &Leaf, home: &Path, name: &str) -> Result<Self> {
        let files = Self {
            certificate: home.join(format!("{name}.crt")),
            key: home.join(format!("{name}.key")),
            both: home.join(format!("{name}.pem")),
        };
        std::fs::write(&files.certificate, &leaf.certificate_pem)?;
        std::fs::write(&files.key, &leaf.key_pem)?;
        let both = format!("{}{}", leaf.certificate_pem, leaf.key_pem);
        std::fs::write(&files.both, both)?;
        Ok(files)
    }
}

/// Certificates of the two hosts.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(super) ecdsa: Leaf,
    pub(super) rsa: Leaf,
}

impl Keys {
    /// Issues both.
    pub(crate) fn issue(authority: &Authority) -> Result<Self> {
        Ok(Self {
            ecdsa: authority.issue(&[ECDSA.to_owned()], None)?,
            rsa: authority.issue_rsa(&[RSA.to_owned()])?,
        })
    }
}

/// What a configuration is written from.
#[derive(Debug)]
pub(super) struct Setting<'a> {
    /// Directory of this proxy alone.
    pub(super) home: &'a Path,
    pub(super) http: SocketAddr,
    pub(super) https: SocketAddr,
    /// Lockgate's own listener.
    pub(super) admin: SocketAddr,
    pub(super) backends: Backends,
    pub(super) keys: &'a Keys,
    pub(super) logged: bool,
    pub(super) routes: bool,
    /// With Lockgate's limits on what clients may use, and with the host [`EXPRESSION`].
    pub(super) guarded: bool,
}

/// One rule: requests of this host below this path go there.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) host: String,
    pub(super) path: String,
    pub(super) to: To,
}

/// The backends by what they are used for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum To {
    Small,
    Medium,
    Large,
    Grpc,
}

impl To {
    pub(super) const ALL: [Self; 4] = [Self::Small, Self::Medium, Self::Large, Self::Grpc];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
            Self::Grpc => "grpc",
        }
    }
}

impl Setting<'_> {
    pub(super) fn address(&self, to: To) -> SocketAddr {
        match to {
            To::Small | To::Grpc => self.backends.small,
            To::Medium => self.backends.medium,
            To::Large => self.backends.large,
        }
    }

    /// All rules; those of one host follow each other, longer paths first.
    pub(super) fn rules(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        for host in [ECDSA, RSA] {
            for (path, to) in [
                ("/lockgate.origin.Origin", To::Grpc),
                ("/100k", To::Medium),
                ("/10m", To::Large),
                ("/", To::Small),
            ] {
                rules.push(Rule {
                    host: host.to_owned(),
                    path: path.to_owned(),
                    to,
                });
            }
        }
        if self.routes {
            for number in 0..HOSTS * PATHS {
                rules.push(Rule {
                    host: host(number / PATHS),
                    path: path(number % PATHS),
                    to: To::Small,
                });
            }
        }
        rules
    }

    /// The rules by host.
    pub(super) fn hosts(&self) -> Vec<(String, Vec<Rule>)> {
        let mut hosts: Vec<(String, Vec<Rule>)> = Vec::new();
        for rule in self.rules() {
            match hosts.last_mut() {
                Some((host, rules)) if *host == rule.host => rules.push(rule),
                _ => hosts.push((rule.host.clone(), vec![rule])),
            }
        }
        hosts
    }

    /// Certificate and key of [`ECDSA`] and of [`RSA`] as files.
    fn key_files(&self) -> Result<[KeyFiles; 2]> {
        Ok([
            KeyFiles::write(&self.keys.ecdsa, self.home, "ecdsa")?,
            KeyFiles::write(&self.keys.rsa, self.home, "rsa")?,
        ])
    }

    /// Where the access log goes that a proxy writes by itself.
    fn log_file(&self) -> PathBuf {
        self.home.join("access.log")
    }

    fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let file = self.home.join(name);
        std::fs::write(&file, content)
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }
}

/// Arguments from texts and paths.
fn arguments<const N: usize>(list: [&std::ffi::OsStr; N]) -> Vec<OsString> {
    list.into_iter().map(ToOwned::to_owned).collect()
}
