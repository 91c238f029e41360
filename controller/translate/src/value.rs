//! Values of annotations and settings, read as ingress-nginx reads them.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::report::quoted;

/// `true` or `false` in the spellings of Go's `strconv.ParseBool`.
pub(crate) fn boolean(text: &str) -> Result<bool, String> {
    match text.trim() {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err("it is neither `true` nor `false`".to_owned()),
    }
}

/// A number of seconds from 1 on.
pub(crate) fn seconds(text: &str) -> Result<u32, String> {
    match text.trim().parse::<u32>() {
        Ok(0) | Err(_) => Err("it is not a number of seconds from 1 on, without a unit".to_owned()),
        Ok(seconds) => Ok(seconds),
    }
}

/// A number in these limits.
pub(crate) fn number(text: &str, from: u32, to: u32) -> Result<u32, String> {
    text.trim()
        .parse()
        .ok()
        .filter(|number| (from..=to).contains(number))
        .ok_or_else(|| match to {
            u32::MAX => format!("it is not a number from {from} on"),
            _ => format!("it is not a number from {from} to {to}"),
        })
}

/// Addresses and networks, at least one.
pub(crate) fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    let networks: Vec<IpNet> = list(text)
        .map(|entry| {
            entry
                .parse::<IpNet>()
                .or_else(|_| entry.parse::<IpAddr>().map(IpNet::from))
                .map_err(|_| format!("{} is not an address or a network", quoted(entry)))
        })
        .collect::<Result<_, _>>()?;
    if networks.is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(networks)
}

/// The entries of a list that is separated by commas; empty ones are left out.
pub(crate) fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_strictly() {
        for (text, want) in [
            ("true", Some(true)),
            ("T", Some(true)),
            (" false ", Some(false)),
            ("0", Some(false)),
            ("yes", None),
            ("", None),
        ] {
            assert_eq!(boolean(text).ok(), want, "{text}");
        }
        for (text, want) in [
            ("5", Some(5)),
            ("0", None),
            ("-1", None),
            ("5s", None),
            ("99999999999", None),
        ] {
            assert_eq!(seconds(text).ok(), want, "{text}");
        }
        assert_eq!(list(" a, ,b,").collect::<Vec<_>>(), ["a", "b"]);
    }
}
