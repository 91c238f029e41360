//! Answers that Lockgate makes itself.

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use http::{HeaderName, HeaderValue, StatusCode};
use smallvec::SmallVec;

use super::original::Headers;
use crate::error::Reason;

/// An answer without a backend.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Why.
    pub(crate) reason: Reason,
    /// Where to go instead.
    pub(crate) location: Option<HeaderValue>,
    /// Another field.
    pub(crate) field: Option<(HeaderName, HeaderValue)>,
}

impl Answer {
    /// The page for this reason.
    pub(crate) fn page(reason: Reason) -> Self {
        Self::with_status(reason.status(), reason)
    }

    /// A page with another status than the reason has.
    pub(crate) fn with_status(status: StatusCode, reason: Reason) -> Self {
        Self {
            status,
            reason,
            location: None,
            field: None,
        }
    }

    /// A redirect.
    pub(crate) fn redirect(status: StatusCode, reason: Reason, location: HeaderValue) -> Self {
        Self {
            status,
            reason,
            location: Some(location),
            field: None,
        }
    }

    /// The same with another field.
    pub(crate) fn with_field(mut self, field: (HeaderName, HeaderValue)) -> Self {
        self.field = Some(field);
        self
    }

    /// Does its client have to come again on another connection? There it can be asked for what is missing. What follows
    /// `CONNECT` may be meant for somebody else.
    pub(crate) fn ends_connection(&self) -> bool {
        matches!(
            self.reason,
            Reason::Misdirected
                | Reason::CertificateMissing
                | Reason::CertificateInvalid
                | Reason::BadMethod
        )
    }

    /// Header fields but the length, and the body. The page says nothing about backends: neither address nor cause.
    pub(crate) fn render(
        &self,
        request: Headers<'_>,
    ) -> (SmallVec<[(HeaderName, HeaderValue); 4]>, Bytes) {
        let mut fields = SmallVec::new();
        if self.status == StatusCode::NO_CONTENT {
            return (fields, Bytes::new());
        }
        let title = title(self.status);
        let html = wants_html(request);
        let (kind, body) = if html {
            (
                "text/html; charset=utf-8",
                format!(
                    "<!doctype html>\n<html lang=\"en\">\n<head><title>{title}</title></head>\n\
                     <body><h1>{title}</h1></body>\n</html>\n"
                ),
            )
        } else {
            ("text/plain; charset=utf-8", format!("{title}\n"))
        };
        fields.push((CONTENT_TYPE, HeaderValue::from_static(kind)));
        if let Some(location) = &self.location {
            fields.push((LOCATION, location.clone()));
        } else {
            // Some failures are cacheable by default (RFC 9110, 15.1) and would outlive their cause.
            fields.push((CACHE_CONTROL, HeaderValue::from_static("no-store")));
        }
        fields.extend(self.field.clone());
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            fields.push((
                ALLOW,
                HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            ));
        }
        (fields, Bytes::from(body))
    }
}

fn title(status: StatusCode) -> String {
    format!(
        "{} {}",
        status.as_u16(),
        status.canonical_reason().unwrap_or("Response")
    )
}

/// Does the client name HTML among what it accepts? Clients that take anything (`*/*`) get text: they are programs.
fn wants_html(headers: Headers<'_>) -> bool {
    headers.all(&ACCEPT).iter().any(|value| {
        value.split(|byte| *byte == b',').any(|range| {
            let media = range.split(|byte| *byte == b';').next().unwrap_or(range);
            media.trim_ascii().eq_ignore_ascii_case(b"text/html")
        })
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[test]
    fn browsers_get_html_and_programs_text() {
        for (accept, want) in [
            (Some("text/html,application/xhtml+xml;q=0.9"), true),
            (Some("application/json, TEXT/HTML;q=0.8"), true),
            (Some("*/*"), false),
            (Some("application/text/html"), false),
            (None, false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(ACCEPT, HeaderValue::from_static(accept));
            }
            let (fields, body) = Answer::page(Reason::NoRoute).render(Headers::Map(&headers));
            let kind = &fields
                .iter()
                .find(|(name, _)| name == CONTENT_TYPE)
                .unwrap()
                .1;
            assert_eq!(
                kind.to_str().unwrap().starts_with("text/html"),
                want,
                "{accept:?}"
            );
            let body = std::str::from_utf8(&body).unwrap();
            assert!(body.contains("404 Not Found"), "{body}");
        }
    }
}
