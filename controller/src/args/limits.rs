//! What clients may take their time for and how much they may have, as far as the ConfigMap has no key for it.

use std::time::Duration;

use clap::Args;

use super::count;
use crate::app::{ClientLimits, MemoryMark};

/// Limits on clients. A ConfigMap has others, under the names of ingress-nginx; docs/limits.md has all of them.
#[derive(Args, Clone, Debug)]
#[command(
    next_help_heading = "Limits on clients (times like 500ms, 15s, 2m; the ConfigMap has more)"
)]
pub struct LimitArgs {
    /// Connections of one client at once: one address, of IPv6 one /64 network, after the PROXY protocol; 0 is any number
    ///
    /// Where a load balancer or the nodes themselves hide the addresses of clients, a few addresses are everybody.
    #[arg(long, value_name = "N", env = "LOCKGATE_MAX_CONNECTIONS_PER_CLIENT", default_value_t = ClientLimits::default().connections_per_client)]
    pub max_connections_per_client: u32,
    /// TLS handshakes at once; for one more, the one that has waited for its client for longest ends
    #[arg(long, value_name = "N", env = "LOCKGATE_MAX_TLS_HANDSHAKES", value_parser = count, default_value_t = ClientLimits::default().handshakes)]
    pub max_tls_handshakes: usize,
    /// Time for the PROXY protocol header
    #[arg(long, value_name = "TIME", env = "LOCKGATE_PROXY_HEADER_TIMEOUT", value_parser = humantime::parse_duration, default_value = "5s")]
    pub proxy_header_timeout: Duration,
    /// Time for the whole `ClientHello`
    #[arg(long, value_name = "TIME", env = "LOCKGATE_CLIENT_HELLO_TIMEOUT", value_parser = humantime::parse_duration, default_value = "10s")]
    pub client_hello_timeout: Duration,
    /// Time for the rest of a TLS handshake
    #[arg(long, value_name = "TIME", env = "LOCKGATE_TLS_HANDSHAKE_TIMEOUT", value_parser = humantime::parse_duration, default_value = "10s")]
    pub tls_handshake_timeout: Duration,
    /// Time for a client to take more of a response
    #[arg(long, value_name = "TIME", env = "LOCKGATE_CLIENT_WRITE_TIMEOUT", value_parser = humantime::parse_duration, default_value = "60s")]
    pub client_write_timeout: Duration,
    /// Bytes per second that a client has to send or to take while nobody but it is waited for; 0 is any rate
    #[arg(long, value_name = "BYTES", env = "LOCKGATE_MIN_CLIENT_RATE", default_value_t = ClientLimits::default().rate)]
    pub min_client_rate: u32,
    /// Fields in the header section of a request
    #[arg(long, value_name = "N", env = "LOCKGATE_MAX_HEADER_FIELDS", value_parser = count, default_value_t = ClientLimits::default().header_fields)]
    pub max_header_fields: usize,
    /// Streams that a client of HTTP/2 may take back in ten seconds
    #[arg(long, value_name = "N", env = "LOCKGATE_HTTP2_MAX_RESETS", default_value_t = ClientLimits::default().http2_resets)]
    pub http2_max_resets: u32,
    /// Frames that carry nothing which a client of HTTP/2 may send in ten seconds, beyond eight for each piece of a response
    #[arg(long, value_name = "N", env = "LOCKGATE_HTTP2_MAX_CONTROL_FRAMES", default_value_t = ClientLimits::default().http2_control_frames)]
    pub http2_max_control_frames: u32,
}

impl LimitArgs {
    /// The same for the process.
    pub fn limits(self) -> ClientLimits {
        let Self {
            max_connections_per_client,
            max_tls_handshakes,
            proxy_header_timeout,
            client_hello_timeout,
            tls_handshake_timeout,
            client_write_timeout,
            min_client_rate,
            max_header_fields,
            http2_max_resets,
            http2_max_control_frames,
        } = self;
        ClientLimits {
            connections_per_client: max_connections_per_client,
            handshakes: max_tls_handshakes,
            proxy_header: proxy_header_timeout,
            client_hello: client_hello_timeout,
            handshake: tls_handshake_timeout,
            write: client_write_timeout,
            rate: min_client_rate,
            header_fields: max_header_fields,
            http2_resets: http2_max_resets,
            http2_control_frames: http2_max_control_frames,
        }
    }
}

/// A size in the spelling of Kubernetes, or a word.
pub(super) fn memory(text: &str) -> Result<MemoryMark, String> {
    if text == "cgroup" {
        return Ok(MemoryMark::Group);
    }
    if text == "off" {
        return Ok(MemoryMark::Off);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" => Some(1),
        "k" => Some(1000),
        "M" => Some(1_000_000),
        "G" => Some(1_000_000_000),
        "Ki" => Some(1 << 10),
        "Mi" => Some(1 << 20),
        "Gi" => Some(1 << 30),
        _ => None,
    };
    number
        .parse::<u64>()
        .ok()
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor))
        .filter(|bytes| *bytes > 0)
        .map(MemoryMark::Bytes)
        .ok_or_else(|| "a size such as 512Mi is needed, `cgroup` or `off`".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    #[test]
    fn memory_is_said_as_in_kubernetes() {
        for (text, want) in [
            ("cgroup", Some(MemoryMark::Group)),
            ("off", Some(MemoryMark::Off)),
            ("1048576", Some(MemoryMark::Bytes(1 << 20))),
            ("512Mi", Some(MemoryMark::Bytes(512 << 20))),
            ("2G", Some(MemoryMark::Bytes(2_000_000_000))),
            ("0", None),
            ("-1Mi", None),
            ("1.5Gi", None),
            ("12 Mi", None),
            ("99999999999Gi", None),
            ("much", None),
        ] {
            assert_eq!(memory(text).ok(), want, "{text}");
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_gateway() {
        let cli = Cli::try_parse_from(["lockgate", "run"]).unwrap();
        let Command::Run(run) = cli.command else {
            panic!("another command");
        };
        assert_eq!(run.settings().serve.limits, ClientLimits::default());
    }
}
