//! What an HTTP/2 session writes in one turn of its task, so that it leaves in one piece.
//!
//! The session writes each frame of data by itself and flushes behind it: a system call for each, and on TLS a record.
//! It cannot be told to wait, so its connection does: within a turn flushes hold back, and when the session has no more
//! to do, its task has it flush once more. The copy costs less than the calls.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes that leave in one piece at the most. The allocator keeps blocks of this size at hand, so that connections use
/// the same memory in turn, and none while they have nothing to write.
const MOST: usize = 32 * 1024;

/// The turn of a session: what its task and its connection, which the session keeps to itself, say to each other.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    lasts: AtomicBool,
    gathered: AtomicBool,
    blocked: AtomicBool,
}

impl Turn {
    /// From here on flushes hold back.
    pub(crate) fn begin(&self) {
        self.lasts.store(true, Ordering::Relaxed);
    }

    /// Flushes are meant again; whether there is something to flush.
    pub(crate) fn end(&self) -> bool {
        self.lasts.store(false, Ordering::Relaxed);
        self.gathered.load(Ordering::Relaxed)
    }

    /// Whether a write waits for the client.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Notes whether a write waits for the client.
    pub(crate) fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }
}

/// Bytes that have not left; see the module's text.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    bytes: Vec<u8>,
    /// How many of them have left: then the others have to, before more are taken.
    left: usize,
    turn: Arc<Turn>,
}

impl Gathered {
    /// The session's turn.
    pub(crate) fn turn(&self) -> &Arc<Turn> {
        &self.turn
    }

    /// Whether a flush has to wait for the end of the turn.
    pub(crate) fn holds_back(&self) -> bool {
        !self.bytes.is_empty() && self.turn.lasts.load(Ordering::Relaxed)
    }

    /// Whether nothing is taken before everything has left.
    pub(crate) fn is_full(&self) -> bool {
        self.left > 0 || self.bytes.len() >= MOST
    }

    /// Takes bytes from the front of `slices`, as many as there is room for.
    pub(crate) fn take(&mut self, slices: &[IoSlice<'_>]) -> usize {
        let before = self.bytes.len();
        self.bytes.reserve_exact(MOST - before);
        for slice in slices {
            let room = MOST - self.bytes.len();
            self.bytes.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        self.turn.gathered.store(!self.bytes.is_empty(), Ordering::Relaxed);
        self.bytes.len() - before
    }

    /// What is to be written.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes[self.left..]
    }

    /// So many bytes from the front of the rest have left.
    pub(crate) fn advance(&mut self, count: usize) {
        self.left += count;
        if self.left == self.bytes.len() {
            (self.bytes, self.left) = (Vec::new(), 0);
            self.turn.gathered.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Gathered, MOST};
    use std::io::IoSlice;

    fn take(gathered: &mut Gathered, slices: &[&[u8]]) -> usize {
        gathered.take(&slices.iter().map(|slice| IoSlice::new(slice)).collect::<Vec<_>>())
    }

    #[test]
    fn flushes_hold_back_while_the_turn_lasts() {
        let mut gathered = Gathered::default();
        let turn = gathered.turn().clone();
        turn.begin();
        assert!(!gathered.holds_back(), "what lies below may have something to flush");
        assert_eq!(take(&mut gathered, &[b"ab", b"c"]), 3);
        assert!(gathered.holds_back());
        assert!(turn.end(), "to be flushed");
        assert!(!gathered.holds_back());
        gathered.advance(2);
        assert_eq!((gathered.rest(), turn.end()), (&b"c"[..], true));
        gathered.advance(1);
        assert_eq!((gathered.rest(), turn.end()), (&b""[..], false));
    }

    #[test]
    fn no_more_is_taken_than_may_be_held() {
        let mut gathered = Gathered::default();
        assert_eq!(take(&mut gathered, &[&[1; MOST - 1], &[2; 2]]), MOST);
        assert!(gathered.is_full());
        gathered.advance(1);
        assert!(gathered.is_full(), "the rest goes first");
        gathered.advance(MOST - 1);
        assert!(!gathered.is_full());
        assert_eq!((take(&mut gathered, &[b"x"]), gathered.rest()), (1, &b"x"[..]));
    }
}
