//! `instructions`: what the hot paths cost, without timing anything.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use bench::instructions::{self, Counts, Work};
use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Counts instructions of lookups, changes and requests with valgrind. Exit code 1 when one has grown by more than a
/// tenth.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Arguments {
    /// Lockgate's binary.
    #[arg(long, value_name = "FILE", required = true)]
    lockgate: Option<PathBuf>,
    /// The counts to compare with.
    #[arg(long, value_name = "FILE", required = true)]
    kept: Option<PathBuf>,
    /// Keep the new counts instead.
    #[arg(long)]
    write: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// Does something that is counted.
    #[command(hide = true)]
    Work {
        #[arg(value_parser = Work::parse)]
        name: Work,
    },
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(Part::Work { name }) = arguments.part {
        instructions::perform(name)?;
        return Ok(ExitCode::SUCCESS);
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(run(arguments))
}

async fn run(arguments: Arguments) -> Result<ExitCode> {
    let lockgate = arguments.lockgate.context("--lockgate is missing")?;
    let lockgate = lockgate
        .canonicalize()
        .context("there is no such binary of Lockgate")?;
    let kept = arguments.kept.context("--kept is missing")?;
    let counts = instructions::count(&std::env::current_exe()?, &lockgate).await?;
    let before = if arguments.write && !kept.exists() {
        Counts::default()
    } else {
        Counts::read(&kept)?
    };
    let comparison = counts.compare(&before);
    bench::say(&comparison)?;
    if arguments.write {
        counts.write(&kept)?;
        return Ok(ExitCode::SUCCESS);
    }
    if comparison.is_good() {
        return Ok(ExitCode::SUCCESS);
    }
    bench::say("If that is meant to be: make bench-check CHECK=--write")?;
    Ok(ExitCode::FAILURE)
}
