//! What is counted inside this program: lookups, and the way from a change to a table.

use std::hint::black_box;

use anyhow::{Context as _, Result, ensure};
use http::{HeaderMap, Method};
use model::ListenerName;
use table::{Lookup, TableWriter, channel, compile, recompile};
use translate::{Change, Settings, Translator};

use crate::scale::objects::{host, path, typed};
use crate::scale::{Objects, Size};

/// Part of the name of the function in which instructions count.
pub(super) const MARKER: &str = "count_these_instructions";

const SIZE: Size = Size {
    ingresses: 1000,
    endpoints: 5000,
    certificates: 10,
};

/// Something that is counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Work {
    /// A request finds its route.
    Lookup,
    /// A request for a host that nobody has.
    Unknown,
    /// The table of a thousand Ingresses from nothing.
    Compile,
    /// An endpoint changes, up to the published table.
    Endpoint,
    /// An Ingress changes, up to the published table.
    Ingress,
}

impl Work {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Lookup,
        Self::Unknown,
        Self::Compile,
        Self::Endpoint,
        Self::Ingress,
    ];

    /// Its name as an argument.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Unknown => "unknown",
            Self::Compile => "compile",
            Self::Endpoint => "endpoint",
            Self::Ingress => "ingress",
        }
    }

    /// The work of this name.
    pub fn parse(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|work| work.name() == name);
        found.ok_or_else(|| format!("there is no work `{name}`"))
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Lookup => "lookup among 1,000 hosts",
            Self::Unknown => "lookup of an unknown host",
            Self::Compile => "compile 1,000 Ingresses",
            Self::Endpoint => "change one endpoint of 1,000 Ingresses",
            Self::Ingress => "change one of 1,000 Ingresses",
        }
    }

    /// How often it is done.
    pub(super) fn times(self) -> u64 {
        match self {
            Self::Lookup | Self::Unknown => 10_000,
            Self::Compile => 1,
            Self::Endpoint | Self::Ingress => 100,
        }
    }
}

/// Instructions count while this runs, and only then: valgrind knows it by its name.
#[inline(never)]
fn count_these_instructions(work: &mut dyn FnMut()) {
    work();
    // Not the last call of this function, which would be a jump out of it.
    black_box(());
}

/// Does this work as often as it says.
pub fn perform(work: Work) -> Result<()> {
    let objects = Objects::new(SIZE)?;
    let mut translator = Translator::new(Settings::default());
    let all = objects.all().map(|value| Ok(Change::Apply(typed(value?)?)));
    translator.apply(all.collect::<Result<Vec<_>>>()?);
    let times = usize::try_from(work.times())?;
    match work {
        Work::Lookup => lookups(&translator, times, host, true),
        Work::Unknown => lookups(&translator, times, |n| format!("unknown-{n}.test"), false),
        Work::Compile => {
            let mut hosts = 0;
            count_these_instructions(&mut || {
                hosts = compile(black_box(translator.model())).rejects.len();
            });
            ensure!(hosts == 0, "the table rejects entries");
            Ok(())
        }
        Work::Endpoint => changes(translator, (0..times).map(|n| objects.slice(n, 1))),
        Work::Ingress => changes(translator, (0..times).map(|n| objects.ingress(n, 1))),
    }
}

fn lookups(
    translator: &Translator,
    times: usize,
    host: impl Fn(usize) -> String,
    known: bool,
) -> Result<()> {
    let table = compile(translator.model()).table;
    let listener = table
        .listener(&ListenerName::http())
        .context("no listener")?;
    let hosts: Vec<String> = (0..times).map(|n| host(n % SIZE.ingresses)).collect();
    let (path, headers) = (path(0), HeaderMap::new());
    let mut found = 0;
    count_these_instructions(&mut || {
        for host in &hosts {
            let request = Lookup {
                listener,
                host,
                path: &path,
                query: None,
                method: &Method::GET,
                headers: &headers,
            };
            found += usize::from(black_box(table.lookup(black_box(&request))).is_some());
        }
    });
    let wanted = if known { times } else { 0 };
    ensure!(found == wanted, "{found} routes found instead of {wanted}");
    Ok(())
}

fn changes(
    mut translator: Translator,
    values: impl Iterator<Item = serde_json::Value>,
) -> Result<()> {
    let values = values.map(|value| Ok(Change::Apply(typed(value)?)));
    let mut changes = values.collect::<Result<Vec<_>>>()?.into_iter();
    let (mut writer, _reader): (TableWriter, _) = channel(compile(translator.model()).table);
    let before = writer.current().generation();
    let count = changes.len();
    count_these_instructions(&mut || {
        for change in changes.by_ref() {
            let outcome = translator.apply([change]);
            let compiled = recompile(&writer.current(), translator.model(), &outcome.changes);
            writer.publish(compiled.table);
        }
    });
    let published = writer.current().generation() - before;
    ensure!(
        published == count as u64,
        "{published} tables instead of {count}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_work_does_what_it_says() {
        for work in Work::ALL {
            assert_eq!(Work::parse(work.name()), Ok(work));
            perform(work).unwrap();
        }
        let symbol = std::any::type_name_of_val(&count_these_instructions);
        assert!(symbol.contains(MARKER), "{symbol}");
    }
}
