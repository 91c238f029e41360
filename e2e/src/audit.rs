//! What service accounts have asked the API server for, as its audit log tells.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// A verb on a kind of resource; the subresource follows a slash.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Access {
    /// The API group, empty for the core.
    pub group: String,
    /// For example `ingresses/status`.
    pub resource: String,
    /// For example `patch`.
    pub verb: String,
}

impl fmt::Display for Access {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.verb, self.resource)?;
        if self.group.is_empty() {
            Ok(())
        } else {
            write!(formatter, ".{}", self.group)
        }
    }
}

/// One answered request.
#[derive(Debug)]
pub struct Entry {
    /// Who asked.
    pub user: String,
    /// For what.
    pub access: Access,
    /// The path of the request.
    pub uri: String,
    /// The status code of the answer.
    pub code: u64,
    /// Whether it was refused because the namespace is being deleted, which has nothing to do with permissions.
    pub terminating: bool,
}

/// The whole log.
#[derive(Debug, Default)]
pub struct Audit {
    entries: Vec<Entry>,
}

impl Audit {
    /// Reads what has been written so far.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        // The last line may be half written.
        let complete = text
            .rfind('\n')
            .map_or("", |end| text.get(..end).unwrap_or_default());
        let entries = complete.lines().map(entry).collect::<Result<_>>()?;
        Ok(Self { entries })
    }

    /// The requests of one user.
    pub fn of<'a>(&'a self, user: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |entry| entry.user == user)
    }

    /// What one user was refused.
    pub fn forbidden(&self, user: &str) -> Vec<String> {
        let refused: BTreeSet<String> = self
            .of(user)
            .filter(|entry| matches!(entry.code, 401 | 403) && !entry.terminating)
            .map(|entry| format!("{} ({})", entry.access, entry.uri))
            .collect();
        refused.into_iter().collect()
    }

    /// What one user was granted and did.
    pub fn used(&self, user: &str) -> BTreeSet<Access> {
        self.of(user)
            .filter(|entry| entry.code < 400)
            .map(|entry| entry.access.clone())
            .collect()
    }
}

fn entry(line: &str) -> Result<Entry> {
    let value: Value = serde_json::from_str(line)?;
    let text = |pointer: &str| {
        value
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let resource = match text("/objectRef/subresource") {
        subresource if subresource.is_empty() => text("/objectRef/resource"),
        subresource => format!("{}/{subresource}", text("/objectRef/resource")),
    };
    let access = Access {
        group: text("/objectRef/apiGroup"),
        resource,
        verb: text("/verb"),
    };
    let code = value
        .pointer("/responseStatus/code")
        .and_then(Value::as_u64)
        .unwrap_or_default();
    Ok(Entry {
        user: text("/user/username"),
        access,
        uri: text("/requestURI"),
        code,
        terminating: text("/responseStatus/message").contains("is being terminated"),
    })
}
