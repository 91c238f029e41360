//! `certs`: certificates for demonstrations and tests, as manifests of Secrets.

use std::path::PathBuf;

use anyhow::Result;
use bench::certs::{self, Authority};
use clap::Parser;

/// Issues a certificate from an authority of its own and writes it as a Secret of type kubernetes.io/tls.
#[derive(Parser)]
struct Arguments {
    /// Directory of the authority: `ca.pem` and `ca-key.pem` are made there when they are missing.
    #[arg(long, value_name = "DIR")]
    authority: PathBuf,
    /// Common name of an authority that is made.
    #[arg(long, default_value = "Lockgate test authority")]
    authority_name: String,
    /// The Secret as NAMESPACE/NAME.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = secret)]
    secret: (String, String),
    /// A DNS name that the certificate is for; the first one is its common name. May be repeated.
    #[arg(long = "name", required = true)]
    names: Vec<String>,
    /// Organization in the certificate's subject.
    #[arg(long)]
    organization: Option<String>,
    /// The file to write; replaced in one step if it is there.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

fn secret(text: &str) -> Result<(String, String), String> {
    let (namespace, name) = text.split_once('/').ok_or("it has to be NAMESPACE/NAME")?;
    Ok((namespace.to_owned(), name.to_owned()))
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let authority = Authority::load_or_create(&arguments.authority, &arguments.authority_name)?;
    let leaf = authority.issue(&arguments.names, arguments.organization.as_deref())?;
    let (namespace, name) = &arguments.secret;
    certs::write(&arguments.out, &leaf.secret(namespace, name))
}
