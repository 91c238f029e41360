//! `path` and `pathType` of a rule.

use model::{NormalPath, PathMatch};

use crate::Problem;
use crate::report::{Reason, quoted};

/// The longest path that is served, in bytes. A request line with more is refused by the gateway's limits anyway.
const LONGEST: usize = 4096;

/// Reads path and type.
///
/// `ImplementationSpecific`, and no type at all, mean `Prefix`, as with ingress-nginx. No path means `/`. The path is
/// brought into the form in which requests are matched.
///
/// Also returns the path as it is written, where that differs: it is the regular expression on hosts that have those.
/// With `regex` a text that is no path can be one.
pub(crate) fn read(
    path: Option<&str>,
    path_type: &str,
    regex: bool,
    field: &str,
) -> Result<(PathMatch, Option<Box<str>>), Problem> {
    let path = match path {
        None | Some("") => "/",
        Some(path) => path,
    };
    let invalid = |why: &str| {
        Problem::error(
            Reason::InvalidPath,
            &format!("{field}.path"),
            &format!(
                "{} is no path: {why}; this path is not served",
                quoted(path)
            ),
        )
    };
    if path.len() > LONGEST {
        return Err(invalid(&format!("it is longer than {LONGEST} bytes")));
    }
    let normal = match NormalPath::parse(path) {
        Ok(normal) => normal,
        Err(_) if regex && path.starts_with('/') && !path.contains(char::is_control) => {
            return Ok((PathMatch::Regex(path.to_owned()), None));
        }
        Err(error) => return Err(invalid(&error.to_string())),
    };
    let written = (normal.as_str() != path).then(|| path.into());
    match path_type {
        "Exact" => Ok((PathMatch::Exact(normal), written)),
        "Prefix" | "ImplementationSpecific" | "" => Ok((PathMatch::Prefix(normal), written)),
        other => Err(Problem::error(
            Reason::InvalidPathType,
            &format!("{field}.pathType"),
            &format!(
                "{} is none of Exact, Prefix and ImplementationSpecific; this path is not served",
                quoted(other)
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_paths_are_read_as_the_api_says() {
        let prefix = |path| Ok(PathMatch::Prefix(NormalPath::parse(path).unwrap()));
        let exact = |path| Ok(PathMatch::Exact(NormalPath::parse(path).unwrap()));
        let long = format!("/{}", "a".repeat(65_536));
        for (path, path_type, want, why) in [
            (Some("/foo"), "Prefix", prefix("/foo"), ""),
            (
                Some("/foo/"),
                "Prefix",
                prefix("/foo/"),
                "the longer text has priority, so it is kept",
            ),
            (Some("/foo"), "Exact", exact("/foo"), ""),
            (
                Some("/foo/"),
                "Exact",
                exact("/foo/"),
                "a trailing slash counts",
            ),
            (Some("/foo"), "ImplementationSpecific", prefix("/foo"), ""),
            (Some("/foo"), "", prefix("/foo"), "old objects have no type"),
            (None, "ImplementationSpecific", prefix("/"), ""),
            (Some(""), "Prefix", prefix("/"), ""),
            (
                Some("/a\"b"),
                "Prefix",
                prefix("/a%22b"),
                "a quote is a character",
            ),
            (
                Some("/a%2fb"),
                "Prefix",
                prefix("/a%2Fb"),
                "an encoded slash stays",
            ),
            (Some("foo"), "Prefix", Err(Reason::InvalidPath), "relative"),
            (Some("/a\nb"), "Prefix", Err(Reason::InvalidPath), "newline"),
            (Some("/a\0b"), "Prefix", Err(Reason::InvalidPath), "NUL"),
            (
                Some("/a%00"),
                "Exact",
                Err(Reason::InvalidPath),
                "encoded NUL",
            ),
            (
                Some("/../a"),
                "Prefix",
                Err(Reason::InvalidPath),
                "above the root",
            ),
            (Some(&long), "Prefix", Err(Reason::InvalidPath), "64 KiB"),
            (
                Some("/foo"),
                "prefix",
                Err(Reason::InvalidPathType),
                "types have one spelling",
            ),
        ] {
            let got = read(path, path_type, false, "f")
                .map(|(path, _)| path)
                .map_err(|problem| problem.reason);
            let shown: String = path.unwrap_or("none").chars().take(40).collect();
            assert_eq!(got, want, "{shown:?} {path_type} {why}");
        }
    }

    #[test]
    fn a_path_is_kept_as_it_is_written() {
        for (path, regex, want) in [
            ("/a", true, Ok((None, "/a"))),
            (
                "/a(/|$)(.*)",
                true,
                Ok((Some("/a(/|$)(.*)"), "/a(/%7C$)(.*)")),
            ),
            (r"/v\d+", true, Ok((None, r"~ /v\d+"))),
            (r"/v\d+", false, Err(())),
            ("v.*", true, Err(())),
            ("/a\nb", true, Err(())),
        ] {
            let got = read(Some(path), "ImplementationSpecific", regex, "f");
            let got = got
                .map(|(path, written)| (written, path.to_string()))
                .map_err(|_| ());
            let want = want.map(|(written, path)| (written.map(Box::from), path.to_owned()));
            assert_eq!(got, want, "{path}");
        }
    }
}
