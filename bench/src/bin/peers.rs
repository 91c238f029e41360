//! `peers`: Lockgate beside `HAProxy`, nginx, Envoy, Traefik and a yardstick, as a page of Markdown.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use bench::peers::{self, CASES, Case, Peer, Plan, Programs, Report};
use clap::Parser;

/// Measures requests per CPU second, latency and memory of each proxy on one core, in turns.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    programs: Programs,
    /// The binary of the yardstick [default: `floor` beside this program]
    #[arg(long, value_name = "FILE")]
    floor: Option<PathBuf>,
    /// Only these cases; may be repeated or separated by commas.
    #[arg(long = "case", value_name = "NAME", value_delimiter = ',', value_parser = case)]
    cases: Vec<Case>,
    /// Only these proxies; may be repeated or separated by commas.
    #[arg(long = "peer", value_name = "NAME", value_delimiter = ',', value_parser = Peer::parse)]
    peers: Vec<Peer>,
    /// How often each proxy has its turn in a case.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long a turn is, in seconds.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// One round of one second: shows that everything works, and nothing else.
    #[arg(long)]
    quick: bool,
    /// Write the page into this directory, unless others have disturbed the run or only a part was measured.
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
    /// The date in the page and in its name.
    #[arg(long, value_name = "DATE", default_value = "undated")]
    date: String,
}

fn case(name: &str) -> Result<Case, String> {
    let names = CASES.map(|case| case.name).join(", ");
    let found = CASES.into_iter().find(|case| case.name == name);
    found.ok_or_else(|| format!("one of {names}"))
}

fn main() -> Result<ExitCode> {
    peers::run_beside(run(Arguments::parse()))
}

async fn run(arguments: Arguments) -> Result<ExitCode> {
    let whole = arguments.cases.is_empty() && arguments.peers.is_empty() && !arguments.quick;
    let (rounds, seconds, tries) = if arguments.quick {
        (1, 1, 1)
    } else {
        (arguments.rounds.max(1), arguments.seconds.max(1), 3)
    };
    let plan = Plan {
        lockgate: arguments.programs.lockgate()?,
        floor: arguments.floor.map_or_else(|| peers::beside("floor"), Ok)?,
        origin: arguments.programs.origin()?,
        packages: arguments.programs.packages,
        peers: peers::or_all(arguments.peers, &Peer::ALL),
        cases: peers::or_all(arguments.cases, &CASES),
        rounds,
        seconds,
        tries,
    };
    let outcome = peers::run(&plan).await?;
    ensure!(
        !outcome.samples.is_empty() || !outcome.idle.is_empty(),
        "nothing was measured"
    );
    let report = Report {
        outcome: &outcome,
        method: format!(
            "Written by `make bench-peers`. Each proxy alone on one core with one worker, load generator and backends on \
             another one;\n{rounds} rounds of {seconds} s, in turns; medians. At saturation wrk, h2load and our own \
             generator (handshakes, WebSocket); at 70 % of the\nslowest proxy's rate our own generator, open loop. Where a p99 is that of a\nquarter second (longer where there are fewer than 300 requests), half of them had none above it: a moment in which the\nmachine stood still counts in the other p99. CPU time \
             is user and system time of all processes of a proxy."
        ),
        date: arguments.date.clone(),
    };
    bench::say(&report)?;
    let (disturbed, all) = report.disturbed();
    if let Some(directory) = arguments.results {
        let (few, enough) = (disturbed * 20 <= all, rounds >= 5);
        if whole && few && enough {
            let file = directory.join(format!("{}-peers.md", arguments.date));
            std::fs::write(&file, report.to_string())
                .with_context(|| format!("cannot write {}", file.display()))?;
        } else {
            bench::say(format_args!(
                "Not kept in {}: only a complete run of five rounds that nobody has disturbed is.",
                directory.display()
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
