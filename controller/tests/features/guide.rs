//! The commands of `docs/migrate-from-ingress-nginx.md` that need no cluster. `e2e/tests/api/guide.rs` runs the others.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// The commands of a page: the lines of its blocks of kind `sh`.
fn commands(page: &str) -> Vec<&str> {
    let mut inside = false;
    let mut commands = Vec::new();
    for line in page.lines() {
        match line {
            "```sh" => inside = true,
            line if line.starts_with("```") => inside = false,
            line if inside && !line.is_empty() => commands.push(line),
            _ => {}
        }
    }
    commands
}

#[test]
fn the_commands_of_the_guide_that_read_files_work() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/migrate-from-ingress-nginx.md")).unwrap();
    let folder = TempDir::new().unwrap();
    std::os::unix::fs::symlink(
        root.canonicalize().unwrap().join("e2e"),
        folder.path().join("e2e"),
    )
    .unwrap();
    let mut ran = 0;
    for command in commands(&page) {
        let words: Vec<&str> = command.split_whitespace().collect();
        let of_files = command.contains("e2e/migrate");
        let of_cluster = words[0] == "kubectl" || command.contains("--configmap");
        assert!(of_files != of_cluster, "no test runs `{command}`");
        if !of_files {
            continue;
        }
        assert_eq!(words[0], "lockgate", "{command}");
        let output = Command::new(env!("CARGO_BIN_EXE_lockgate"))
            .args(&words[1..])
            .current_dir(folder.path())
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        // Some of the Ingresses there are blocked.
        assert_eq!(output.status.code(), Some(3), "{command}: {error}");
        assert!(!output.stdout.is_empty(), "{command}");
        ran += 1;
    }
    assert_eq!(ran, 3);
    let written = std::fs::read_dir(folder.path().join("target/replacements")).unwrap();
    assert!(written.count() > 4, "policies, patches and commands");
}
