//! What other servers said, for as long as it holds.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use sha2::{Digest as _, Sha256};

use super::Reply;

/// How many are remembered, and how large one may be: 16 MiB at most.
const MOST: usize = 4096;
const LARGEST: usize = 4096;

/// Which question. Hashed with a key of the process, so that nobody can aim at an entry, and so that what stands in a
/// question (a cookie, a password) is not kept.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Key([u8; 32]);

/// One for all workers; locked for no longer than a look.
#[derive(Debug)]
pub(crate) struct Replies {
    key: [u8; 32],
    known: Mutex<AHashMap<Key, (Instant, Arc<Reply>)>>,
}

impl Replies {
    /// Nothing is known yet.
    pub(crate) fn new() -> Self {
        let random = || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u8);
        let mut key = [0; 32];
        for (part, number) in key.chunks_mut(8).zip(std::iter::repeat_with(random)) {
            part.copy_from_slice(&number.to_be_bytes());
        }
        Self {
            key,
            known: Mutex::default(),
        }
    }

    /// The key of a question that these texts tell from others.
    pub(crate) fn key(&self, texts: &[&str]) -> Key {
        let mut hash = Sha256::new();
        hash.update(self.key);
        for text in texts {
            hash.update(text.len().to_be_bytes());
            hash.update(text);
        }
        Key(hash.finalize().into())
    }

    /// What was said, if it still holds.
    pub(crate) fn find(&self, key: &Key, now: Instant) -> Option<Arc<Reply>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, reply) = known.get(key)?;
        (now < *until).then(|| Arc::clone(reply))
    }

    /// Remembers what was said.
    pub(crate) fn put(&self, key: Key, reply: &Arc<Reply>, holds: Duration, now: Instant) {
        let Some(until) = now.checked_add(holds) else {
            return;
        };
        if reply.size() > LARGEST {
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST && !known.contains_key(&key) {
            // Not for each one that comes too many: the room that is made has to last.
            known.retain(|_, (until, _)| now < *until);
            if known.len() > MOST - MOST / 8 {
                let doomed: Vec<Key> = known.keys().take(MOST / 8).copied().collect();
                for key in &doomed {
                    known.remove(key);
                }
            }
        }
        known.insert(key, (until, Arc::clone(reply)));
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, StatusCode};

    use super::*;

    fn reply(length: usize) -> Arc<Reply> {
        let value = HeaderValue::try_from("x".repeat(length)).unwrap();
        Arc::new(Reply {
            status: StatusCode::OK,
            headers: vec![(HeaderName::from_static("x-user"), value)],
            challenge: None,
            cookies: Vec::new(),
            transient: false,
        })
    }

    #[test]
    fn a_reply_holds_for_its_time_and_no_longer() {
        let (replies, now) = (Replies::new(), Instant::now());
        let key = replies.key(&["a", "b"]);
        assert_ne!(key, replies.key(&["ab", ""]));
        assert_ne!(key, Replies::new().key(&["a", "b"]), "another process");
        replies.put(key, &reply(1), Duration::from_secs(5), now);
        assert!(replies.find(&key, now + Duration::from_secs(4)).is_some());
        assert!(replies.find(&key, now + Duration::from_secs(5)).is_none());
        assert!(replies.find(&replies.key(&["a"]), now).is_none());
    }

    #[test]
    fn memory_is_bounded_by_number_and_size() {
        let (replies, now) = (Replies::new(), Instant::now());
        let large = replies.key(&["large"]);
        replies.put(large, &reply(LARGEST), Duration::from_secs(5), now);
        assert!(replies.find(&large, now).is_none());
        for number in 0..MOST * 2 {
            let key = replies.key(&[&number.to_string()]);
            replies.put(key, &reply(1), Duration::from_secs(5), now);
            assert!(replies.find(&key, now).is_some(), "the newest one is there");
        }
        assert!(replies.known.lock().unwrap().len() <= MOST);
    }
}
