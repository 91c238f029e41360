//! Waiting for a condition, always with a deadline.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long a change may take to be seen where nothing else is said.
pub const SOON: Duration = Duration::from_secs(20);

const PAUSE: Duration = Duration::from_millis(50);

/// Tries until the attempt succeeds; the last failure is the error's text when `deadline` has passed.
pub async fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let failure = match tokio::time::timeout(deadline, attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(failure)) => format!("{failure:#}"),
            Err(_) => "the attempt hangs".to_owned(),
        };
        if start.elapsed() >= deadline {
            bail!("not within {deadline:?}: {what}: {failure}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Tries for the whole of `duration`: the attempt must succeed every time.
pub async fn throughout(
    what: &str,
    duration: Duration,
    mut attempt: impl AsyncFnMut() -> Result<()>,
) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < duration {
        if let Err(failure) = attempt().await {
            bail!("after {:?}: {what}: {failure:#}", start.elapsed());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
