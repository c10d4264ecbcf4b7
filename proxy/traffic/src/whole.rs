//! Which answers wait until they are whole before any of them is passed on.
//!
//! Servers write head and body apart (uvicorn does), and one that dies in between leaves half an answer. As long as the client has
//! nothing of it, another endpoint can give a whole one.

use std::time::Duration;

/// How long a head waits for its body. What is written right after it comes within microseconds; a client can hardly tell
/// this wait from a slow page.
pub const PATIENCE: Duration = Duration::from_millis(50);

/// The longest body that is waited for: what one read takes anyway, so that no buffer grows for it.
const MOST: u64 = 16 * 1024;

/// Whether a head that announces `length` bytes of body is to wait while `there` of them have come. Bodies of unknown length may
/// be streams, whose every byte is due at once.
#[must_use]
pub fn is_worth_a_wait(length: u64, there: usize) -> bool {
    length <= MOST && (there as u64) < length
}

#[cfg(test)]
mod tests {
    use super::{MOST, is_worth_a_wait};

    #[test]
    fn what_waits() {
        for (length, there, waits) in [
            (0, 0, false),
            (1, 0, true),
            (1, 1, false),
            (5, 4, true),
            (5, 9, false),
            (MOST, 0, true),
            (MOST, 16 * 1024 - 1, true),
            (MOST, 16 * 1024, false),
            (MOST + 1, 0, false),
            (u64::MAX, 0, false),
        ] {
            assert_eq!(is_worth_a_wait(length, there), waits, "{there} of {length}");
        }
    }
}
