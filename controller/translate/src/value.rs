//! Values of annotations and settings, read as ingress-nginx reads them.

use std::net::IpAddr;

use ipnet::IpNet;
use model::Balance;

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

/// A time as nginx writes it, in seconds from `from` on: a number with `s`, `m`, `h` or `d`, or several of them;
/// without a unit it is seconds.
pub(crate) fn duration(text: &str, from: u32) -> Result<u32, String> {
    let text = text.trim();
    let mut total = Some(0_u32);
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = rest.split_at(digits);
        let length = unit.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, more) = unit.split_at(length);
        let seconds = match unit {
            "s" => Some(1),
            "m" => Some(60),
            "h" => Some(60 * 60),
            "d" => Some(24 * 60 * 60),
            // Only the last number goes without.
            "" if more.is_empty() => Some(1),
            _ => None,
        };
        let part = number.parse::<u32>().ok().zip(seconds);
        total = total
            .zip(part)
            .and_then(|(total, (number, unit))| total.checked_add(number.checked_mul(unit)?));
        rest = more.trim_start();
        if total.is_none() {
            break;
        }
    }
    total
        .filter(|total| !text.is_empty() && *total >= from)
        .ok_or_else(|| "it is not a time such as `30s`, `10m` or `1h`".to_owned())
}

/// A time in milliseconds, from `from` on: a number with `ms`, `s`, `m` or `h`; without a unit it is seconds.
pub(crate) fn milliseconds(text: &str, from: u32) -> Result<u32, String> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => Some(1),
        "s" | "" => Some(1000),
        "m" => Some(60 * 1000),
        "h" => Some(60 * 60 * 1000),
        _ => None,
    };
    number
        .parse::<u32>()
        .ok()
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor))
        .filter(|time| *time >= from)
        .ok_or_else(|| format!("it is not a time such as `500ms`, `2s` or `1m`, from {from}ms on"))
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

/// Statuses of errors, at least one.
pub(crate) fn error_statuses(text: &str) -> Result<Vec<u16>, String> {
    let mut statuses = list(text)
        .map(|entry| {
            let status = entry.parse::<u16>().ok();
            status
                .filter(|status| (400..600).contains(status))
                .ok_or_else(|| format!("{} is not a status from 400 to 599", quoted(entry)))
        })
        .collect::<Result<Vec<_>, _>>()?;
    if statuses.is_empty() {
        return Err("it is empty".to_owned());
    }
    statuses.sort_unstable();
    statuses.dedup();
    Ok(statuses)
}

/// How endpoints are chosen. The words for what `affinity` and `upstream-hash-by` bring about say nothing by themselves.
pub(crate) fn balance(text: &str) -> Result<Option<Balance>, String> {
    match text.trim() {
        "round_robin" => Ok(Some(Balance::RoundRobin)),
        "ewma" => Ok(Some(Balance::Ewma)),
        "least_request" | "least_conn" => Ok(Some(Balance::LeastRequest)),
        "random" => Ok(Some(Balance::Random)),
        "chash" | "chashsubset" | "sticky_balanced" | "sticky_persistent" => Ok(None),
        _ => Err("it is none of `round_robin`, `ewma`, `least_request` and `random`".to_owned()),
    }
}

/// How many hundredths of the average an endpoint may have to do; `None` for 0, which is no limit.
pub(crate) fn bound(text: &str) -> Result<Option<u32>, String> {
    match number(text, 0, 10_000) {
        Ok(0) => Ok(None),
        Ok(percent @ 101..) => Ok(Some(percent)),
        Ok(_) | Err(_) => Err("it is neither 0 nor a number from 101 to 10000".to_owned()),
    }
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

/// A number of bytes, with `k`, `m` or `g` for larger units.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let text = text.trim().to_ascii_lowercase();
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'b') => (text.strip_suffix('b').unwrap_or_default(), 1),
        Some(b'k') => (text.strip_suffix('k').unwrap_or_default(), 1 << 10),
        Some(b'm') => (text.strip_suffix('m').unwrap_or_default(), 1 << 20),
        Some(b'g') => (text.strip_suffix('g').unwrap_or_default(), 1 << 30),
        _ => (text.as_str(), 1),
    };
    digits
        .parse::<u64>()
        .ok()
        .filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(|| "it is not a size such as `8k`, `10m` or `1g`".to_owned())
}

/// A text that may stand in a header or a URL: printable ASCII, no space in it.
pub(crate) fn printable(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("it has characters that cannot be in it".to_owned());
    }
    Ok(text.to_owned())
}

/// A path in which `$1` to `$9` may stand for groups.
pub(crate) fn path_with_groups(text: &str) -> Result<String, String> {
    let path = printable(text)?;
    if path.contains("://") || path.contains(['?', '#', '\\']) {
        return Err("it is not a path".to_owned());
    }
    for rest in path.split('$').skip(1) {
        if !rest.starts_with(|c: char| ('1'..='9').contains(&c)) {
            return Err("only `$1` to `$9` stand for something".to_owned());
        }
    }
    if !path.starts_with(['/', '$']) {
        return Ok(format!("/{path}"));
    }
    Ok(path)
}

/// An absolute path without variables.
pub(crate) fn absolute_path(text: &str) -> Result<String, String> {
    let path = printable(text)?;
    if !path.starts_with('/') || path.starts_with("//") {
        return Err("it is not an absolute path".to_owned());
    }
    Ok(path)
}

/// A URL with `http` or `https`, or an absolute path.
pub(crate) fn url(text: &str) -> Result<String, String> {
    let url = printable(text)?;
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    let with_host = rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '?', '#']));
    if !with_host && absolute_path(&url).is_err() || url.contains(['"', '\\', '<', '>']) {
        return Err("it is neither a URL with http or https nor an absolute path".to_owned());
    }
    Ok(url)
}

/// The name of a header, a cookie or a parameter.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let name = text.trim();
    let legal = !name.is_empty()
        && name.len() <= 128
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~'));
    if legal {
        Ok(name.to_owned())
    } else {
        Err("it is not a name".to_owned())
    }
}

/// Names of headers, or `*`, as they are sent.
pub(crate) fn names(text: &str) -> Result<String, String> {
    let mut names = Vec::new();
    for entry in list(text) {
        if entry != "*" {
            name(entry).map_err(|_| format!("{} is not a header name", quoted(entry)))?;
        }
        names.push(entry);
    }
    if names.is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(names.join(", "))
}

/// The name of an object, and its namespace if that is given.
pub(crate) fn object(text: &str) -> Result<(Option<Box<str>>, Box<str>), String> {
    let text = text.trim();
    let (namespace, name) = match text.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, text),
    };
    let legal = |part: &str| {
        let end = |byte: Option<u8>| {
            byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        part.len() <= 253
            && end(part.bytes().next())
            && end(part.bytes().next_back())
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
    };
    if legal(name) && namespace.is_none_or(legal) {
        Ok((namespace.map(Into::into), name.into()))
    } else {
        Err("it is neither `name` nor `namespace/name` of an object".to_owned())
    }
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
        for (text, want) in [
            ("0", Some(0)),
            ("512", Some(512)),
            ("8k", Some(8 << 10)),
            ("10M", Some(10 << 20)),
            ("1g", Some(1 << 30)),
            ("5b", Some(5)),
            ("", None),
            ("m", None),
            ("-1", None),
            ("+1", None),
            ("1mm", None),
            ("1.5m", None),
            ("99999999999999999999g", None),
        ] {
            assert_eq!(size(text).ok(), want, "{text}");
        }
        for (text, want) in [
            ("/a/$1", Some("/a/$1")),
            ("$2", Some("$2")),
            ("a", Some("/a")),
            ("/$host", None),
            ("/a$", None),
            ("https://a.test/$1", None),
            ("/a b", None),
            ("/a\nb", None),
            ("/a?b", None),
        ] {
            assert_eq!(path_with_groups(text).ok().as_deref(), want, "{text}");
        }
        for (text, legal) in [
            ("https://a.test", true),
            ("http://a.test/x?y=z&w", true),
            ("/x", true),
            ("//a.test/x", false),
            ("https://", false),
            ("https:///x", false),
            ("javascript:alert(1)", false),
            ("a.test", false),
            ("https://a.test/\r\nx: y", false),
        ] {
            assert_eq!(url(text).is_ok(), legal, "{text}");
        }
        for (text, want) in [
            ("600s", Some(600)),
            ("10m", Some(600)),
            (" 1h 30m ", Some(5400)),
            ("90", Some(90)),
            ("1d", Some(86_400)),
            ("0", None),
            ("", None),
            ("s", None),
            ("1h30", Some(3630)),
            ("30 1h", None),
            ("10 minutes", None),
            ("500ms", None),
            ("-1s", None),
            ("9999999999s", None),
            ("999999999h", None),
        ] {
            assert_eq!(duration(text, 1).ok(), want, "{text}");
        }
        assert_eq!(duration("0", 0), Ok(0));
        assert_eq!(list(" a, ,b,").collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn milliseconds_have_a_unit_or_are_seconds() {
        for (text, want) in [
            ("500ms", Some(500)),
            (" 2s ", Some(2000)),
            ("3", Some(3000)),
            ("1m", Some(60_000)),
            ("1h", Some(3_600_000)),
            ("99ms", None),
            ("0", None),
            ("", None),
            ("ms", None),
            ("1d", None),
            ("1.5s", None),
            ("-1s", None),
            ("1s 1ms", None),
            ("4294967296ms", None),
            ("2000h", None),
        ] {
            assert_eq!(milliseconds(text, 100).ok(), want, "{text}");
        }
    }
}
