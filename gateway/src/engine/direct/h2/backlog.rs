//! How much of its responses a client leaves lying in memory.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::connection::give;

/// How much content the streams of a connection hand over before all of it has left.
const MOST: usize = 1024 * 1024;

/// The content that the streams of one connection have handed to `h2` since everything had left.
///
/// `h2` bounds what it holds of each stream. A client with many streams, large windows and no wish to read would fill
/// that bound once for each of them, on as many connections as it likes.
///
/// The lock is never waited for: all of it happens in one task.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    bytes: AtomicUsize,
    waiting: Mutex<Vec<Waker>>,
    /// Pieces of content so far.
    given: Arc<AtomicU32>,
}

impl Backlog {
    /// Counts pieces of content in `given`.
    pub(super) fn new(given: Arc<AtomicU32>) -> Self {
        Self {
            given,
            ..Self::default()
        }
    }

    /// Ready when more may be handed over.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.bytes.load(Ordering::Relaxed) < MOST {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting();
        // Streams are looked at for other reasons as well.
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// So much has been handed over.
    pub(super) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if bytes > 0 {
            give(&self.given, bytes);
        }
    }

    /// Everything has left.
    pub(super) fn clear(&self) {
        if self.bytes.swap(0, Ordering::Relaxed) < MOST {
            return;
        }
        let waiting = std::mem::take(&mut *self.waiting());
        for waker in waiting {
            waker.wake();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Flag(AtomicBool);

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_finds_no_room_is_woken_when_everything_has_left() {
        let backlog = Backlog::default();
        let flag = Arc::new(Flag::default());
        let waker = Waker::from(Arc::clone(&flag));
        let mut cx = Context::from_waker(&waker);
        backlog.add(MOST - 1);
        assert!(backlog.poll_room(&mut cx).is_ready());
        backlog.add(1);
        assert!(backlog.poll_room(&mut cx).is_pending());
        assert!(!flag.0.load(Ordering::Relaxed));
        backlog.clear();
        assert!(flag.0.load(Ordering::Relaxed));
        assert!(backlog.poll_room(&mut cx).is_ready());
    }
}
