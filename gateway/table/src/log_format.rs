//! A format of the access log, compiled: a line is written without looking at the text again.

use std::sync::Arc;

use http::HeaderName;
use model::{LogEscape, LogFormat, LogPart, LogVariable};

/// A line with its variables.
#[derive(Debug)]
pub struct CompiledLogFormat {
    pub(crate) source: Arc<LogFormat>,
    parts: Vec<CompiledLogPart>,
    sent: Vec<HeaderName>,
    upstream: Vec<HeaderName>,
    names_requests: bool,
    measures_responses: bool,
}

/// A part of a line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CompiledLogPart {
    /// The same in every line.
    Text(Box<[u8]>),
    /// What is known at the end of a request.
    Variable(LogVariable),
    /// A field of the request.
    Header(HeaderName),
    /// A field of the response to the client, by its place in [`CompiledLogFormat::sent`].
    Sent(usize),
    /// A field of the backend's response, by its place in [`CompiledLogFormat::upstream`].
    Upstream(usize),
    /// Something that does not exist.
    Unknown,
}

impl CompiledLogFormat {
    /// Compiles a format.
    pub fn new(source: Arc<LogFormat>) -> Self {
        let parts = source.parts();
        let mut format = Self {
            source,
            parts: Vec::with_capacity(parts.len()),
            sent: Vec::new(),
            upstream: Vec::new(),
            names_requests: false,
            measures_responses: false,
        };
        for part in parts {
            let part = format.part(part);
            format.parts.push(part);
        }
        format
    }

    fn part(&mut self, part: LogPart) -> CompiledLogPart {
        let field = |name: &str| HeaderName::try_from(name).ok();
        let variable = match part {
            LogPart::Text(text) => return CompiledLogPart::Text(text.into_bytes().into()),
            LogPart::Unknown(_) => return CompiledLogPart::Unknown,
            LogPart::Variable(variable) => variable,
        };
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the others are all alike: nothing has to be prepared for them"
        )]
        match &variable {
            LogVariable::RequestId => self.names_requests = true,
            LogVariable::BytesSent => self.measures_responses = true,
            LogVariable::Header(name) => {
                return field(name).map_or(CompiledLogPart::Unknown, CompiledLogPart::Header);
            }
            LogVariable::SentHeader(name) => {
                let place = field(name).map(|name| place(&mut self.sent, name));
                return place.map_or(CompiledLogPart::Unknown, CompiledLogPart::Sent);
            }
            LogVariable::UpstreamHeader(name) => {
                let place = field(name).map(|name| place(&mut self.upstream, name));
                return place.map_or(CompiledLogPart::Unknown, CompiledLogPart::Upstream);
            }
            _ => {}
        }
        CompiledLogPart::Variable(variable)
    }

    /// How values are escaped.
    pub fn escape(&self) -> LogEscape {
        self.source.escape
    }

    /// Its parts, in their order.
    pub fn parts(&self) -> &[CompiledLogPart] {
        &self.parts
    }

    /// Fields of the response to the client that are in the line.
    pub fn sent(&self) -> &[HeaderName] {
        &self.sent
    }

    /// Fields of the backend's response that are in the line.
    pub fn upstream(&self) -> &[HeaderName] {
        &self.upstream
    }

    /// Is the identity of the request in the line?
    pub fn names_requests(&self) -> bool {
        self.names_requests
    }

    /// Does the line say anything that has to be kept when a response goes out?
    pub fn reads_responses(&self) -> bool {
        self.measures_responses || !self.sent.is_empty() || !self.upstream.is_empty()
    }
}

/// The place of a name in a list, which has it from now on.
fn place(list: &mut Vec<HeaderName>, name: HeaderName) -> usize {
    let known = list.iter().position(|known| *known == name);
    known.unwrap_or_else(|| {
        list.push(name);
        list.len() - 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(text: &str) -> CompiledLogFormat {
        CompiledLogFormat::new(Arc::new(LogFormat {
            text: text.to_owned(),
            escape: LogEscape::Json,
        }))
    }

    #[test]
    fn what_has_to_be_kept_is_known_beforehand() {
        let format = compiled("$sent_http_x_a $sent_http_x_b $sent_http_x_a $upstream_http_x_a");
        assert_eq!(format.sent(), ["x-a", "x-b"]);
        assert_eq!(format.upstream(), ["x-a"]);
        assert!(format.reads_responses());
        assert!(compiled("$bytes_sent").reads_responses());
        assert!(compiled("$req_id").names_requests());
        let plain = compiled("$status $http_x_a $nothing");
        assert!(!plain.reads_responses() && !plain.names_requests());
        assert_eq!(plain.parts().last(), Some(&CompiledLogPart::Unknown));
    }
}
