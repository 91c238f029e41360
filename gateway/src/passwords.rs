//! Names and passwords against the hashes of an htpasswd file.
//!
//! Hashes are slow on purpose. They are computed on threads that may block, a few at a time; what was right is
//! remembered for a while under a keyed hash of password and stored hash, so that a change of either is a new question.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::Md5;
use model::Redacted;
use sha_crypt::{PasswordVerifier as _, ShaCrypt};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// How many hashes are computed at the same time, and how many wait for that. More are refused.
const AT_ONCE: usize = 4;
const WAITING: usize = 256;
/// How long a right password is remembered, and how many are.
const REMEMBERED: Duration = Duration::from_mins(5);
const MOST: usize = 4096;
/// A longer password is wrong. bcrypt looks at 72 bytes, SHA-crypt takes time in proportion.
const LONGEST: usize = 1024;

/// Checks passwords. One for all workers; what it remembers is locked for no longer than a look.
#[derive(Debug)]
pub(crate) struct Passwords {
    key: [u8; 32],
    right: Mutex<AHashMap<[u8; 32], Instant>>,
    computing: Arc<Semaphore>,
    waiting: Semaphore,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Checked {
    Right,
    Wrong,
    /// Too many wait already.
    Busy,
}

impl Passwords {
    pub(crate) fn new() -> Self {
        let random = || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u8);
        let mut key = [0; 32];
        for (part, number) in key.chunks_mut(8).zip(std::iter::repeat_with(random)) {
            part.copy_from_slice(&number.to_be_bytes());
        }
        Self {
            key,
            right: Mutex::default(),
            computing: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: Semaphore::new(WAITING),
        }
    }

    /// Is this the password? Without a hash, which is what an unknown name has, the answer is no and takes as long
    /// as with `decoy`.
    pub(crate) async fn check(
        &self,
        hash: Option<&str>,
        decoy: Option<&str>,
        password: Vec<u8>,
    ) -> Checked {
        // Overwritten when it is dropped, wherever that is.
        let password = Redacted::new(Zeroizing::new(password));
        let Some(stored) = hash.or(decoy) else {
            return Checked::Wrong;
        };
        if password.expose().len() > LONGEST {
            return Checked::Wrong;
        }
        let digest = self.digest(stored, password.expose());
        if hash.is_some() && self.remembers(&digest) {
            return Checked::Right;
        }
        let Ok(_place) = self.waiting.try_acquire() else {
            return Checked::Busy;
        };
        let Ok(turn) = Arc::clone(&self.computing).acquire_owned().await else {
            return Checked::Busy;
        };
        let stored = stored.to_owned();
        let verified = tokio::task::spawn_blocking(move || {
            let right = verify(&stored, password.expose());
            // Held here, since the task goes on when nobody waits for it any more.
            drop(turn);
            right
        });
        if !verified.await.unwrap_or(false) || hash.is_none() {
            return Checked::Wrong;
        }
        self.remember(digest);
        Checked::Right
    }

    fn digest(&self, stored: &str, password: &[u8]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.key);
        hash.update(stored.len().to_be_bytes());
        hash.update(stored);
        hash.update(password);
        hash.finalize().into()
    }

    fn remembers(&self, digest: &[u8; 32]) -> bool {
        let right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        right
            .get(digest)
            .is_some_and(|since| since.elapsed() < REMEMBERED)
    }

    fn remember(&self, digest: [u8; 32]) {
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        if right.len() >= MOST {
            right.retain(|_, since| since.elapsed() < REMEMBERED);
        }
        if right.len() >= MOST
            && let Some(any) = right.keys().next().copied()
        {
            right.remove(&any);
        }
        right.insert(digest, Instant::now());
    }
}

/// Compares a password with a stored hash. What is no known hash is never right.
fn verify(stored: &str, password: &[u8]) -> bool {
    if let Some(rest) = stored.strip_prefix("$apr1$") {
        let Some((salt, _)) = rest.split_once('$') else {
            return false;
        };
        let made = format!("$apr1${salt}${}", apr1(salt.as_bytes(), password));
        return equal(made.as_bytes(), stored.as_bytes());
    }
    if stored.starts_with("$2") {
        return bcrypt::verify(password, stored).unwrap_or(false);
    }
    if stored.starts_with("$5$") || stored.starts_with("$6$") {
        return ShaCrypt::default()
            .verify_password(password, stored)
            .is_ok();
    }
    if let Some(text) = stored.strip_prefix("{SHA}") {
        let Ok(wanted) = STANDARD.decode(text) else {
            return false;
        };
        return equal(&Sha1::digest(password), &wanted);
    }
    if let Some(text) = stored.strip_prefix("{SSHA}") {
        let Ok(salted) = STANDARD.decode(text) else {
            return false;
        };
        let Some((wanted, salt)) = salted.split_at_checked(20) else {
            return false;
        };
        let made = Sha1::new().chain_update(password).chain_update(salt);
        return equal(&made.finalize(), wanted);
    }
    false
}

fn equal(one: &[u8], other: &[u8]) -> bool {
    one.ct_eq(other).into()
}

/// Apache's variant of the crypt of FreeBSD: a thousand rounds of MD5, and a base64 of its own.
fn apr1(salt: &[u8], password: &[u8]) -> String {
    let salt = salt.get(..8).unwrap_or(salt);
    let inner = Md5::new()
        .chain_update(password)
        .chain_update(salt)
        .chain_update(password)
        .finalize();
    let mut hash = Md5::new()
        .chain_update(password)
        .chain_update(b"$apr1$")
        .chain_update(salt);
    for (_, byte) in password.iter().zip(inner.iter().cycle()) {
        hash.update([*byte]);
    }
    let mut length = password.len();
    while length > 0 {
        match password.first() {
            Some(first) if length & 1 == 0 => hash.update([*first]),
            _ => hash.update([0]),
        }
        length >>= 1;
    }
    let mut digest = hash.finalize();
    for round in 0..1000 {
        let mut hash = Md5::new();
        let odd = round % 2 == 1;
        hash.update(if odd { password } else { &digest });
        if round % 3 != 0 {
            hash.update(salt);
        }
        if round % 7 != 0 {
            hash.update(password);
        }
        hash.update(if odd { &digest } else { password });
        digest = hash.finalize();
    }
    let byte = |place: usize| u32::from(digest.get(place).copied().unwrap_or_default());
    let mut text = String::with_capacity(22);
    for (a, b, c) in [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)] {
        push(&mut text, byte(a) << 16 | byte(b) << 8 | byte(c), 4);
    }
    push(&mut text, byte(11), 2);
    text
}

fn push(text: &mut String, mut bits: u32, count: usize) {
    const LETTERS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    for _ in 0..count {
        let letter = usize::try_from(bits & 63).ok().and_then(|n| LETTERS.get(n));
        text.push(letter.copied().map_or('.', char::from));
        bits >>= 6;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `openssl passwd` and `openssl dgst`; that of bcrypt is one of its reference implementation's own.
    const HASHES: &[(&str, &str)] = &[
        ("$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/", "secret"),
        (
            "$apr1$xY$Qh22B6jU06c15vlfyIFur/",
            "a much longer passphrase than others",
        ),
        (
            "$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA",
            "secret",
        ),
        (
            "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1",
            "secret",
        ),
        ("{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "secret"),
        ("{SSHA}gVK8WC9YyFT1gMsQHTGCgT3sSv5zYWx0", "secret"),
        (
            "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
            "U*U",
        ),
    ];

    #[test]
    fn every_kind_of_hash_knows_its_password() {
        for (hash, password) in HASHES {
            assert!(verify(hash, password.as_bytes()), "{hash}");
            assert!(!verify(hash, b"wrong"), "{hash}");
            assert!(!verify(hash, b""), "{hash}");
        }
        for unknown in [
            "",
            "secret",
            "rl8uMbnhpUHmM",
            "$1$a$b",
            "{SSHA}AAAA",
            "$apr1$",
            "{SHA}?",
        ] {
            assert!(!verify(unknown, b"secret"), "{unknown}");
        }
    }

    #[tokio::test]
    async fn what_was_right_is_remembered_until_the_hash_changes() {
        let passwords = Passwords::new();
        let (hash, password) = HASHES[0];
        let check = |hash, decoy, password: &str| passwords.check(hash, decoy, password.into());
        assert_eq!(check(Some(hash), None, password).await, Checked::Right);
        // With nobody computing, only what is remembered is right.
        passwords.waiting.forget_permits(WAITING);
        assert_eq!(check(Some(hash), None, password).await, Checked::Right);
        assert_eq!(check(Some(hash), None, "wrong").await, Checked::Busy);
        assert_eq!(
            check(Some(HASHES[1].0), None, password).await,
            Checked::Busy
        );
        assert_eq!(check(None, Some(hash), password).await, Checked::Busy);
        passwords.waiting.add_permits(WAITING);
        assert_eq!(
            check(None, Some(hash), password).await,
            Checked::Wrong,
            "no such name"
        );
        assert_eq!(
            check(Some(hash), None, &"x".repeat(5000)).await,
            Checked::Wrong
        );
    }
}
