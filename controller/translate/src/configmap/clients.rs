//! What clients may take their time for.

use model::ClientBounds;

use super::Fault;
use crate::value;

/// The least and the most that header sections may be bound to: a browser with its cookies needs a kilobyte, and nothing
/// is served by holding more than a megabyte for somebody of whom nothing is known yet.
const HEADER_BYTES: std::ops::RangeInclusive<u64> = 1024..=1024 * 1024;

/// Takes a key that is about clients.
pub(super) fn set(bounds: &mut ClientBounds, key: &str, text: &str) -> Result<(), Fault> {
    match key {
        "client-header-timeout" => bounds.header_timeout = Some(value::seconds(text)?),
        "client-body-timeout" => bounds.body_timeout = Some(value::seconds(text)?),
        "keep-alive" => match value::number(text, 0, u32::MAX)? {
            // One request for each connection, as in nginx.
            0 => bounds.requests = Some(1),
            seconds => bounds.idle_timeout = Some(seconds),
        },
        "keep-alive-requests" => {
            let requests = value::number(text, 1, u32::MAX)?;
            // `keep-alive: "0"` has been read before, and prevails.
            bounds.requests = Some(bounds.requests.map_or(requests, |one| one.min(requests)));
        }
        "http2-max-concurrent-streams" => bounds.streams = Some(value::number(text, 1, 10_000)?),
        "large-client-header-buffers" => bounds.header_bytes = Some(buffers(text)?),
        _ => return Err(Fault::Unknown),
    }
    Ok(())
}

/// A number and a size, which together are the largest header section.
fn buffers(text: &str) -> Result<u32, String> {
    let wrong = || "it is not a number and a size such as `4 8k`".to_owned();
    let (number, size) = text.trim().split_once(' ').ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let size = value::size(size).map_err(|_| wrong())?;
    number
        .checked_mul(size)
        .filter(|bytes| HEADER_BYTES.contains(bytes))
        .and_then(|bytes| u32::try_from(bytes).ok())
        .ok_or_else(|| "together they are less than 1k or more than 1m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys in the order in which a ConfigMap has them.
    fn read(keys: &[(&str, &str)]) -> Option<ClientBounds> {
        let mut bounds = ClientBounds::default();
        for (key, text) in keys {
            set(&mut bounds, key, text).ok()?;
        }
        Some(bounds)
    }

    #[test]
    fn keys_are_read_as_nginx_reads_them() {
        let none = ClientBounds::default();
        for (keys, want, why) in [
            (
                &[("client-header-timeout", "20")][..],
                Some(ClientBounds {
                    header_timeout: Some(20),
                    ..none
                }),
                "seconds",
            ),
            (
                &[("client-body-timeout", "0")],
                None,
                "nobody can send in no time",
            ),
            (
                &[("keep-alive", "0"), ("keep-alive-requests", "100")],
                Some(ClientBounds {
                    requests: Some(1),
                    ..none
                }),
                "no connection is kept",
            ),
            (
                &[("keep-alive", "15"), ("keep-alive-requests", "100")],
                Some(ClientBounds {
                    idle_timeout: Some(15),
                    requests: Some(100),
                    ..none
                }),
                "both are said",
            ),
            (
                &[("large-client-header-buffers", "4 16k")],
                Some(ClientBounds {
                    header_bytes: Some(64 * 1024),
                    ..none
                }),
                "number times size",
            ),
            (&[("large-client-header-buffers", "4")], None, "no size"),
            (
                &[("large-client-header-buffers", "1 512")],
                None,
                "too small",
            ),
            (
                &[("large-client-header-buffers", "64 1m")],
                None,
                "too large",
            ),
            (&[("http2-max-concurrent-streams", "0")], None, "no stream"),
            (
                &[("client-header-timeout", "1m")],
                None,
                "no units, as there",
            ),
        ] {
            assert_eq!(read(keys), want, "{keys:?}: {why}");
        }
    }
}
