//! What is needed to put load on Lockgate and to say how it held up: an origin server, a load generator, certificates
//! made on the spot, the soak, the control plane at size, the proxies that others would use, and hostile clients. The binaries in `src/bin` are thin shells around these modules.

pub mod attacks;
pub mod certs;
pub mod instructions;
pub mod load;
pub mod origin;
pub mod peers;
pub mod process;
pub mod scale;
pub mod soak;

use std::io::{self, Write};

/// Prints one line on standard output. Here, output is the purpose.
pub fn say(line: impl std::fmt::Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}
