//! How far a head that arrives in pieces has been looked at.
//!
//! A line is read when its end is there. Reading it is tried once when it starts, so that rubbish is refused with the
//! first bytes; after that only a line feed is worth another try. Each byte is thus looked at a fixed number of times,
//! however small the pieces.

/// Place of the next line to read, and how far the buffer was searched for its end.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Scan {
    /// Start of the first line not yet taken.
    pub(crate) at: usize,
    searched: usize,
}

impl Scan {
    /// Whether reading the line at `at` can give more than last time.
    #[inline]
    pub(crate) fn is_worthwhile(&self, bytes: &[u8]) -> bool {
        self.searched <= self.at || memchr::memchr(b'\n', bytes.get(self.searched..).unwrap_or_default()).is_some()
    }

    /// Remembers that all of `bytes` was looked at.
    #[inline]
    pub(crate) fn searched(&mut self, bytes: &[u8]) {
        self.searched = bytes.len();
    }
}

/// The part of `buffer` a head of at most `limit` bytes may take, and whether there can be no more of it.
#[inline]
pub(crate) fn window(buffer: &[u8], limit: usize) -> (&[u8], bool) {
    // Ranges hold 32 bits; no head comes near.
    let limit = limit.min(u32::MAX as usize);
    (&buffer[..buffer.len().min(limit)], buffer.len() >= limit)
}
