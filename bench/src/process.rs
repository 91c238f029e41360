//! The `lockgate` binary as a child process on loopback.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http::Request;
use rustls::RootCertStore;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::load::{Body, Connector, Target, Version};

/// How long anything that is waited for may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running `lockgate run --manifests DIR`. It is killed when this is dropped.
#[derive(Debug)]
pub struct Lockgate {
    child: Child,
    log: PathBuf,
    connector: Connector,
    /// Where it takes plain HTTP.
    pub http: SocketAddr,
    /// Where it takes TLS.
    pub https: SocketAddr,
    /// Where it answers about itself.
    pub admin: SocketAddr,
}

/// Loopback addresses that nobody listens on, each another one. Somebody else may take one before we do; then the child
/// says so.
pub fn free_addresses<const COUNT: usize>() -> Result<[SocketAddr; COUNT]> {
    // Whatever is let go may be given again: all are held until the last one is known.
    let listeners: Vec<TcpListener> = (0..COUNT)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port"))
        .collect::<Result<_>>()?;
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); COUNT];
    for (address, listener) in addresses.iter_mut().zip(&listeners) {
        *address = listener.local_addr()?;
    }
    Ok(addresses)
}

impl Lockgate {
    /// Starts the binary on a directory of manifests and waits until it is ready. Its log goes to `log`.
    pub async fn start(
        binary: &Path,
        manifests: &Path,
        log: &Path,
        further: &[OsString],
    ) -> Result<Self> {
        let [http, https, admin] = free_addresses()?;
        let output =
            File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        let child = Command::new(binary)
            .arg("run")
            .arg("--manifests")
            .arg(manifests)
            .args(["--http-listen", &http.to_string()])
            .args(["--https-listen", &https.to_string()])
            .args(["--admin-listen", &admin.to_string()])
            .args(further)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", binary.display()))?;
        let mut lockgate = Self {
            child,
            log: log.to_owned(),
            connector: Connector::new(&Arc::new(RootCertStore::empty()), false)?,
            http,
            https,
            admin,
        };
        lockgate.wait_until_ready().await?;
        Ok(lockgate)
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("lockgate ended at once ({status}):\n{}", self.log_tail());
            }
            if matches!(self.ask("/readyz").await, Ok((200, _))) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "lockgate did not become ready:\n{}",
                self.log_tail()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks the admin listener.
    async fn ask(&self, path: &str) -> Result<(u16, Vec<u8>)> {
        let target = Target {
            address: self.admin,
            server_name: None,
            authority: self.admin.to_string().into(),
        };
        let asking = async {
            let opened = self.connector.open(&target, Version::Http1).await;
            let connection = opened.map_err(|failure| anyhow::anyhow!("{failure}"))?;
            let request =
                Request::get(format!("http://{}{path}", self.admin)).body(Body::default())?;
            let (status, body) = connection
                .exchange()
                .fetch(request)
                .await
                .map_err(|failure| anyhow::anyhow!("{failure}"))?;
            Ok((status.as_u16(), body))
        };
        tokio::time::timeout(PATIENCE, asking)
            .await
            .with_context(|| format!("no answer to {path}"))?
    }

    /// What the admin listener has there.
    async fn page(&self, path: &str) -> Result<String> {
        let (status, body) = self.ask(path).await?;
        ensure!(status == 200, "{path} answers {status}");
        Ok(String::from_utf8(body)?)
    }

    /// The number of the table that is being served.
    pub async fn generation(&self) -> Result<u64> {
        let routes: serde_json::Value = serde_json::from_str(&self.page("/debug/routes").await?)?;
        routes
            .get("generation")
            .and_then(serde_json::Value::as_u64)
            .context("/debug/routes has no generation")
    }

    /// The value of a metric without labels.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let text = self.page("/metrics").await?;
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
            .with_context(|| format!("there is no metric {name}"))
    }

    /// The sum of all series of a metric; 0 where there are none.
    pub async fn sum_of(&self, name: &str) -> Result<f64> {
        let text = self.page("/metrics").await?;
        let values = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let metric = series.split('{').next()?;
            (metric == name).then(|| value.parse::<f64>().ok())?
        });
        Ok(values.sum())
    }

    /// The process, for `/proc`.
    pub fn id(&self) -> Result<u32> {
        self.child.id().context("lockgate has ended")
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> Result<u64> {
        resident(self.id()?)
    }

    /// Asks it to end, as Kubernetes does.
    pub async fn terminate(&self) -> Result<()> {
        let status = Command::new("kill")
            .args(["-TERM", &self.id()?.to_string()])
            .status()
            .await
            .context("cannot run kill")?;
        ensure!(status.success(), "kill says {status}");
        Ok(())
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .context("lockgate did not end in time")?
            .context("cannot wait for lockgate")
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let start = lines.len().saturating_sub(30);
        lines.get(start..).unwrap_or_default().join("\n")
    }
}

/// Resident memory of a process in bytes.
pub fn resident(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|text| text.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .context("no VmRSS in /proc")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_a_process_is_read_from_the_kernel() {
        let bytes = resident(std::process::id()).unwrap();
        assert!((1 << 20..1 << 36).contains(&bytes), "{bytes}");
    }

    #[tokio::test]
    async fn a_child_that_ends_at_once_is_an_error_with_its_words() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let error = Lockgate::start(Path::new("/bin/echo"), dir.path(), &log, &[])
            .await
            .unwrap_err();
        assert!(error.to_string().contains("--manifests"), "{error}");
    }
}
