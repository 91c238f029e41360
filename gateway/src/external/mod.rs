//! Asking another server whether a request may pass: connections to such servers, and what they said.
//!
//! [`filters::external`](crate::filters::external) makes the question and draws the conclusion.

mod client;
mod replies;

use http::header::CONNECTION;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

pub(crate) use self::client::{Anybody, Client, Question};
pub(crate) use self::replies::{Key, Replies};

/// What another server said about a request, as far as it matters.
#[derive(Debug)]
pub(crate) struct Reply {
    /// The status.
    pub(crate) status: StatusCode,
    /// Headers for the backend, by the names that the route asks for.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// How to say who one is.
    pub(crate) challenge: Option<HeaderValue>,
    /// Cookies for the client.
    pub(crate) cookies: Vec<HeaderValue>,
    /// The server does not want it to be kept.
    pub(crate) transient: bool,
}

impl Reply {
    /// How much room it takes, roughly.
    fn size(&self) -> usize {
        let headers = self.headers.iter().map(|(_, value)| value.len() + 64);
        let challenge = self.challenge.as_ref().map_or(0, HeaderValue::len);
        headers.sum::<usize>() + challenge + 128
    }
}

/// The header fields that belong to the client's connection by its own word.
pub(crate) fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        .collect()
}
