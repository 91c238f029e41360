//! The yardstick: no routes, one backend, one certificate.

use std::ffi::OsString;

use anyhow::Result;

use super::{Setting, To, arguments};

/// Writes the certificate; gives the arguments.
pub(in crate::peers) fn floor(setting: &Setting<'_>) -> Result<Vec<OsString>> {
    let [ecdsa, _] = setting.key_files()?;
    Ok(arguments([
        "--http".as_ref(),
        setting.http.to_string().as_ref(),
        "--https".as_ref(),
        setting.https.to_string().as_ref(),
        "--backend".as_ref(),
        setting.address(To::Small).to_string().as_ref(),
        "--certificate".as_ref(),
        ecdsa.certificate.as_ref(),
        "--key".as_ref(),
        ecdsa.key.as_ref(),
    ]))
}
