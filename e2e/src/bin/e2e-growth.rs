//! `e2e-growth`: measures controllers at one API server while its cluster grows. `make bench-growth` calls it where that API
//! server is.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use e2e::growth::{self, Plan};

/// Measures Lockgate, and Traefik beside it, with more and more objects.
#[derive(Parser)]
struct Arguments {
    /// Ingresses that there are in turn, growing.
    #[arg(long, value_delimiter = ',', default_value = "100,1000,10000,30000")]
    sizes: Vec<usize>,
    /// Changes of each kind.
    #[arg(long, default_value_t = 30)]
    changes: usize,
    /// Endpoint changes per second.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// For how many seconds.
    #[arg(long, default_value_t = 60)]
    churn: u64,
    /// The program `traefik`, which is left out without.
    #[arg(long)]
    traefik: Option<PathBuf>,
    /// The file that the page is written to.
    #[arg(long)]
    page: PathBuf,
    /// The day that the page is of.
    #[arg(long)]
    date: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut sizes = arguments.sizes;
    sizes.retain(|size| *size > 0);
    sizes.sort_unstable();
    let plan = Plan {
        sizes,
        changes: arguments.changes.max(1),
        rate: arguments.rate.max(1),
        churn: Duration::from_secs(arguments.churn),
        traefik: arguments.traefik.filter(|program| program.exists()),
        page: arguments.page,
        date: arguments.date,
    };
    let page = growth::run(&plan).await?;
    writeln!(
        std::io::stdout(),
        "{page}\nwritten to {}",
        plan.page.display()
    )?;
    Ok(())
}
