//! Prints the resident memory of a process that holds a model of 10,000 hosts, 50,000 endpoints and 5,000 certificates
//! and the table that it compiles to.

#[path = "../benches/world/mod.rs"]
mod world;

use std::io::{self, Write};

use table::{channel, compile};

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{:>7} KiB at the start", resident()?)?;
    let model = world::full();
    writeln!(out, "{:>7} KiB with the model", resident()?)?;
    let (_writer, reader) = channel(compile(&model).table);
    writeln!(out, "{:>7} KiB with model and table", resident()?)?;
    // Both are held until here.
    let table = reader.pin();
    writeln!(
        out,
        "{} hosts, {} backends, {} certificates, generation {}",
        model.hosts.len(),
        model.backends.len(),
        model.certificates.len(),
        table.generation()
    )
}

/// `VmRSS` of this process.
fn resident() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| io::Error::other("the kernel does not tell VmRSS"))
}
