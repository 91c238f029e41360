//! `scale`: times and memory of the control plane at size.

use std::path::PathBuf;

use anyhow::Result;
use bench::scale::{self, Size};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Translates and compiles many objects in memory, then changes single ones.
#[derive(Parser)]
struct Arguments {
    /// Ingresses, each with a host, two paths and a Service.
    #[arg(long, default_value_t = 10_000)]
    ingresses: usize,
    /// Endpoints of all Services together.
    #[arg(long, default_value_t = 50_000)]
    endpoints: usize,
    /// Certificates, each in a Secret.
    #[arg(long, default_value_t = 5_000)]
    certificates: usize,
    /// Changes of each kind.
    #[arg(long, default_value_t = 1_000)]
    changes: usize,
    /// Measure the process `lockgate run --manifests` with as many objects, too.
    #[arg(long, value_name = "PATH")]
    lockgate: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let size = Size {
        ingresses: arguments.ingresses,
        endpoints: arguments.endpoints,
        certificates: arguments.certificates,
    };
    let report = scale::run(size, arguments.changes)?;
    if arguments.json {
        bench::say(serde_json::to_string(&report)?)?;
    } else {
        bench::say(&report)?;
    }
    let Some(binary) = &arguments.lockgate else {
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(scale::run_process(binary, size, arguments.changes.min(200)))?;
    if arguments.json {
        bench::say(serde_json::to_string(&report)?)?;
    } else {
        bench::say(&report)?;
    }
    Ok(())
}
