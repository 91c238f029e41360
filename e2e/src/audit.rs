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

    /// What one user was refused, and was not granted at another time: an API server that has just started refuses
    /// everybody for a moment, until it has read the roles.
    pub fn forbidden(&self, user: &str) -> Vec<String> {
        let request = |entry: &Entry| {
            let path = entry.uri.split('?').next().unwrap_or_default();
            (entry.access.clone(), path.to_owned())
        };
        let granted: BTreeSet<_> = self
            .of(user)
            .filter(|entry| entry.code < 400)
            .map(request)
            .collect();
        let refused: BTreeSet<String> = self
            .of(user)
            .filter(|entry| matches!(entry.code, 401 | 403) && !entry.terminating)
            .filter(|entry| !granted.contains(&request(entry)))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: &[(&str, &str, u64)]) -> Result<Audit> {
        let entries = lines.iter().map(|(verb, uri, code)| {
            let line = serde_json::json!({
                "user": {"username": "lockgate"}, "verb": verb, "requestURI": uri,
                "objectRef": {"resource": "services"}, "responseStatus": {"code": code},
            });
            entry(&line.to_string())
        });
        Ok(Audit {
            entries: entries.collect::<Result<_>>()?,
        })
    }

    #[test]
    fn what_is_never_granted_is_refused() -> Result<()> {
        let audit = log(&[
            ("watch", "/api/v1/services?resourceVersion=1", 200),
            ("watch", "/api/v1/services?resourceVersion=2", 403),
            ("list", "/api/v1/services", 403),
            ("watch", "/api/v1/namespaces/other/services", 401),
        ])?;
        assert_eq!(
            audit.forbidden("lockgate"),
            [
                "list services (/api/v1/services)",
                "watch services (/api/v1/namespaces/other/services)"
            ]
        );
        assert!(audit.forbidden("somebody").is_empty());
        Ok(())
    }
}
