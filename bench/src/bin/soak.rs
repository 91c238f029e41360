//! `soak`: the real binary under load while routes, endpoints, certificates and processes change.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bench::soak::{self, Plan, Report};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Idle connections to backends are kept for a minute.
const SETTLE: Duration = Duration::from_secs(90);

/// Runs `lockgate run` twice on a directory of manifests that it keeps rewriting, replaces one of the two now and then,
/// and sends requests all the while. Exit code 0 when not one of them has failed and nothing has leaked.
#[derive(Parser)]
struct Arguments {
    /// The binary.
    #[arg(long, value_name = "PATH")]
    lockgate: PathBuf,
    /// At least this many requests over TLS; those of other clients come on top.
    #[arg(long, default_value_t = 1_000_000)]
    requests: u64,
    /// At least this many tables that replace each other.
    #[arg(long, default_value_t = 1_000)]
    swaps: u64,
    /// This many processes that replace each other.
    #[arg(long, default_value_t = 10)]
    rolls: u64,
    /// 20,000 requests, 20 swaps and one process that is replaced: what the tests run.
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
    /// Write a page with the report to this file, if nothing is wrong.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// The date in the page.
    #[arg(long, value_name = "DATE", default_value = "undated")]
    date: String,
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
    let (requests, swaps, rolls, settle) = if arguments.short {
        (20_000, 20, 1, Duration::ZERO)
    } else {
        let Arguments {
            requests,
            swaps,
            rolls,
            ..
        } = arguments;
        (requests, swaps, rolls, SETTLE)
    };
    let plan = Plan {
        lockgate: arguments.lockgate,
        arguments: arguments.further,
        requests,
        swaps,
        rolls,
        hosts: arguments.hosts,
        settle,
        limit: arguments.limit,
    };
    soak::check_binary(&plan.lockgate)?;
    let report = soak::run(&plan).await?;
    if arguments.json {
        bench::say(serde_json::to_string(&report)?)?;
    } else {
        bench::say(&report)?;
    }
    let mut complaints = report.complaints();
    if report.planned < requests || report.swaps < swaps || report.rolls < rolls {
        complaints.push("it has ended early".to_owned());
    }
    for complaint in &complaints {
        bench::say(format_args!("FAILED {complaint}"))?;
    }
    if !complaints.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    if let Some(file) = arguments.page {
        std::fs::write(&file, page(&report, &arguments.date))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn page(report: &Report, date: &str) -> String {
    format!(
        "# Soak, {date}\n\nWritten by `make soak`. {}. Clients, backends and two processes of Lockgate share the machine, so the rates say\n\
         little and the failures say everything. Each answer is compared with what the manifests said when it was asked for and when\n\
         it came. One process stays, and is watched for what it holds; the other one is replaced while requests come in, as in a\n\
         rolling update: clients choose among those that are there when they connect. An endpoint of the Service \"troubled\" is slow,\n\
         hangs, resets connections and is gone, by turns; the other two are well. What happens when the API server goes away is shown\n\
         on a cluster (`make e2e TEST=api_server`).\n\n```text\n{report}\n```\n",
        bench::peers::describe()
    )
}
