//! The page, and what is wrong with it.

use std::fmt::Write as _;

use super::{Kept, Outcome, Protocol, Row};

/// A decision, and the rows that it is about.
type Note = (&'static str, &'static [(Protocol, &'static [&'static str])]);

/// Why Lockgate does what it does where others do something else; for each row that differs.
const NOTES: &[Note] = &include!("notes.in");

#[allow(unused_imports, reason = "the notes name them")]
use Protocol::{Http1, Http2};

const PEERS: [&str; 2] = ["HAProxy", "nginx"];
/// So much of a request is shown.
const MOST: usize = 150;

/// How a row differs, the worst first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Difference {
    Laxer,
    LaxerThanOne,
    Otherwise,
    Stricter,
    None,
}

impl Difference {
    fn of(lockgate: &Outcome, peers: &[&Outcome]) -> Self {
        let differ: Vec<&&Outcome> = peers.iter().filter(|peer| !peer.means(lockgate)).collect();
        if differ.is_empty() {
            return Self::None;
        }
        if lockgate.is_refused() {
            return Self::Stricter;
        }
        match differ.iter().filter(|peer| peer.is_refused()).count() {
            0 => Self::Otherwise,
            count if count == peers.len() => Self::Laxer,
            _ => Self::LaxerThanOne,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Laxer => "Served by Lockgate, refused by both others",
            Self::LaxerThanOne => "Served by Lockgate, refused by one of the others",
            Self::Otherwise => "Served by all, and the backend sees something else",
            Self::Stricter => "Refused by Lockgate, served by another one",
            Self::None => "Where all agree",
        }
    }
}

fn note(row: &Row) -> Option<&'static str> {
    let names = |groups: &[(Protocol, &[&str])]| {
        groups
            .iter()
            .any(|(protocol, names)| *protocol == row.protocol && names.contains(&row.name))
    };
    NOTES
        .iter()
        .find(|(_, groups)| names(groups))
        .map(|(note, _)| *note)
}

/// A cell of a table.
fn cell(text: &str) -> String {
    let text: String = match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    };
    match text.as_str() {
        "" => "–".to_owned(),
        text => format!("`{}`", text.replace('|', "\\|").replace('`', "'")),
    }
}

fn outcome(outcome: &Outcome) -> String {
    let status = match outcome.status {
        0 => "ends the connection or stream".to_owned(),
        1 => "waits".to_owned(),
        status => status.to_string(),
    };
    if outcome.is_refused() {
        return status;
    }
    format!(
        "{status} {}",
        cell(&outcome.seen.escape_debug().to_string())
    )
}

/// The page, and what has to be looked at first.
pub(super) fn page(rows: &[Row], kept: &Kept) -> (String, Vec<String>) {
    let mut problems = Vec::new();
    let mut found = Vec::new();
    for row in rows {
        let Some(of) = kept.rows.get(&row.key()) else {
            problems.push(format!(
                "{}: the others were not asked; run `make strict`",
                row.key()
            ));
            continue;
        };
        let peers = PEERS.map(|name| &of[name]);
        let difference = Difference::of(&row.lockgate, &peers);
        match (difference, note(row)) {
            (Difference::None, Some(_)) => {
                problems.push(format!("{}: has a note, and all agree", row.key()));
            }
            (Difference::None, None) | (_, Some(_)) => {}
            (_, None) => problems.push(format!(
                "{}: {difference:?} without a note: Lockgate {:?}, HAProxy {:?}, nginx {:?}",
                row.key(),
                row.lockgate,
                peers[0],
                peers[1]
            )),
        }
        found.push((difference, row, peers));
    }
    for (note, groups) in NOTES {
        for (protocol, names) in *groups {
            for name in *names {
                if !rows
                    .iter()
                    .any(|row| row.protocol == *protocol && row.name == *name)
                {
                    problems.push(format!("{note}: there is no row {name:?}"));
                }
            }
        }
    }
    let agree = found
        .iter()
        .filter(|(difference, ..)| *difference == Difference::None)
        .count();
    let version = |name: &str| kept.versions.get(name).cloned().unwrap_or_default();
    let mut page = format!(
        "# Strict HTTP\n\n\
         {} requests, byte by byte as they stand in `gateway/tests/proxy/raw_requests.in` and `raw_http2.in`, to Lockgate, to HAProxy {} and to\n\
         nginx {}, each with a backend that notes what it sees. Both engines of Lockgate do what is shown: the tests of these tables demand it, and that\n\
         a request which follows on the connection is that request or is not answered. `make strict` sends all of them to all three and writes this\n\
         page; a test fails when it is not what the tables say, or when a difference has no note.\n\n\
         A cell shows the status, and method, target and content as the backend saw them. Refused is refused: with which status makes no difference\n\
         here. On {agree} rows all three agree.\n",
        rows.len(),
        version("HAProxy"),
        version("nginx"),
    );
    // The worst first; within that in the order of the tables.
    found.sort_by_key(|(difference, row, _)| (*difference, row.protocol));
    let mut last = None;
    for (difference, row, peers) in &found {
        if last != Some(*difference) {
            last = Some(*difference);
            write!(page, "\n## {}\n\n", difference.title()).unwrap();
            page.push_str("| | row | request | Lockgate | HAProxy | nginx | decision |\n");
            page.push_str("| --- | --- | --- | --- | --- | --- | --- |\n");
        }
        writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} | {} |",
            row.protocol.name(),
            row.name,
            cell(&row.shown),
            outcome(&row.lockgate),
            outcome(peers[0]),
            outcome(peers[1]),
            note(row).unwrap_or_default()
        )
        .unwrap();
    }
    (page, problems)
}
