//! `e2e-load`: measures the Lockgate that is installed in a cluster beside Traefik. `e2e/load.sh` calls it where a client
//! outside of the cluster is.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use e2e::compare::{self, Plan};

/// Puts load on Lockgate and on Traefik in turns and writes what was measured.
#[derive(Parser)]
struct Arguments {
    /// How often each case is measured with each gateway.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long each time.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// The image of Traefik, with the program as /traefik; it is on the nodes.
    #[arg(long, default_value = "localhost/traefik:e2e")]
    traefik: String,
    /// The folder that the page is written to.
    #[arg(long)]
    results: PathBuf,
    /// The day that the page is named after.
    #[arg(long)]
    date: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let plan = Plan {
        rounds: arguments.rounds.max(1),
        seconds: arguments.seconds.max(1),
        traefik: arguments.traefik,
        results: arguments.results,
        date: arguments.date,
    };
    let (file, page) = compare::run(&plan).await?;
    writeln!(std::io::stdout(), "{page}\nwritten to {}", file.display())?;
    Ok(())
}
