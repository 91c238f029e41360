//! The `lockgate` program.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use controller::args::{Cli, Command};
use controller::{app, migrate, render, telemetry};

/// A proxy allocates and frees from several threads; glibc's allocator costs a third of the throughput.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Huge pages nearly double the memory of a small gateway and gain little (docs/performance.md). It works with them, too,
    // where the kernel does not listen.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    // Before anything makes a TLS configuration: all parts have to use the same library.
    let installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    debug_assert!(installed.is_ok(), "nothing else installs one");
    execute(Cli::parse().command).unwrap_or_else(|error| {
        eprintln!("lockgate: {error:#}");
        ExitCode::FAILURE
    })
}

fn execute(command: Command) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    match command {
        Command::Run(args) => {
            drop(out);
            telemetry::log(args.log_format(), &args.observe.log_level)?;
            return app::run(args.settings());
        }
        Command::Render(args) => render::render(args, &mut out)?,
        Command::Check(args) => return Ok(render::check(args, io::stdin().lock(), &mut out)?),
        Command::Migrate(args) => {
            return Ok(migrate::migrate(args, io::stdin().lock(), &mut out)?);
        }
        Command::Version => writeln!(out, "lockgate {}", telemetry::VERSION)?,
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "lockgate", &mut out);
        }
    }
    Ok(ExitCode::SUCCESS)
}
