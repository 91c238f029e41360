//! The report for a terminal.

use std::io::{self, Write};

use super::report::{IngressReport, Item, Readiness, Report, Risk, Summary, Verdict};
use crate::columns::Columns;
use crate::render::counted;

/// How wide lines are.
const WIDTH: usize = 110;

/// How many Ingresses a step names.
const NAMED: usize = 4;

/// Writes the report.
pub(super) fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let Report {
        summary,
        steps,
        annotations,
        ingresses,
        configmap,
        flags,
        left_out,
        notes,
    } = report;
    writeln!(out, "{}", headline(summary))?;
    writeln!(out)?;
    for (count, word, meaning) in counts(summary) {
        writeln!(out, "  {count:>5}  {word:<8} {meaning}")?;
    }
    writeln!(out)?;
    writeln!(out, "{}", risk(summary))?;
    if !steps.is_empty() {
        heading(out, "What to do, in this order")?;
        for (number, step) in steps.iter().enumerate() {
            let lead = format!("{:>3}. {}: ", number + 1, step.what);
            let text = format!("{}{}", step.why, in_brackets(&step.ingresses));
            wrapped(out, &lead, 5, &text)?;
        }
    }
    if !annotations.is_empty() {
        heading(out, "Annotations")?;
        let mut columns = Columns::new([
            "annotation",
            "Ingresses",
            "refused",
            "ignored",
            "different",
            "honoured",
        ]);
        for usage in annotations {
            let [all, refused, ignored, different, honoured] = usage.cells();
            columns.push([
                usage.name.clone(),
                all,
                refused,
                ignored,
                different,
                honoured,
            ]);
        }
        write!(out, "{columns}")?;
    }
    if let Some(configmap) = configmap {
        heading(out, &format!("ConfigMap {}", configmap.name))?;
        items(out, &configmap.items)?;
    }
    if !flags.is_empty() {
        heading(out, "Flags of the controller")?;
        let width = flags.iter().map(|flag| flag.name.len()).max().unwrap_or(0);
        for flag in flags {
            let lead = format!("  {:<9}  {:<width$}  ", flag.verdict.as_str(), flag.name);
            wrapped(out, &lead, lead.len(), &flag.text)?;
        }
    }
    each(out, ingresses)?;
    if !left_out.is_empty() {
        heading(out, "Not looked at")?;
        let mut columns = Columns::new(["Ingress", "why"]);
        for other in left_out {
            columns.push([other.ingress.clone(), other.why.clone()]);
        }
        write!(out, "{columns}")?;
    }
    if !notes.is_empty() {
        heading(out, "Notes")?;
        for note in notes {
            wrapped(out, "  - ", 4, note)?;
        }
    }
    Ok(())
}

/// Each Ingress, the blocked ones first.
fn each(out: &mut impl Write, ingresses: &[IngressReport]) -> io::Result<()> {
    for (readiness, title) in [
        (Readiness::Blocked, "Blocked"),
        (Readiness::Review, "To review"),
    ] {
        let mut of_kind = of(ingresses, readiness).peekable();
        if of_kind.peek().is_some() {
            heading(out, title)?;
        }
        for (number, ingress) in of_kind.enumerate() {
            if number > 0 {
                writeln!(out)?;
            }
            let hosts = ingress.hosts.join(", ");
            writeln!(out, "{}  {hosts}", ingress.full_name())?;
            items(out, &ingress.items)?;
            for finding in &ingress.findings {
                wrapped(out, "  note       ", 13, finding)?;
            }
        }
    }
    let mut ready = of(ingresses, Readiness::Ready).peekable();
    if ready.peek().is_some() {
        heading(out, "Ready")?;
        let mut columns = Columns::new(["Ingress", "hosts"]);
        for ingress in ready {
            columns.push([ingress.full_name(), ingress.hosts.join(", ")]);
        }
        write!(out, "{columns}")?;
    }
    Ok(())
}

/// The first line.
pub(super) fn headline(summary: &Summary) -> String {
    format!(
        "{} of class {} in {} with {}",
        counted_ingresses(summary.ingresses),
        summary.class,
        counted(summary.namespaces, "namespace"),
        counted(summary.hosts, "host"),
    )
}

/// How many are how ready.
pub(super) fn counts(summary: &Summary) -> [(usize, &'static str, &'static str); 3] {
    [
        (
            summary.blocked,
            "blocked",
            "routes would answer 503, because something that they ask for cannot be done",
        ),
        (
            summary.review,
            "review",
            "would be served, but not entirely as before",
        ),
        (summary.ready, "ready", "would be served as before"),
    ]
}

/// What a switch today would mean.
pub(super) fn risk(summary: &Summary) -> String {
    match summary.risk {
        Risk::High => format!(
            "Risk of a switch today: high. {} would not answer as they should; work through the list first.",
            counted(summary.blocked_hosts, "host")
        ),
        Risk::Medium => {
            "Risk of a switch today: medium. Everything would answer; read what differs.".to_owned()
        }
        Risk::Low => {
            "Risk of a switch today: low. Everything would be served as before.".to_owned()
        }
    }
}

/// The Ingresses that a step is about; nothing where it is about none.
pub(super) fn in_brackets(ingresses: &[String]) -> String {
    if ingresses.is_empty() {
        return String::new();
    }
    format!(" ({})", named(ingresses))
}

/// Some names, and how many others there are.
fn named(ingresses: &[String]) -> String {
    let some: Vec<&str> = ingresses.iter().take(NAMED).map(String::as_str).collect();
    let some = some.join(", ");
    match ingresses.len().saturating_sub(NAMED) {
        0 => some,
        more => format!("{some} and {more} more"),
    }
}

/// The Ingresses that are as ready as this.
pub(super) fn of(
    ingresses: &[IngressReport],
    readiness: Readiness,
) -> impl Iterator<Item = &IngressReport> {
    ingresses
        .iter()
        .filter(move |ingress| ingress.readiness == readiness)
}

/// So many Ingresses.
pub(super) fn counted_ingresses(count: usize) -> String {
    let plural = if count == 1 { "" } else { "es" };
    format!("{count} Ingress{plural}")
}

fn heading(out: &mut impl Write, title: &str) -> io::Result<()> {
    writeln!(out, "\n{title}\n{}", "-".repeat(title.chars().count()))
}

/// Each with its reason; those of which nothing is to be said on one line.
fn items(out: &mut impl Write, items: &[Item]) -> io::Result<()> {
    let said = |item: &&Item| item.verdict != Verdict::Honoured;
    let width = items
        .iter()
        .filter(said)
        .map(|item| item.name.len())
        .max()
        .unwrap_or(0);
    for item in items.iter().filter(said) {
        let lead = format!("  {:<9}  {:<width$}  ", item.verdict.as_str(), item.name);
        wrapped(out, &lead, lead.len(), &item.text)?;
    }
    let honoured: Vec<&str> = items
        .iter()
        .filter(|item| item.verdict == Verdict::Honoured)
        .map(|item| item.name.as_str())
        .collect();
    if !honoured.is_empty() {
        wrapped(out, "  honoured   ", 13, &honoured.join(", "))?;
    }
    Ok(())
}

/// Writes words after `lead`; further lines begin under column `indent`.
fn wrapped(out: &mut impl Write, lead: &str, indent: usize, text: &str) -> io::Result<()> {
    let mut line = lead.to_owned();
    let mut length = line.chars().count();
    let mut fresh = true;
    for word in text.split_whitespace() {
        let needed = word.chars().count() + usize::from(!fresh);
        if !fresh && length + needed > WIDTH {
            writeln!(out, "{}", line.trim_end())?;
            line = " ".repeat(indent);
            length = indent;
            fresh = true;
        }
        if !fresh {
            line.push(' ');
            length += 1;
        }
        line.push_str(word);
        length += word.chars().count();
        fresh = false;
    }
    writeln!(out, "{}", line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_go_on_under_their_beginning() {
        let mut out = Vec::new();
        wrapped(&mut out, "  a: ", 5, &"word ".repeat(40)).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        assert!(
            text.lines()
                .skip(1)
                .all(|line| line.starts_with("     word"))
        );
        assert_eq!(text.matches("word").count(), 40);
    }

    #[test]
    fn only_some_names_are_named() {
        let names: Vec<String> = (0..6).map(|n| format!("a/{n}")).collect();
        assert_eq!(named(&names), "a/0, a/1, a/2, a/3 and 2 more");
        assert_eq!(named(&names[..1]), "a/0");
    }
}
