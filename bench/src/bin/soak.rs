//! `soak`: the real binary under load while routes, endpoints and certificates change.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use bench::soak::{self, Plan};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs `lockgate run` on a directory of manifests that it keeps rewriting, and sends requests all the while.
/// Exit code 0 when not one of them has failed.
#[derive(Parser)]
struct Arguments {
    /// The binary.
    #[arg(long, value_name = "PATH")]
    lockgate: PathBuf,
    /// At least this many requests over TLS.
    #[arg(long, default_value_t = 1_000_000)]
    requests: u64,
    /// At least this many tables that replace each other.
    #[arg(long, default_value_t = 1_000)]
    swaps: u64,
    /// 20,000 requests and 20 swaps: what the tests run.
    #[arg(long)]
    short: bool,
    /// Hosts, each with a certificate of its own.
    #[arg(long, default_value_t = 8)]
    hosts: usize,
    /// Fail when it takes longer than this.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "30m")]
    limit: Duration,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Further arguments for lockgate, after `--`.
    #[arg(last = true)]
    further: Vec<OsString>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(run(arguments))
}

async fn run(arguments: Arguments) -> Result<ExitCode> {
    let (requests, swaps) = if arguments.short {
        (20_000, 20)
    } else {
        (arguments.requests, arguments.swaps)
    };
    let plan = Plan {
        lockgate: arguments.lockgate,
        arguments: arguments.further,
        requests,
        swaps,
        hosts: arguments.hosts,
        limit: arguments.limit,
    };
    soak::check_binary(&plan.lockgate)?;
    let report = soak::run(&plan).await?;
    if arguments.json {
        bench::say(serde_json::to_string(&report)?)?;
    } else {
        bench::say(&report)?;
    }
    let reached = report.answers() >= requests && report.swaps >= swaps;
    Ok(if report.failed() == 0 && reached {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
