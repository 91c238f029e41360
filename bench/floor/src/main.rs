//! `floor`: a yardstick for `peers`, not a proxy to use.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;
use floor::Server;
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A yardstick for measurements, NOT A PROXY TO USE: it passes requests on to one backend and does nothing that could be
/// left out for that. It has no routes, no limits, no timeouts, no metrics, it believes its clients, and whatever it does
/// not expect ends the connection. What it takes of a processor is what any proxy takes that is built on the same
/// libraries.
///
/// It has one thread, and ends when it is told to by a signal.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Where it takes HTTP/1.1.
    #[arg(long, value_name = "ADDR")]
    http: SocketAddr,
    /// Where it takes HTTP/1.1 and HTTP/2 over TLS.
    #[arg(long, value_name = "ADDR")]
    https: SocketAddr,
    /// The backend: HTTP/1.1, for calls of gRPC HTTP/2 with prior knowledge.
    #[arg(long, value_name = "ADDR")]
    backend: SocketAddr,
    /// The certificate chain, in PEM.
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// Its key, in PEM.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let tls = floor::tls(&arguments.certificate, &arguments.key)?;
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?
        .block_on(async {
            let listen = async |address| {
                let listener = TcpListener::bind(address).await;
                listener.with_context(|| format!("cannot listen on {address}"))
            };
            let server = Server {
                http: listen(arguments.http).await?,
                https: listen(arguments.https).await?,
                tls,
                backend: arguments.backend,
            };
            Ok(server.run().await?)
        })
}
