//! `origin`: backends on loopback that say who they are.

use std::net::SocketAddr;
use std::str::FromStr;

use anyhow::{Context, Result};
use bench::origin::{self, Site};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Serves HTTP/1.1 and HTTP/2 with prior knowledge; every answer names the backend and repeats the request.
///
/// The query of a request orders the answer: `size=N` bytes of body, `status=N`, `delay=MS` before it, `parts=N`
/// pieces with `every=MS` between them, `headers` to see the request's header fields.
#[derive(Parser)]
struct Arguments {
    /// A server as NAME=ADDRESS:PORT; port 0 lets the system choose. May be repeated.
    #[arg(long = "listen", value_name = "NAME=ADDR", required = true)]
    listen: Vec<Listen>,
    /// Answer requests without a query with a body of this many bytes.
    #[arg(long, value_name = "N")]
    body_size: Option<usize>,
    /// Worker threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

#[derive(Clone)]
struct Listen {
    name: String,
    address: SocketAddr,
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, address) = text
            .split_once('=')
            .ok_or("it has to be NAME=ADDRESS:PORT")?;
        http::HeaderValue::from_str(name).map_err(|_| "the name has to fit into a header")?;
        Ok(Self {
            name: name.to_owned(),
            address: address
                .parse()
                .map_err(|_| format!("`{address}` is not an address with a port"))?,
        })
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(arguments.threads.max(1))
        .enable_all()
        .build()?
        .block_on(run(arguments))
}

async fn run(arguments: Arguments) -> Result<()> {
    let mut servers = tokio::task::JoinSet::new();
    for Listen { name, address } in arguments.listen {
        let listener = origin::bind(address).await?;
        // A script reads these lines to learn the ports.
        bench::say(format_args!("{name} {}", listener.local_addr()?))?;
        servers.spawn(origin::serve(
            listener,
            Site::new(&name, arguments.body_size),
        ));
    }
    let ended = servers.join_next().await.context("at least one server")?;
    Ok(ended??)
}
