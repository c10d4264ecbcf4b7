//! Session tickets of one TLS policy: sealed with keys that live in memory only and change by the clock.
//!
//! rustls has a ticketer of its own; this one exists because its keys must change at a known time (a test passes the
//! clock in), and sooner where a ticket stands for a client certificate that was verified once. A ticket is the key's
//! name, a nonce, and the session sealed with AES-256-GCM; a key seals for one life and opens for one more.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;

const NAME: usize = 16;

/// Seals and opens tickets; shared by all shards.
pub struct Ticketer {
    life: Duration,
    keys: ArcSwap<Keys>,
    /// Guards the change of keys; taken once in a life, never by a handshake that finds its keys fresh.
    changing: Mutex<()>,
}

struct Keys {
    current: Arc<Key>,
    /// With the time until which it opens tickets.
    previous: Option<(Arc<Key>, Instant)>,
    since: Instant,
}

struct Key {
    name: [u8; NAME],
    key: RandomizedNonceKey,
}

impl Ticketer {
    /// A ticketer with a new key, which changes when it is `life` old.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn new(life: Duration, now: Instant) -> Result<Self, rustls::Error> {
        let current = Arc::new(Key::new()?);
        let keys = ArcSwap::from_pointee(Keys { current, previous: None, since: now });
        Ok(Self { life, keys, changing: Mutex::new(()) })
    }

    /// The ticket for a session; `None` when it cannot be sealed.
    #[must_use]
    pub fn seal(&self, session: &[u8], now: Instant) -> Option<Vec<u8>> {
        self.keys(now).current.seal(session)
    }

    /// The session of a ticket; `None` when it is not one of ours, or older than two lives of a key.
    #[must_use]
    pub fn open(&self, ticket: &[u8], now: Instant) -> Option<Vec<u8>> {
        let keys = self.keys(now);
        let name = ticket.get(..NAME)?;
        let previous = keys.previous.as_ref().filter(|(_, until)| now < *until).map(|(key, _)| key);
        let key = [Some(&keys.current), previous].into_iter().flatten().find(|key| key.name == name)?;
        key.open(ticket)
    }

    fn keys(&self, now: Instant) -> Arc<Keys> {
        let keys = self.keys.load_full();
        if now.saturating_duration_since(keys.since) < self.life {
            return keys;
        }
        self.change(now);
        self.keys.load_full()
    }

    fn change(&self, now: Instant) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = self.keys.load();
        let age = now.saturating_duration_since(keys.since);
        if age < self.life {
            return;
        }
        match Key::new() {
            Ok(key) => {
                let until = keys.since + self.life * 2;
                let previous = (now < until).then(|| (Arc::clone(&keys.current), until));
                self.keys.store(Arc::new(Keys { current: Arc::new(key), previous, since: now }));
            }
            // Tickets with an old key are better than clients without any; the next handshake tries again.
            Err(error) => tracing::error!(%error, "no new ticket key"),
        }
    }
}

impl fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticketer").field("life", &self.life).finish_non_exhaustive()
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.life.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, Instant::now())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, Instant::now())
    }
}

impl Key {
    fn new() -> Result<Self, rustls::Error> {
        let (mut name, mut bytes) = ([0; NAME], [0; 32]);
        let filled = rand::fill(&mut name).and_then(|()| rand::fill(&mut bytes));
        let key = filled.and_then(|()| RandomizedNonceKey::new(&AES_256_GCM, &bytes));
        key.map(|key| Self { name, key }).map_err(|_| rustls::Error::FailedToGetRandomBytes)
    }

    fn seal(&self, session: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = session.to_vec();
        let nonce = self.key.seal_in_place_append_tag(Aad::from(self.name), &mut sealed).ok()?;
        Some([&self.name[..], nonce.as_ref(), &sealed].concat())
    }

    fn open(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = ticket.get(NAME..)?.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let length = self.key.open_in_place(nonce, Aad::from(self.name), &mut sealed).ok()?.len();
        sealed.truncate(length);
        Some(sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(100);

    #[test]
    fn a_ticket_lives_through_one_change_of_keys() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let ticketer = Ticketer::new(LIFE, start).unwrap();
        let early = ticketer.seal(b"early", at(1)).unwrap();
        let late = ticketer.seal(b"late", at(99)).unwrap();
        type Row<'a> = (&'a [u8], u64, Option<&'a [u8]>);
        let rows: [Row<'_>; 5] = [
            (&early, 99, Some(b"early")),
            (&early, 100, Some(b"early")),
            (&late, 199, Some(b"late")),
            (&late, 201, None),
            (&early, 202, None),
        ];
        for (ticket, seconds, session) in rows {
            assert_eq!(ticketer.open(ticket, at(seconds)).as_deref(), session, "at {seconds}");
        }
    }

    #[test]
    fn after_a_long_silence_no_old_key_is_left() {
        let start = Instant::now();
        let ticketer = Ticketer::new(LIFE, start).unwrap();
        let ticket = ticketer.seal(b"old", start).unwrap();
        assert_eq!(ticketer.open(&ticket, start + LIFE * 2), None);
    }

    #[test]
    fn a_key_that_changed_late_opens_no_longer() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let ticketer = Ticketer::new(LIFE, start).unwrap();
        let ticket = ticketer.seal(b"old", start).unwrap();
        // The first handshake in a long time changes the key shortly before the old one ends.
        assert_eq!(ticketer.open(&ticket, at(199)).as_deref(), Some(&b"old"[..]));
        assert_eq!(ticketer.open(&ticket, at(200)), None);
    }

    #[test]
    fn keys_change_and_the_name_tells() {
        let start = Instant::now();
        let ticketer = Ticketer::new(LIFE, start).unwrap();
        let name = |now| ticketer.seal(b"x", now).unwrap()[..NAME].to_vec();
        let first = name(start);
        assert_eq!(name(start + LIFE / 2), first);
        assert_ne!(name(start + LIFE), first);
    }

    #[test]
    fn what_was_changed_or_is_foreign_does_not_open() {
        let now = Instant::now();
        let (ticketer, other) = (Ticketer::new(LIFE, now).unwrap(), Ticketer::new(LIFE, now).unwrap());
        let ticket = ticketer.seal(b"session", now).unwrap();
        assert_eq!(other.open(&ticket, now), None);
        for place in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[place] ^= 1;
            assert_eq!(ticketer.open(&changed, now), None, "byte {place}");
            assert_eq!(ticketer.open(&ticket[..place], now), None, "cut at {place}");
        }
    }
}
