//! wrk and h2load, run outside of the cluster.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::process::Command;

/// What clients speak.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Case {
    /// HTTP/1.1 without TLS.
    Http1,
    /// HTTP/1.1 over TLS.
    Https1,
    /// HTTP/2 over TLS.
    Https2,
}

impl Case {
    /// In the order in which they are measured.
    pub const ALL: [Self; 3] = [Self::Http1, Self::Https1, Self::Https2];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Https1 => "HTTPS, HTTP/1.1",
            Self::Https2 => "HTTPS, HTTP/2",
        }
    }

    /// The address of a site.
    pub fn url(self, host: &str) -> String {
        match self {
            Self::Http1 => format!("http://{host}/"),
            Self::Https1 | Self::Https2 => format!("https://{host}/"),
        }
    }
}

/// What one run of a generator saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shot {
    /// Requests that were answered as they should be.
    pub requests: u64,
    /// Requests and connections that failed.
    pub errors: u64,
    /// How long it took.
    pub seconds: f64,
    /// Latency in milliseconds at 50, 99 and 99.9 per cent of the requests.
    pub latency: [f64; 3],
}

/// How much at the same time: connections with HTTP/1.1.
pub(super) const CONNECTIONS: u32 = 64;
/// Connections with HTTP/2.
pub(super) const CONNECTIONS_HTTP2: u32 = 16;
/// Streams on each of them.
pub(super) const STREAMS: u32 = 32;

/// The same key exchange and cipher for everybody, whatever the servers prefer.
const OPENSSL: &str = "openssl_conf = all\n[all]\nssl_conf = ssl\n[ssl]\nsystem_default = tls\n[tls]\nGroups = X25519\n\
                       Ciphersuites = TLS_AES_128_GCM_SHA256\n";
/// wrk prints only three quantiles that cannot be chosen.
const REPORT: &str = "function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('result %d %d %d %f %f %f\\n', summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
";
/// Lets a program find the hosts of a file without a name server: that file is its /etc/hosts, and nobody else's.
const WITH_HOSTS: &str = "mount --bind \"$1\" /etc/hosts; shift; exec \"$@\"";

/// Runs the generators. Files that they need are written to `folder`.
pub(super) struct Generator<'a> {
    folder: &'a Path,
    seconds: u64,
}

impl<'a> Generator<'a> {
    /// `hosts` has lines of addresses and names, as /etc/hosts has.
    pub(super) fn new(folder: &'a Path, hosts: &str, seconds: u64) -> Result<Self> {
        std::fs::write(folder.join("hosts"), hosts)?;
        std::fs::write(folder.join("openssl.cnf"), OPENSSL)?;
        std::fs::write(folder.join("report.lua"), REPORT)?;
        Ok(Self { folder, seconds })
    }

    /// Puts as much load on a site as it takes.
    pub(super) async fn run(&self, case: Case, host: &str) -> Result<Shot> {
        match case {
            Case::Http1 | Case::Https1 => self.wrk(&case.url(host)).await,
            Case::Https2 => self.h2load(&case.url(host)).await,
        }
    }

    async fn wrk(&self, url: &str) -> Result<Shot> {
        let text = self
            .call(&[
                "wrk",
                "--threads=1",
                "--latency",
                "--timeout=10s",
                &format!("--connections={CONNECTIONS}"),
                &format!("--duration={}s", self.seconds),
                &format!("--script={}", self.folder.join("report.lua").display()),
                url,
            ])
            .await?;
        wrk_result(&text).with_context(|| format!("wrk says: {text}"))
    }

    async fn h2load(&self, url: &str) -> Result<Shot> {
        let log = self.folder.join("h2load.log");
        // It adds to a log that is there.
        if log.exists() {
            std::fs::remove_file(&log)?;
        }
        let text = self
            .call(&[
                "h2load",
                "--threads=1",
                "--groups=X25519",
                "--tls13-ciphers=TLS_AES_128_GCM_SHA256",
                &format!("--clients={CONNECTIONS_HTTP2}"),
                &format!("--max-concurrent-streams={STREAMS}"),
                &format!("--duration={}", self.seconds),
                &format!("--log-file={}", log.display()),
                url,
            ])
            .await?;
        let log = std::fs::read_to_string(&log).context("h2load has written no log")?;
        h2load_result(&text, &log, self.seconds).with_context(|| format!("h2load says: {text}"))
    }

    async fn call(&self, arguments: &[&str]) -> Result<String> {
        let name = arguments.first().copied().unwrap_or_default();
        let work = Command::new("unshare")
            .args(["--mount", "--", "sh", "-e", "-c", WITH_HOSTS, "hosts"])
            .arg(self.folder.join("hosts"))
            .args(arguments)
            .env("OPENSSL_CONF", self.folder.join("openssl.cnf"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let limit = Duration::from_secs(self.seconds + 60);
        let output = tokio::time::timeout(limit, work)
            .await
            .with_context(|| format!("{name} does not end"))?
            .with_context(|| format!("cannot run {name}"))?;
        ensure!(
            output.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts, printed without a fraction"
)]
fn wrk_result(text: &str) -> Result<Shot> {
    let result = text.lines().find_map(|line| line.strip_prefix("result "));
    let figures: Vec<f64> = result
        .context("no result")?
        .split(' ')
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let [all, micros, errors, latency @ ..] = figures.as_slice() else {
        bail!("the result is too short");
    };
    let latency: [f64; 3] = latency.try_into()?;
    // Answers with a wrong status are among the requests; the other errors are not.
    let status = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Non-2xx or 3xx responses: "));
    let wrong = status.map_or(Ok(0), str::parse::<u64>)?;
    Ok(Shot {
        requests: (*all as u64).saturating_sub(wrong),
        errors: *errors as u64,
        seconds: micros / 1e6,
        latency: latency.map(|micros| micros / 1000.0),
    })
}

fn h2load_result(text: &str, log: &str, seconds: u64) -> Result<Shot> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("requests: "))
        .context("no result")?;
    let count = |what: &str| -> Result<u64> {
        let part = line.split(", ").find_map(|part| part.strip_suffix(what));
        Ok(part.context("the result is too short")?.trim().parse()?)
    };
    // Start, status, and how long it took in microseconds.
    let mut micros: Vec<u32> = log
        .lines()
        .filter_map(|line| line.rsplit('\t').next()?.parse().ok())
        .collect();
    micros.sort_unstable();
    let quantile = |per_mille: usize| {
        let index = micros.len() * per_mille / 1000;
        let index = index.min(micros.len().saturating_sub(1));
        micros
            .get(index)
            .map_or(f64::NAN, |&micros| f64::from(micros) / 1000.0)
    };
    #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
    let seconds = seconds as f64;
    Ok(Shot {
        requests: count(" succeeded")?,
        errors: count(" failed")? + count(" timeout")?,
        seconds,
        latency: [quantile(500), quantile(990), quantile(999)],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_prints_is_understood() {
        let text = "Running 3s test @ http://localhost/\n  1 threads and 64 connections\n\
                    3001 requests in 3.00s, 1.00MB read\n  Non-2xx or 3xx responses: 2\n\
                    result 3001 3000500 5 1500.000000 9250.500000 20000.000000\n";
        let shot = Shot {
            requests: 2999,
            errors: 5,
            seconds: 3.0005,
            latency: [1.5, 9.2505, 20.0],
        };
        assert_eq!(wrk_result(text).unwrap(), shot);
        assert!(wrk_result("unable to connect").is_err());
    }

    #[test]
    fn what_h2load_prints_is_understood() {
        let text = "finished in 3.00s, 1000.33 req/s, 1.05MB/s\n\
                    requests: 3010 total, 3010 started, 3001 done, 2999 succeeded, 2 failed, 1 errored, 1 timeout\n";
        let log: Vec<String> = (1..=1000)
            .map(|n| format!("1700000000000000\t200\t{n}\n"))
            .collect();
        let shot = h2load_result(text, &log.concat(), 3).unwrap();
        let expected = Shot {
            requests: 2999,
            errors: 3,
            seconds: 3.0,
            latency: [0.501, 0.991, 1.0],
        };
        assert_eq!(shot, expected);
        assert!(h2load_result("", "", 3).is_err());
    }
}
