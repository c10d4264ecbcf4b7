//! When requests are sent, and until when answers are awaited.

use std::time::{Duration, Instant};

use super::arrivals::Arrivals;

/// How much is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Amount {
    /// So many requests in all, as fast as they are answered.
    Requests(u64),
    /// Closed loop: each stream sends the next request when it has the answer to the last.
    Saturate { length: Duration },
    /// Open loop: requests fall due whether or not earlier ones were answered. The same seed and rate give the same
    /// times.
    Paced { per_second: f64, length: Duration, seed: u64 },
}

/// What is still to be sent of an [`Amount`].
pub(super) struct Plan {
    pending: Pending,
    deadline: Instant,
}

enum Pending {
    Requests { left: u64 },
    Saturate { end: Instant },
    Paced { arrivals: Arrivals, end: Instant },
}

impl Plan {
    pub(super) fn new(amount: Amount, started: Instant) -> Self {
        match amount {
            Amount::Requests(left) => {
                Self { pending: Pending::Requests { left }, deadline: started + PATIENCE_UNDER_INSTRUMENTS }
            }
            Amount::Saturate { length } => {
                let end = started + length;
                Self { pending: Pending::Saturate { end }, deadline: end + PATIENCE }
            }
            Amount::Paced { per_second, length, seed } => {
                let end = started + length;
                let arrivals = Arrivals::new(started, per_second, seed);
                Self { pending: Pending::Paced { arrivals, end }, deadline: end + PATIENCE }
            }
        }
    }

    /// Takes the next request, if there is one at `now`: the time it was due.
    pub(super) fn next(&mut self, now: Instant) -> Option<Instant> {
        match &mut self.pending {
            Pending::Requests { left: 0 } => None,
            Pending::Requests { left } => {
                *left -= 1;
                Some(now)
            }
            Pending::Saturate { end } => (now < *end).then_some(now),
            Pending::Paced { arrivals, end } => {
                let due = arrivals.due();
                if due > now.min(*end) {
                    return None;
                }
                arrivals.advance();
                Some(due)
            }
        }
    }

    /// Whether nothing more will fall due.
    pub(super) fn is_sent(&self, now: Instant) -> bool {
        match &self.pending {
            Pending::Requests { left } => *left == 0,
            Pending::Saturate { end } => now >= *end,
            Pending::Paced { arrivals, end } => arrivals.due() > *end,
        }
    }

    /// When the last answer is awaited no longer.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Takes everything that was due and not sent, and counts it.
    pub(super) fn unsent(&mut self) -> u64 {
        match &mut self.pending {
            Pending::Requests { left } => std::mem::take(left),
            Pending::Saturate { .. } => 0,
            Pending::Paced { arrivals, end } => {
                let mut count = 0;
                while arrivals.due() <= *end {
                    arrivals.advance();
                    count += 1;
                }
                count
            }
        }
    }

    /// How long answers may be awaited before there is something else to do. `can_send` says whether a stream is free.
    pub(super) fn pause(&self, now: Instant, can_send: bool) -> Duration {
        match &self.pending {
            Pending::Paced { arrivals, end } if can_send && arrivals.due() <= *end => {
                arrivals.due().saturating_duration_since(now)
            }
            _ => IDLE_WAIT,
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(5);
/// A proxy under valgrind or strace is up to a hundred times slower.
const PATIENCE_UNDER_INSTRUMENTS: Duration = Duration::from_secs(120);
const IDLE_WAIT: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_requests_is_sent_and_no_more() {
        let now = Instant::now();
        let mut plan = Plan::new(Amount::Requests(2), now);
        assert!(!plan.is_sent(now));
        assert_eq!([plan.next(now), plan.next(now), plan.next(now)], [Some(now), Some(now), None]);
        assert!(plan.is_sent(now));
    }

    #[test]
    fn a_closed_loop_ends_with_its_length() {
        let now = Instant::now();
        let mut plan = Plan::new(Amount::Saturate { length: Duration::from_secs(1) }, now);
        assert_eq!(plan.next(now), Some(now));
        assert_eq!(plan.next(now + Duration::from_secs(1)), None);
        assert!(plan.is_sent(now + Duration::from_secs(1)) && plan.unsent() == 0);
    }

    #[test]
    fn an_open_loop_counts_from_when_a_request_was_due() {
        let now = Instant::now();
        let length = Duration::from_secs(1);
        let mut plan = Plan::new(Amount::Paced { per_second: 1000.0, length, seed: 1 }, now);
        let late = now + Duration::from_secs(5);
        let due = plan.next(late).unwrap();
        assert!(due > now && due < now + length);
        assert!((800..1200).contains(&plan.unsent()));
        assert!(plan.is_sent(now) && plan.next(late).is_none());
    }
}
