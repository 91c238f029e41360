//! Ports for listeners that are opened later.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Where to look for the next one. The kernel gives out ports from 32768 on, to whoever asks for any: one of those could
/// be somebody else's before it is listened on.
static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
    // Tests that run at the same time in another process begin elsewhere.
    let share = u16::try_from(std::process::id() % 200).unwrap_or_default();
    AtomicU16::new(12_000 + 100 * share)
});

/// A port of TCP and of UDP that nobody uses, another one each time.
pub(crate) fn free_port() -> u16 {
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(port < 32_768, "no port is free");
        let address = (Ipv4Addr::LOCALHOST, port);
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return port;
        }
    }
}
