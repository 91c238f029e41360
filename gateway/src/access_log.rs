//! The access log.

use crate::settings::LogFormat;

/// Where requests are logged.
#[derive(Debug)]
pub(crate) struct AccessLog {
    #[expect(dead_code, reason = "read by the phase that logs a request")]
    format: Option<LogFormat>,
}

impl AccessLog {
    /// Writes lines in this format; `None` writes none.
    pub(crate) fn new(format: Option<LogFormat>) -> Self {
        Self { format }
    }
}
