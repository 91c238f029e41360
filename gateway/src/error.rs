//! Where a failure came from, and what that means for the client, the log and the metrics.

use std::fmt;
use std::sync::Arc;

use http::StatusCode;

use crate::upstream::Limit;

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Source {
    /// The client, or the connection to it.
    Client,
    /// The backend, or the connection to it.
    Upstream,
    /// Lockgate itself, or what it was told to do.
    Gateway,
}

impl Source {
    /// The label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Gateway => "gateway",
        }
    }
}

/// Why Lockgate answered by itself, or why an answer was cut short. The texts are labels of log and metrics.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Reason {
    /// The request target is not a path, or one that is refused.
    BadPath,
    /// No host, an invalid one, or two that differ.
    BadHost,
    /// Anything else that makes the request invalid.
    BadRequest,
    /// The method cannot be proxied (`CONNECT`).
    BadMethod,
    /// Too many header fields, or too long ones.
    HeaderTooLarge,
    /// The body is larger than the route allows.
    BodyTooLarge,
    /// The connection was made under another TLS policy than the host of the request has.
    Misdirected,
    /// Nothing matches, and there is no fallback.
    NoRoute,
    /// The backend has no endpoint that could be tried.
    NoEndpoints,
    /// The backend cannot be used; its owner has been told why.
    InvalidBackend,
    /// The name of the backend could not be resolved.
    DnsFailed,
    /// The name of the backend resolved to addresses that are refused.
    DnsRefused,
    /// No connection to any endpoint.
    ConnectFailed,
    /// No connection to any endpoint in time.
    ConnectTimeout,
    /// The TLS handshake with the endpoint failed.
    UpstreamTls,
    /// The endpoint was silent for too long.
    ReadTimeout,
    /// The endpoint did not take the request in time.
    WriteTimeout,
    /// The endpoint had the whole request and did not begin to answer in the time that the route gives it.
    TryTimeout,
    /// The request took longer than the route gives it.
    RequestTimeout {
        /// All that was waited for was the endpoint, for the better part of that time.
        silent: bool,
    },
    /// The endpoint closed or reset the connection.
    UpstreamReset,
    /// What the endpoint sent is not HTTP.
    UpstreamInvalid,
    /// The client went away.
    ClientClosed,
    /// The client was silent for too long.
    ClientTimeout,
    /// Sent to https.
    HttpsRedirect,
    /// Sent elsewhere by the route.
    Redirect,
    /// The client has no certificate.
    CertificateMissing,
    /// The client has a certificate that is not good.
    CertificateInvalid,
    /// The certificate of the client is somebody else's than wanted.
    CertificateDenied,
    /// A rule of the route refuses it.
    RequestDenied,
    /// The address of the client is not one of those that pass.
    AddressDenied,
    /// No name and password, or wrong ones.
    Unauthorized,
    /// Another server does not let the request pass.
    AuthenticationDenied,
    /// Sent to where a user says who it is.
    Signin,
    /// The server that says whether the request may pass does not say it.
    AuthenticationFailed,
    /// Too many passwords are being checked.
    AuthenticationBusy,
    /// The client comes too often.
    RateLimited,
    /// The client has too many requests at the same time.
    ConnectionsLimited,
    /// The backend has enough to do.
    Limited(Limit),
    /// A preflight request of a script.
    Preflight,
    /// The route says so.
    Route(Arc<str>),
    /// Not foreseen.
    Internal,
}

impl Reason {
    /// The label.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::BadPath => "bad-path",
            Self::BadHost => "bad-host",
            Self::BadRequest => "bad-request",
            Self::BadMethod => "bad-method",
            Self::HeaderTooLarge => "header-too-large",
            Self::BodyTooLarge => "body-too-large",
            Self::Misdirected => "misdirected",
            Self::NoRoute => "no-route",
            Self::NoEndpoints => "no-endpoints",
            Self::InvalidBackend => "invalid-backend",
            Self::DnsFailed => "dns-failed",
            Self::DnsRefused => "dns-refused",
            Self::ConnectFailed => "connect-failed",
            Self::ConnectTimeout => "connect-timeout",
            Self::UpstreamTls => "upstream-tls",
            Self::ReadTimeout => "read-timeout",
            Self::WriteTimeout => "write-timeout",
            Self::TryTimeout => "try-timeout",
            Self::RequestTimeout { .. } => "request-timeout",
            Self::UpstreamReset => "upstream-reset",
            Self::UpstreamInvalid => "upstream-invalid",
            Self::ClientClosed => "client-closed",
            Self::ClientTimeout => "client-timeout",
            Self::HttpsRedirect => "https-redirect",
            Self::Redirect => "redirect",
            Self::CertificateMissing => "client-certificate-missing",
            Self::CertificateInvalid => "client-certificate-invalid",
            Self::CertificateDenied => "client-certificate-denied",
            Self::RequestDenied => "request-denied",
            Self::AddressDenied => "address-denied",
            Self::Unauthorized => "unauthorized",
            Self::AuthenticationDenied => "authentication-denied",
            Self::Signin => "signin",
            Self::AuthenticationFailed => "authentication-failed",
            Self::AuthenticationBusy => "authentication-busy",
            Self::RateLimited => "rate-limited",
            Self::ConnectionsLimited => "connections-limited",
            Self::Limited(limit) => limit.as_str(),
            Self::Preflight => "preflight",
            Self::Route(text) => text,
            Self::Internal => "internal",
        }
    }

    /// Whose fault it is.
    pub(crate) fn source(&self) -> Source {
        match self {
            Self::BadPath
            | Self::BadHost
            | Self::BadRequest
            | Self::BadMethod
            | Self::HeaderTooLarge
            | Self::BodyTooLarge
            | Self::Misdirected
            | Self::CertificateMissing
            | Self::CertificateInvalid
            | Self::CertificateDenied
            | Self::RequestDenied
            | Self::AddressDenied
            | Self::Unauthorized
            | Self::AuthenticationDenied
            | Self::RateLimited
            | Self::ConnectionsLimited
            | Self::ClientClosed
            | Self::ClientTimeout => Source::Client,
            Self::ConnectFailed
            | Self::ConnectTimeout
            | Self::UpstreamTls
            | Self::ReadTimeout
            | Self::WriteTimeout
            | Self::TryTimeout
            | Self::UpstreamReset
            | Self::UpstreamInvalid => Source::Upstream,
            Self::NoRoute
            | Self::Signin
            | Self::AuthenticationFailed
            | Self::AuthenticationBusy
            | Self::NoEndpoints
            | Self::Limited(_)
            | Self::InvalidBackend
            | Self::DnsFailed
            | Self::DnsRefused
            | Self::RequestTimeout { .. }
            | Self::HttpsRedirect
            | Self::Redirect
            | Self::Preflight
            | Self::Route(_)
            | Self::Internal => Source::Gateway,
        }
    }

    /// The status that goes with it where nothing else decides.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::BadPath
            | Self::BadHost
            | Self::BadRequest
            | Self::CertificateMissing
            | Self::CertificateInvalid => StatusCode::BAD_REQUEST,
            Self::BadMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::RequestDenied
            | Self::AddressDenied
            | Self::AuthenticationDenied
            | Self::CertificateDenied => StatusCode::FORBIDDEN,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::NoEndpoints
            | Self::InvalidBackend
            | Self::Route(_)
            | Self::RateLimited
            | Self::AuthenticationBusy
            | Self::Limited(_)
            | Self::ConnectionsLimited => StatusCode::SERVICE_UNAVAILABLE,
            Self::DnsFailed
            | Self::DnsRefused
            | Self::ConnectFailed
            | Self::UpstreamTls
            | Self::UpstreamReset
            | Self::UpstreamInvalid => StatusCode::BAD_GATEWAY,
            Self::ConnectTimeout
            | Self::ReadTimeout
            | Self::WriteTimeout
            | Self::TryTimeout
            | Self::RequestTimeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::ClientClosed => client_closed(),
            Self::ClientTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::HttpsRedirect | Self::Redirect => StatusCode::PERMANENT_REDIRECT,
            Self::Preflight => StatusCode::NO_CONTENT,
            Self::Signin => StatusCode::FOUND,
            Self::Internal | Self::AuthenticationFailed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The status that logs show for a client that went away before it was answered; it is never sent.
pub(crate) fn client_closed() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}

/// What went wrong on a connection, in words that name no engine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// A connection was refused or could not be made.
    Connect,
    /// A connection was not made in time.
    ConnectTimeout,
    /// A TLS handshake failed.
    Tls,
    /// Nothing came in time.
    ReadTimeout,
    /// Nothing was taken in time.
    WriteTimeout,
    /// There was no response in the time that the route gives an endpoint.
    AnswerTimeout,
    /// The request took longer than the route gives it.
    RequestTimeout {
        /// All that was waited for was the endpoint.
        silent: bool,
    },
    /// The connection was closed or reset.
    Closed,
    /// What came is not valid HTTP.
    Invalid,
    /// Anything else.
    Other,
}

/// What a fault on this side means for a request.
pub(crate) fn reason(side: Source, fault: Fault) -> Reason {
    match (side, fault) {
        (_, Fault::RequestTimeout { silent }) => Reason::RequestTimeout { silent },
        (Source::Upstream, Fault::AnswerTimeout) => Reason::TryTimeout,
        (Source::Upstream, Fault::Connect) => Reason::ConnectFailed,
        (Source::Upstream, Fault::ConnectTimeout) => Reason::ConnectTimeout,
        (Source::Upstream, Fault::Tls) => Reason::UpstreamTls,
        (Source::Upstream, Fault::ReadTimeout) => Reason::ReadTimeout,
        (Source::Upstream, Fault::WriteTimeout) => Reason::WriteTimeout,
        (Source::Upstream, Fault::Closed | Fault::Other) => Reason::UpstreamReset,
        (Source::Upstream, Fault::Invalid) => Reason::UpstreamInvalid,
        (Source::Client, Fault::ReadTimeout) => Reason::ClientTimeout,
        (Source::Client, Fault::Invalid) => Reason::BadRequest,
        (Source::Client, _) => Reason::ClientClosed,
        (Source::Gateway, _) => Reason::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_of_a_backend_are_504_and_its_other_failures_502() {
        for (fault, status, label) in [
            (Fault::Connect, 502, "connect-failed"),
            (Fault::ConnectTimeout, 504, "connect-timeout"),
            (Fault::Tls, 502, "upstream-tls"),
            (Fault::ReadTimeout, 504, "read-timeout"),
            (Fault::WriteTimeout, 504, "write-timeout"),
            (Fault::AnswerTimeout, 504, "try-timeout"),
            (Fault::Closed, 502, "upstream-reset"),
            (Fault::Invalid, 502, "upstream-invalid"),
        ] {
            let reason = reason(Source::Upstream, fault);
            assert_eq!((reason.status().as_u16(), reason.as_str()), (status, label));
            assert_eq!(reason.source(), Source::Upstream, "{label}");
        }
    }

    #[test]
    fn a_client_that_goes_away_is_499() {
        for fault in [Fault::Closed, Fault::WriteTimeout, Fault::Other] {
            let reason = reason(Source::Client, fault);
            assert_eq!(
                (reason.status().as_u16(), reason.as_str()),
                (499, "client-closed")
            );
        }
    }
}
