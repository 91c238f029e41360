//! Secret → names and the hashes of their passwords.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use model::{Redacted, Users};
use thiserror::Error;

/// The key of a Secret that holds an htpasswd file.
const FILE: &str = "auth";

/// How a Secret holds its users.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum UsersForm {
    /// An htpasswd file in the key `auth`.
    #[default]
    File,
    /// A key per name.
    Map,
}

/// Why a Secret names no users. The text never quotes its contents.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(crate) enum UsersFault {
    #[error("it does not exist")]
    Missing,
    #[error("its key `auth` is missing or empty")]
    NoFile,
    #[error("it has no keys, or those of a certificate")]
    NoMap,
    #[error(
        "none of its entries is a name with a hash that is known; bcrypt (cost up to 14), `$apr1$`, SHA-crypt (up to 500000 rounds), `{{SHA}}` and `{{SSHA}}` are"
    )]
    Nobody,
}

/// What a Secret says about users, in both forms.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct UserSources {
    file: Result<Arc<Users>, UsersFault>,
    map: Result<Arc<Users>, UsersFault>,
}

impl UserSources {
    /// Those of a Secret that is not there.
    pub(crate) fn missing() -> Self {
        Self {
            file: Err(UsersFault::Missing),
            map: Err(UsersFault::Missing),
        }
    }

    pub(crate) fn read(secret: &Secret) -> Self {
        Self {
            file: file(secret),
            map: map(secret),
        }
    }

    pub(crate) fn get(&self, form: UsersForm) -> Result<&Arc<Users>, UsersFault> {
        let users = match form {
            UsersForm::File => &self.file,
            UsersForm::Map => &self.map,
        };
        users.as_ref().map_err(|fault| *fault)
    }
}

fn file(secret: &Secret) -> Result<Arc<Users>, UsersFault> {
    let text = secret
        .data
        .as_ref()
        .and_then(|data| data.get(FILE))
        .map(|value| value.0.as_slice())
        .filter(|text| !text.trim_ascii().is_empty())
        .ok_or(UsersFault::NoFile)?;
    // A line that cannot be read is nobody's, and closes nothing for the others.
    let lines = text.split(|byte| *byte == b'\n').filter_map(|line| {
        let line = std::str::from_utf8(line).ok()?.trim();
        let (name, rest) = line.split_once(':')?;
        // Behind a second colon htpasswd files may have a comment.
        let hash = rest.split(':').next().unwrap_or(rest);
        (!line.starts_with('#')).then_some((name, hash))
    });
    users(lines)
}

fn map(secret: &Secret) -> Result<Arc<Users>, UsersFault> {
    let data = secret.data.as_ref().filter(|data| !data.is_empty());
    let data = data.ok_or(UsersFault::NoMap)?;
    // The private key of a certificate must not be kept as if it were the hash of a password.
    if data.contains_key(super::KEY) {
        return Err(UsersFault::NoMap);
    }
    users(data.iter().filter_map(|(name, value)| {
        let hash = std::str::from_utf8(&value.0).ok()?.trim();
        Some((name.as_str(), hash))
    }))
}

fn users<'a>(entries: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Arc<Users>, UsersFault> {
    let mut users = BTreeMap::new();
    for (name, hash) in entries {
        if !name.is_empty() && is_known(hash) {
            // Of two lines for one name the first counts, as with nginx.
            users
                .entry(name.to_owned())
                .or_insert_with(|| hash.to_owned());
        }
    }
    if users.is_empty() {
        return Err(UsersFault::Nobody);
    }
    Ok(Arc::new(Redacted::new(users)))
}

/// Is it a hash that the gateway can compare with, in a time that it can afford?
fn is_known(hash: &str) -> bool {
    for kind in ["$2a$", "$2b$", "$2y$"] {
        if let Some(rest) = hash.strip_prefix(kind) {
            let cost = rest.split('$').next().unwrap_or_default();
            return hash.len() == 60
                && cost.parse().is_ok_and(|cost: u32| (4..=14).contains(&cost));
        }
    }
    for kind in ["$5$", "$6$"] {
        if let Some(rest) = hash.strip_prefix(kind) {
            let rounds = rest
                .strip_prefix("rounds=")
                .map(|rest| rest.split('$').next().unwrap_or_default());
            return rounds.is_none_or(|rounds| rounds.parse().is_ok_and(|n: u32| n <= 500_000));
        }
    }
    ["$apr1$", "{SHA}", "{SSHA}"]
        .iter()
        .any(|kind| hash.len() > kind.len() && hash.starts_with(kind))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn secret(entries: &[(&str, &str)]) -> UserSources {
        let data = entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
        UserSources::read(&Secret {
            data: Some(data.collect()),
            ..Secret::default()
        })
    }

    fn names(users: Result<&Arc<Users>, UsersFault>) -> Result<Vec<String>, UsersFault> {
        users.map(|users| users.expose().keys().cloned().collect())
    }

    #[test]
    fn users_are_read_in_both_forms() {
        let hash = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=";
        let file = format!(
            "# people\nanna:{hash}\r\n\nbert:{hash}:a comment\ncarl\ndora:plain\nanna:other\n:{hash}"
        );
        let sources = secret(&[("auth", &file)]);
        assert_eq!(
            names(sources.get(UsersForm::File)),
            Ok(vec!["anna".to_owned(), "bert".to_owned()])
        );
        let anna = &sources.get(UsersForm::File).unwrap().expose()["anna"];
        assert_eq!(anna, hash);
        let sources = secret(&[("anna", hash), ("bert", "plain")]);
        assert_eq!(
            names(sources.get(UsersForm::Map)),
            Ok(vec!["anna".to_owned()])
        );
        assert_eq!(names(sources.get(UsersForm::File)), Err(UsersFault::NoFile));
        for (entries, form, want) in [
            (&[][..], UsersForm::Map, UsersFault::NoMap),
            (&[("auth", " \n")], UsersForm::File, UsersFault::NoFile),
            (
                &[("auth", "anna:plain")],
                UsersForm::File,
                UsersFault::Nobody,
            ),
            (
                &[("tls.key", "x"), ("anna", "{SHA}x")],
                UsersForm::Map,
                UsersFault::NoMap,
            ),
        ] {
            assert_eq!(names(secret(entries).get(form)), Err(want));
        }
        assert!(secret(&[("auth", "a:{SHA}x")]).get(UsersForm::File).is_ok());
    }

    #[test]
    fn hashes_that_take_too_long_are_nobodys() {
        let rest = "a".repeat(53);
        for (hash, want) in [
            (format!("$2y$05${rest}"), true),
            (format!("$2b$14${rest}"), true),
            (format!("$2b$15${rest}"), false),
            (format!("$2b$31${rest}"), false),
            (format!("$2b$05${rest}x"), false),
            ("$5$salt$hash".to_owned(), true),
            ("$6$rounds=500000$salt$hash".to_owned(), true),
            ("$6$rounds=999999999$salt$hash".to_owned(), false),
            ("$1$salt$hash".to_owned(), false),
            ("rl8uMbnhpUHmM".to_owned(), false),
            ("{SHA}".to_owned(), false),
        ] {
            assert_eq!(is_known(&hash), want, "{hash}");
        }
    }
}
