//! The folder and the cgroups of a run, which have to go when it has ended in whatever way.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::cgroup;
use super::network::NODES;

const PREFIX: &str = "lockgate-e2e-";
const LOCK: &str = "in-use";

/// A folder below the one for temporary files, locked for as long as this value lives: this is how a later run knows
/// that it is in use.
#[derive(Debug)]
pub struct Home {
    /// Where it is.
    pub folder: PathBuf,
    _lock: File,
    cgroups: bool,
}

impl Home {
    /// A folder with a name of its own.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()?
            .keep();
        Self::locked(folder)
    }

    /// The folder of that name.
    pub fn named(name: &str) -> Result<Self> {
        let folder = Self::path(name);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.with_context(|| folder.display().to_string())?,
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        Self::locked(folder)
    }

    /// Where the folder of that name is.
    pub fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("{PREFIX}{name}"))
    }

    /// Whether somebody uses the folder.
    pub fn in_use(folder: &Path) -> bool {
        File::open(folder.join(LOCK))
            .is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
    }

    fn locked(folder: PathBuf) -> Result<Self> {
        let lock = File::create(folder.join(LOCK))?;
        let tries = Instant::now();
        // Who asks whether it is in use holds the lock for a moment.
        while lock.try_lock().is_err() {
            if tries.elapsed() > Duration::from_secs(1) {
                bail!("{} is in use", folder.display());
            }
            std::thread::yield_now();
        }
        Ok(Self {
            folder,
            _lock: lock,
            cgroups: false,
        })
    }

    /// Makes the cgroups of the nodes and says what their folder is called.
    pub fn create_cgroups(&mut self) -> Result<String> {
        self.cgroups = true;
        let name = name(&self.folder)?;
        cgroup::create(&name, &NODES.map(|node| node.name))?;
        Ok(name)
    }

    /// Removes everything, after all that ran in it has ended; `keep` keeps logs and what tests have written.
    pub async fn remove(self, keep: bool) -> Result<()> {
        if self.cgroups {
            cgroup::remove(&name(&self.folder)?).await?;
        }
        if keep {
            remove_bulk(&self.folder)
        } else {
            fs::remove_dir_all(&self.folder).with_context(|| self.folder.display().to_string())
        }
    }

    /// Removes what runs that did not end well, or were told to keep it, have left, except the newest folder.
    pub async fn remove_leftovers() -> Result<()> {
        let mut unused = Vec::new();
        for entry in fs::read_dir(std::env::temp_dir())? {
            let entry = entry?;
            let folder = entry.path();
            if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
                continue;
            }
            let lock = File::open(folder.join(LOCK));
            let Some(lock) = lock.ok().filter(|lock| lock.try_lock().is_ok()) else {
                continue;
            };
            unused.push((entry.metadata()?.modified()?, folder, lock));
        }
        unused.sort_by_key(|(modified, ..)| *modified);
        let newest = unused.len().saturating_sub(1);
        for (number, (_, folder, lock)) in unused.into_iter().enumerate() {
            let removed = remove_leftover(&folder, number == newest).await;
            drop(lock);
            if let Err(error) = removed {
                let mut stderr = io::stderr();
                writeln!(stderr, "e2e: {} stays: {error:#}", folder.display())?;
            }
        }
        Ok(())
    }
}

async fn remove_leftover(folder: &Path, keep: bool) -> Result<()> {
    cgroup::remove(&name(folder)?).await?;
    if keep {
        return remove_bulk(folder);
    }
    Ok(fs::remove_dir_all(folder)?)
}

/// Removes images, containers and data, which are large and nobody looks at.
fn remove_bulk(folder: &Path) -> Result<()> {
    let parts = NODES.map(|node| node.name);
    for part in parts.into_iter().chain(["etcd"]) {
        match fs::remove_dir_all(folder.join(part)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| folder.join(part).display().to_string());
            }
            _ => {}
        }
    }
    Ok(())
}

fn name(folder: &Path) -> Result<String> {
    let name = folder.file_name().context("the folder has no name")?;
    Ok(name.to_string_lossy().into_owned())
}
