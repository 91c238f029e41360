//! Sends clients of plain HTTP to https.

use http::StatusCode;

use super::redirect::location;
use crate::error::Reason;
use crate::phases::answer::Answer;

/// The redirect, unless the path is one of the exceptions. The port is left out: nobody knows the one for https.
pub(crate) fn answer(
    status: StatusCode,
    except: &[impl AsRef<str>],
    host: &str,
    path: &str,
    query: Option<&str>,
) -> Option<Answer> {
    if except
        .iter()
        .any(|prefix| path.starts_with(prefix.as_ref()))
    {
        return None;
    }
    let location = location("https", host, None, path, query)?;
    Some(Answer::redirect(status, Reason::HttpsRedirect, location))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_but_the_exceptions_goes_to_https() {
        let except = ["/.well-known/acme-challenge"];
        for (path, query, want) in [
            ("/", None, Some("https://a.test/")),
            ("/a/b", Some("c=d&e"), Some("https://a.test/a/b?c=d&e")),
            ("/a", Some(""), Some("https://a.test/a?")),
            ("/.well-known/acme-challenge/token", None, None),
            ("/.well-known/acme-challenges", None, None),
            (
                "/.well-known/acme",
                None,
                Some("https://a.test/.well-known/acme"),
            ),
        ] {
            let found = answer(
                StatusCode::PERMANENT_REDIRECT,
                &except,
                "a.test",
                path,
                query,
            );
            assert_eq!(
                found.map(|answer| answer.location.unwrap()),
                want.map(|url| url.parse().unwrap()),
                "{path}"
            );
        }
    }
}
