//! Name and password (RFC 7617).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use table::CompiledBasic;

use crate::passwords::{Checked, Passwords};
use crate::phases::original::{Headers, text};

/// The name and password of a request. Two fields are none: the backend might look at the other one.
pub(crate) fn credentials(headers: Headers<'_>) -> Option<(String, Vec<u8>)> {
    let Some((value, false)) = headers.first(&AUTHORIZATION) else {
        return None;
    };
    let (scheme, text) = text(value)?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let mut name = STANDARD.decode(text.trim()).ok()?;
    let colon = name.iter().position(|byte| *byte == b':')?;
    let password = name.split_off(colon + 1);
    name.pop();
    Some((String::from_utf8(name).ok()?, password))
}

/// Does the request have the name and password of a user?
pub(crate) async fn check(
    basic: &CompiledBasic,
    passwords: &Passwords,
    headers: Headers<'_>,
) -> Checked {
    let Some((name, password)) = credentials(headers) else {
        return Checked::Wrong;
    };
    let users = basic.users.expose();
    let hash = users.get(&name).map(String::as_str);
    let decoy = users.values().next().map(String::as_str);
    passwords.check(hash, decoy, password).await
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    #[test]
    fn credentials_are_read_as_the_standard_says() {
        let some = |name: &str, password: &str| Some((name.to_owned(), password.into()));
        for (values, want) in [
            (&["Basic YTpi"][..], some("a", "b")),
            (&["basic  YTpi"], some("a", "b")),
            (&["Basic YTpiOmM="], some("a", "b:c")),
            (&["Basic Og=="], some("", "")),
            (&["Basic YQ=="], None),
            (&["Basic ?"], None),
            (&["Bearer YTpi"], None),
            (&["YTpi"], None),
            (&["Basic YTpi", "Basic YTpi"], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_static(value));
            }
            assert_eq!(credentials(Headers::Map(&headers)), want, "{values:?}");
        }
    }
}
