//! Sessions of one TLS policy for clients that resume without a ticket: bounded in number and in age.
//!
//! rustls's own store bounds the number only, so a session, and with it a client certificate that was verified once,
//! would live for as long as few others come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};

/// Sessions by their identifiers; shared by all shards.
#[derive(Debug)]
pub(crate) struct Sessions {
    store: Arc<ServerSessionMemoryCache>,
    life: Duration,
    began: Instant,
}

impl Sessions {
    /// Room for `count` sessions, each for `life`.
    pub(crate) fn new(count: usize, life: Duration) -> Self {
        Self { store: ServerSessionMemoryCache::new(count), life, began: Instant::now() }
    }

    fn put_at(&self, key: Vec<u8>, mut value: Vec<u8>, now: Instant) -> bool {
        value.extend_from_slice(&now.duration_since(self.began).as_secs().to_be_bytes());
        self.store.put(key, value)
    }

    /// The session, unless it is too old.
    fn fresh(&self, mut value: Vec<u8>, now: Instant) -> Option<Vec<u8>> {
        let (_, stamp) = value.split_last_chunk::<8>()?;
        let stored = Duration::from_secs(u64::from_be_bytes(*stamp));
        value.truncate(value.len() - 8);
        (now.duration_since(self.began).saturating_sub(stored) < self.life).then_some(value)
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.put_at(key, value, Instant::now())
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.fresh(self.store.get(key)?, Instant::now())
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.fresh(self.store.take(key)?, Instant::now())
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_by_age() {
        let sessions = Sessions::new(4, Duration::from_secs(10));
        let now = Instant::now();
        assert!(sessions.put_at(b"id".to_vec(), b"session".to_vec(), now));
        assert_eq!(sessions.get(b"id").as_deref(), Some(&b"session"[..]));
        let kept = sessions.store.get(b"id").unwrap();
        assert_eq!(sessions.fresh(kept.clone(), now + Duration::from_secs(9)).as_deref(), Some(&b"session"[..]));
        assert_eq!(sessions.fresh(kept, now + Duration::from_secs(11)), None);
        assert_eq!(sessions.fresh(b"short".to_vec(), now), None);
    }
}
