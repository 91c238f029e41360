//! `attacks`: hostile clients against Lockgate, `HAProxy` and nginx, as a page of Markdown.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use bench::attacks::{self, ATTACKS, Attack, Plan, Report};
use bench::peers::{self, Peer, Programs};
use clap::Parser;

/// Who is attacked when nothing else is said.
const PEERS: [Peer; 3] = [Peer::Lockgate, Peer::HaproxyDebian, Peer::Nginx];

/// Attacks each proxy with each attack in turn, on loopback, while a well-behaved client asks. Exit code 0 when Lockgate
/// has served that client throughout and has believed nobody.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    programs: Programs,
    /// Only these attacks; may be repeated or separated by commas.
    #[arg(long = "attack", value_name = "NAME", value_delimiter = ',', value_parser = attack)]
    attacks: Vec<Attack>,
    /// Only these proxies [default: lockgate, haproxy-debian, nginx]
    #[arg(long = "peer", value_name = "NAME", value_delimiter = ',', value_parser = Peer::parse)]
    peers: Vec<Peer>,
    /// Each attack for two seconds: shows that it works, and nothing else.
    #[arg(long)]
    quick: bool,
    /// Write the page into this directory, unless only a part was measured.
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
    /// The date in the page and in its name.
    #[arg(long, value_name = "DATE", default_value = "undated")]
    date: String,
}

fn attack(name: &str) -> Result<Attack, String> {
    let names = ATTACKS.map(|attack| attack.name).join(", ");
    let found = ATTACKS.into_iter().find(|attack| attack.name == name);
    found.ok_or_else(|| format!("one of {names}"))
}

fn main() -> Result<ExitCode> {
    peers::run_beside(run(Arguments::parse()))
}

async fn run(arguments: Arguments) -> Result<ExitCode> {
    let whole = arguments.attacks.is_empty() && arguments.peers.is_empty() && !arguments.quick;
    let mut list = peers::or_all(arguments.attacks, &ATTACKS);
    if arguments.quick {
        for attack in &mut list {
            attack.seconds = 2;
        }
    }
    let plan = Plan {
        lockgate: arguments.programs.lockgate()?,
        origin: arguments.programs.origin()?,
        packages: arguments.programs.packages,
        peers: peers::or_all(arguments.peers, &PEERS),
        attacks: list,
    };
    let outcome = attacks::run(&plan).await?;
    ensure!(!outcome.rows.is_empty(), "nothing was measured");
    let report = Report {
        outcome: &outcome,
        attacks: &plan.attacks,
        date: arguments.date.clone(),
    };
    bench::say(&report)?;
    let complaints = outcome.complaints();
    for complaint in &complaints {
        bench::say(format_args!("FAILED {complaint}"))?;
    }
    if let Some(directory) = arguments.results.filter(|_| whole) {
        let file = directory.join(format!("{}-attacks.md", arguments.date));
        std::fs::write(&file, report.to_string())
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    let expected = plan.attacks.len() * usize::from(plan.peers.contains(&Peer::Lockgate));
    let ours = outcome.rows.iter().filter(|row| row.peer == Peer::Lockgate);
    Ok(if complaints.is_empty() && ours.count() == expected {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
