//! The report as a page.

use std::io::{self, Write};

use super::report::{IngressReport, Item, Readiness, Report};
use super::text::{counts, headline, in_brackets, of, risk};

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
    writeln!(out, "# Migration report\n\n{}.\n", headline(summary))?;
    writeln!(out, "| Ingresses | | |\n| ---: | --- | --- |")?;
    for (count, word, meaning) in counts(summary) {
        writeln!(out, "| {count} | {word} | {meaning} |")?;
    }
    writeln!(out, "\n{}", risk(summary))?;
    if !steps.is_empty() {
        writeln!(out, "\n## What to do, in this order\n")?;
        for (number, step) in steps.iter().enumerate() {
            writeln!(
                out,
                "{}. **{}**: {}{}",
                number + 1,
                step.what,
                escaped(&step.why),
                in_brackets(&step.ingresses)
            )?;
        }
    }
    if !annotations.is_empty() {
        writeln!(
            out,
            "\n## Annotations\n\n\
             | annotation | Ingresses | refused | ignored | different | honoured |\n\
             | --- | ---: | ---: | ---: | ---: | ---: |"
        )?;
        for usage in annotations {
            writeln!(out, "| `{}` | {} |", usage.name, usage.cells().join(" | "))?;
        }
    }
    if let Some(configmap) = configmap {
        writeln!(out, "\n## ConfigMap {}\n", configmap.name)?;
        table(out, "key", &configmap.items)?;
    }
    if !flags.is_empty() {
        writeln!(out, "\n## Flags of the controller\n")?;
        table(out, "flag", flags)?;
    }
    each(out, ingresses)?;
    if !left_out.is_empty() {
        writeln!(
            out,
            "\n## Not looked at\n\n| Ingress | why |\n| --- | --- |"
        )?;
        for other in left_out {
            writeln!(out, "| {} | {} |", other.ingress, other.why)?;
        }
    }
    if !notes.is_empty() {
        writeln!(out, "\n## Notes\n")?;
        for note in notes {
            writeln!(out, "- {}", escaped(note))?;
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
            writeln!(out, "\n## {title}")?;
        }
        for ingress in of_kind {
            writeln!(
                out,
                "\n### {}\n\n{}\n",
                ingress.full_name(),
                ingress.hosts.join(", ")
            )?;
            if !ingress.items.is_empty() {
                table(out, "annotation", &ingress.items)?;
            }
            for finding in &ingress.findings {
                writeln!(out, "\n{}", escaped(finding))?;
            }
        }
    }
    let mut ready = of(ingresses, Readiness::Ready).peekable();
    if ready.peek().is_some() {
        writeln!(out, "\n## Ready\n\n| Ingress | hosts |\n| --- | --- |")?;
        for ingress in ready {
            writeln!(
                out,
                "| {} | {} |",
                ingress.full_name(),
                ingress.hosts.join(", ")
            )?;
        }
    }
    Ok(())
}

fn table(out: &mut impl Write, what: &str, items: &[Item]) -> io::Result<()> {
    writeln!(out, "| {what} | verdict | |\n| --- | --- | --- |")?;
    for item in items {
        writeln!(
            out,
            "| `{}` | {} | {} |",
            item.name,
            item.verdict.as_str(),
            escaped(&item.text)
        )?;
    }
    Ok(())
}

/// A text that came from outside must not end a cell.
fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
