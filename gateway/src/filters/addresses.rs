//! Lists of client addresses.

use std::net::IpAddr;

use table::CompiledAccess;

/// What the address of a client says about its request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Standing {
    /// It never passes.
    Denied,
    /// It is on the list of those that pass.
    Listed,
    /// There is a list, and it is not on it.
    Unlisted,
    /// Nothing is known of it, and nothing has to be.
    Unknown,
}

/// Looks a client up. The list of those that never pass comes first.
pub(crate) fn standing(access: &CompiledAccess, client: IpAddr) -> Standing {
    if access.deny.contains(client) {
        return Standing::Denied;
    }
    match &access.allow {
        None => Standing::Unknown,
        Some(allow) if allow.contains(client) => Standing::Listed,
        Some(_) => Standing::Unlisted,
    }
}
