//! What went wrong between this process and the API server, in words that say what to do.

use std::fmt;
use std::time::Duration;

use kube::core::Status;
use kube::runtime::watcher;
use model::ObjectRef;
use tokio::time::Instant;
use tracing::{info, warn};

/// A failure that lasts is repeated in the log this often.
const REMINDER: Duration = Duration::from_mins(1);

/// The family a failure belongs to; decides the metric label and the advice.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Cause {
    /// 401.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 410: the version that the watch was at is no longer kept.
    Gone,
    /// 429.
    Busy,
    /// 5xx.
    ServerError,
    /// Any other refusal.
    Refused,
    /// No answer in time.
    Timeout,
    /// No connection, or one that broke.
    Connection,
    /// The server ended the watch before the agreed time.
    Closed,
    /// An answer that cannot be read.
    Unreadable,
}

impl Cause {
    /// The value of the label `reason`.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Gone => "gone",
            Self::Busy => "busy",
            Self::ServerError => "server-error",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Connection => "connection",
            Self::Closed => "closed",
            Self::Unreadable => "unreadable",
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Unauthorized => {
                "the API server does not accept the token or client certificate: check that the ServiceAccount still exists and that its token or the kubeconfig has not expired"
            }
            Self::Forbidden => {
                "the ServiceAccount lacks a permission: apply the roles of config/rbac, and bind them in every namespace that is watched"
            }
            Self::Gone => "the watch fell too far behind; everything is listed again",
            Self::Busy => "the API server asks for patience; slower attempts follow",
            Self::ServerError => {
                "the API server reports a fault of its own: look at its log and at etcd"
            }
            Self::Refused => {
                "the API server refuses the request: check its version and what stands in front of it"
            }
            Self::Timeout => {
                "the API server took the request and gave no answer: check its load and what stands in front of it"
            }
            Self::Connection => {
                "the API server cannot be reached: check its address, the network policy and the certificate authority"
            }
            Self::Closed => "the API server ended the watch early; it is started again",
            Self::Unreadable => {
                "the answer is not what the Kubernetes API sends: check what stands in front of the API server"
            }
        }
    }
}

/// A failure: its family and what the server or the library said.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    detail: String,
}

impl Failure {
    pub(crate) fn timeout(detail: &str) -> Self {
        Self {
            cause: Cause::Timeout,
            detail: detail.to_owned(),
        }
    }
}

impl Failure {
    /// The same failure, with the object that it concerns.
    pub(crate) fn about(&self, object: &ObjectRef) -> Self {
        Self {
            cause: self.cause,
            detail: format!("{object}: {}", self.detail),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.cause.advice(), self.detail)
    }
}

/// Puts an error of the client into words. Nothing of an answer's body gets in, because it may hold a key, except the
/// message of a refusal.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "whatever else the library meets concerns the way to the server"
)]
pub(crate) fn describe(error: &kube::Error) -> Failure {
    let (cause, detail) = match error {
        kube::Error::Api(status) => return refusal(status),
        kube::Error::SerdeError(error) => (
            Cause::Unreadable,
            format!("JSON, line {} column {}", error.line(), error.column()),
        ),
        kube::Error::FromUtf8(_) | kube::Error::LinesCodecMaxLineLengthExceeded => {
            (Cause::Unreadable, "not text".to_owned())
        }
        kube::Error::Auth(error) => (Cause::Unauthorized, chain(error)),
        kube::Error::Service(error) if error.is::<HeadersTooLate>() => {
            (Cause::Timeout, error.to_string())
        }
        kube::Error::Service(error) => (Cause::Connection, chain(error.as_ref())),
        error => (Cause::Connection, chain(error)),
    };
    Failure { cause, detail }
}

/// Puts an error of a watch into words.
pub(crate) fn describe_watch(error: &watcher::Error) -> Failure {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => describe(error),
        watcher::Error::WatchError(status) => refusal(status),
        watcher::Error::NoResourceVersion => Failure {
            cause: Cause::Unreadable,
            detail: "an object without a resource version".to_owned(),
        },
    }
}

fn refusal(status: &Status) -> Failure {
    let cause = match status.code {
        401 => Cause::Unauthorized,
        403 => Cause::Forbidden,
        410 => Cause::Gone,
        408 => Cause::Timeout,
        429 => Cause::Busy,
        500.. => Cause::ServerError,
        _ => Cause::Refused,
    };
    // A proxy in front of the API server may answer with a whole page.
    let message: String = status
        .message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(200)
        .collect();
    Failure {
        cause,
        detail: format!("{} {message}", status.code),
    }
}

/// The error and what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        // Many errors repeat their source.
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}

/// The API server accepted a connection and sent no answer.
#[derive(Debug, thiserror::Error)]
#[error("no response header within {0:?}")]
pub(crate) struct HeadersTooLate(pub(crate) Duration);

/// Logs the failures of one task: the first, every change of cause, and a reminder while it lasts.
#[derive(Debug)]
pub(crate) struct Journal {
    task: &'static str,
    kind: &'static str,
    namespace: String,
    /// The last failure that was logged.
    logged: Option<(Cause, Instant)>,
    /// Failures since then.
    silent: u64,
}

impl Journal {
    /// A journal for `task` on objects of this kind; `namespace` is empty for all.
    pub(crate) fn new(task: &'static str, kind: &'static str, namespace: &str) -> Self {
        Self {
            task,
            kind,
            namespace: namespace.to_owned(),
            logged: None,
            silent: 0,
        }
    }

    /// Logs a failure unless the same one was logged just now. True if it was logged.
    pub(crate) fn failed(&mut self, failure: &Failure, now: Instant) -> bool {
        if let Some((cause, at)) = self.logged
            && cause == failure.cause
            && now.duration_since(at) < REMINDER
        {
            self.silent += 1;
            return false;
        }
        warn!(
            kind = self.kind,
            namespace = self.namespace,
            reason = failure.cause.label(),
            repeated = self.silent,
            "{} failed, trying again: {failure}",
            self.task
        );
        self.logged = Some((failure.cause, now));
        self.silent = 0;
        true
    }

    /// The kind is forbidden and can be done without. True the first time.
    pub(crate) fn tolerated(&mut self, now: Instant) -> bool {
        !matches!(
            self.logged.replace((Cause::Forbidden, now)),
            Some((Cause::Forbidden, _))
        )
    }

    /// The task works. True if that is news.
    pub(crate) fn recovered(&mut self) -> bool {
        let news = self.logged.take().is_some();
        self.silent = 0;
        if news {
            info!(
                kind = self.kind,
                namespace = self.namespace,
                "{} works again",
                self.task
            );
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Status::failure(message, "Reason").with_code(code).boxed())
    }

    #[test]
    fn a_refusal_says_what_to_do_and_quotes_the_server() {
        for (code, label, advice) in [
            (401, "unauthorized", "token"),
            (403, "forbidden", "config/rbac"),
            (410, "gone", "listed again"),
            (429, "busy", "patience"),
            (500, "server-error", "fault of its own"),
            (503, "server-error", "fault of its own"),
            (404, "refused", "refuses"),
        ] {
            let failure = describe(&api(code, "as\nserver said"));
            assert_eq!(failure.cause.label(), label);
            let text = failure.to_string();
            assert!(text.contains(advice), "{text}");
            assert!(
                text.ends_with(&format!("({code} as server said)")),
                "{text}"
            );
        }
    }

    #[test]
    fn nothing_of_an_unreadable_answer_is_shown() {
        let error = serde_json::from_str::<u8>("\"PRIVATE KEY\"").unwrap_err();
        assert!(
            error.to_string().contains("PRIVATE KEY"),
            "the library would show it"
        );
        let failure = describe(&kube::Error::SerdeError(error));
        assert_eq!(failure.cause, Cause::Unreadable);
        assert!(!format!("{failure} {failure:?}").contains("PRIVATE"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lasting_failure_is_logged_once_a_minute() {
        let mut journal = Journal::new("Watch", "Ingress", "");
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let refused = describe(&api(403, ""));
        assert!(journal.failed(&refused, at(0)));
        assert!(!journal.failed(&refused, at(1)), "the same again");
        assert!(
            journal.failed(&describe(&api(500, "")), at(2)),
            "another cause"
        );
        assert!(!journal.failed(&describe(&api(502, "")), at(61)));
        assert!(
            journal.failed(&describe(&api(502, "")), at(62)),
            "a reminder"
        );
        assert!(journal.recovered());
        assert!(!journal.recovered());
        assert!(journal.failed(&refused, at(63)), "failing anew");
    }
}
