//! `docs/security/known-classes.md`, `docs/limits.md`, `docs/reliability.md` and `SECURITY.md` name tests; they have to exist.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail")]

use std::path::Path;

/// The pairs of a file and of what is named in it.
fn named(page: &str) -> Vec<(&str, &str)> {
    let is_file = |text: &str| extension(text) == Some("rs") || extension(text) == Some("yaml");
    let mut pairs = Vec::new();
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        // What is quoted stands at every second place.
        let quoted: Vec<&str> = line.split('`').skip(1).step_by(2).collect();
        for pair in quoted.windows(2) {
            if let [file, name] = pair
                && is_file(file)
            {
                pairs.push((*file, *name));
            }
        }
    }
    pairs
}

fn extension(file: &str) -> Option<&str> {
    Path::new(file).extension()?.to_str()
}

#[test]
fn the_tests_that_are_named_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (page, least) in [
        ("docs/security/known-classes.md", 40),
        ("docs/limits.md", 20),
        ("SECURITY.md", 20),
        ("docs/reliability.md", 10),
    ] {
        let text = std::fs::read_to_string(root.join(page)).unwrap();
        let pairs = named(&text);
        assert!(
            pairs.len() > least,
            "{page} names {} tests only",
            pairs.len()
        );
        for (file, name) in pairs {
            let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
            let there = if extension(file) == Some("rs") {
                // A property test has its name in the same place.
                text.contains(&format!("fn {name}("))
            } else {
                text.contains(&format!("- name: \"{name}\""))
            };
            assert!(there, "{page}: {file} has no test {name:?}");
        }
    }
}

#[test]
fn every_row_names_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (page, head) in [
        ("docs/security/known-classes.md", "| class "),
        ("docs/limits.md", "| limit "),
        ("SECURITY.md", "| tries to "),
    ] {
        let text = std::fs::read_to_string(root.join(page)).unwrap();
        let rows = text
            .lines()
            .filter(|line| line.starts_with("| ") && !line.starts_with("| ---"));
        for row in rows.filter(|row| !row.starts_with(head)) {
            assert!(
                !named(row).is_empty() || row.contains("`make lint`"),
                "{page}: {row}"
            );
        }
    }
}
