//! The admission webhook: tells those who write objects what would become of them, before they are stored.
//!
//! It is optional, and nothing depends on it: what it would refuse is refused or closed when it is served, too. Whether
//! objects pass while it does not answer is decided by the `failurePolicy` of its configuration, so whatever it cannot judge
//! is answered with an HTTP error.
//!
//! A question goes to the reconcile loop, which takes out of its translator what the object would meet
//! ([`translate::Preview`]); that is translated and compiled elsewhere, so that serving does not wait for it.

mod certificate;
mod judge;
mod review;
mod server;

use table::Reject;
use tokio::sync::{mpsc, oneshot};
use translate::{Object, Preview};

pub(crate) use self::certificate::{Certificates, Follower};
pub(crate) use self::server::{Webhook, serve};

/// How many questions may wait for the reconcile loop.
const QUEUED: usize = 16;

/// What would become of this object?
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) object: Object,
    pub(crate) reply: oneshot::Sender<Known>,
}

/// What the reconcile loop knows about an object that somebody asks for.
#[derive(Debug)]
pub(crate) enum Known {
    /// Nothing: the first full sync is not there yet.
    TooEarly,
    /// It is not ours.
    Foreign,
    /// Enough to say what would become of it.
    Ours {
        preview: Box<Preview>,
        /// What the table cannot take of it at present.
        rejected: Vec<Reject>,
    },
}

/// From the webhook to the reconcile loop.
pub(crate) fn questions() -> (mpsc::Sender<Question>, mpsc::Receiver<Question>) {
    mpsc::channel(QUEUED)
}
