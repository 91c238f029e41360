//! The machine's own tools: `ip`, `nft`, `mount`.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Runs a tool that is done in no time, with `input`, and returns what it printed.
pub(super) fn run<A: AsRef<OsStr>>(tool: &str, arguments: &[A], input: &str) -> Result<String> {
    let mut child = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| tool.to_owned())?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that has failed already says why.
        let _written = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let arguments: Vec<_> = arguments
            .iter()
            .map(|argument| argument.as_ref().to_string_lossy())
            .collect();
        bail!(
            "{tool} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
