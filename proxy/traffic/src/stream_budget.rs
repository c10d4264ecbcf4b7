//! How many streams of one HTTP/2 connection may come to nothing.
//!
//! A stream that its client resets costs the client two small frames, and us and the endpoint a whole request; a
//! limit on streams at once does not bound it, for a reset stream is none (CVE-2023-44487). A stream that the client
//! makes us reset is the same trick (CVE-2025-8671). So what a connection may waste leaks back at a steady rate: people who
//! leave a page with a hundred pictures on their way stay below it, and a flood is over after its first moments. Answers
//! that are taken whole forgive as well: whoever breaks off one request in three is a browser, not a flood.

use std::time::{Duration, Instant};

/// A connection's account of wasted streams.
#[derive(Debug)]
pub struct StreamBudget {
    allowed: u32,
    /// Nanoseconds that one wasted stream takes to be forgiven.
    each: u64,
    /// When everything so far is forgiven.
    settled: Option<Instant>,
}

/// How a stream was wasted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waste {
    /// The client left before its answer was complete.
    Reset,
    /// It was no request at all, which no client sends by accident.
    Malformed,
}

impl StreamBudget {
    /// An account that allows `allowed` wasted streams (at least one) within `PERIOD`.
    pub fn new(allowed: u32) -> Self {
        let allowed = allowed.max(1);
        Self { allowed, each: nanoseconds(PERIOD) / u64::from(allowed), settled: None }
    }

    /// Notes an answer that its client took whole: two of them forgive one reset. Nothing is saved up for later.
    pub fn earn(&mut self) {
        let forgiven = Duration::from_nanos(self.each / ANSWERS_FOR_RESET);
        self.settled = self.settled.and_then(|settled| settled.checked_sub(forgiven));
    }

    /// Notes a wasted stream; whether the connection has to end.
    pub fn spend(&mut self, waste: Waste, now: Instant) -> bool {
        let cost = match waste {
            Waste::Reset => 1,
            Waste::Malformed => MALFORMED_COST,
        };
        let from = self.settled.filter(|settled| *settled > now).unwrap_or(now);
        let settled = from + Duration::from_nanos(self.each * cost);
        self.settled = Some(settled);
        settled.duration_since(now) > Duration::from_nanos(self.each * u64::from(self.allowed))
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What the allowance is counted over.
const PERIOD: Duration = Duration::from_secs(10);
/// A malformed request in streams that were reset.
const MALFORMED_COST: u64 = 3;
/// Whole answers that make up for a stream that was reset.
const ANSWERS_FOR_RESET: u64 = 2;

#[cfg(test)]
mod tests {
    use super::{StreamBudget, Waste};
    use std::time::{Duration, Instant};

    /// How many streams end the connection when one comes every `gap`; `None`: a thousand do not.
    fn ended_by(allowed: u32, waste: Waste, gap: Duration) -> Option<u32> {
        let (mut budget, start) = (StreamBudget::new(allowed), Instant::now());
        (1..=1_000).find(|number| budget.spend(waste, start + gap * (number - 1)))
    }

    #[test]
    fn a_burst_is_allowed_and_no_more() {
        for (allowed, waste, gap, expected) in [
            (100, Waste::Reset, 0, Some(101)),
            (100, Waste::Malformed, 0, Some(34)),
            (10, Waste::Reset, 0, Some(11)),
            (0, Waste::Reset, 0, Some(2)),
            (100, Waste::Reset, 50, Some(200)),
            (100, Waste::Reset, 100, None),
            (100, Waste::Malformed, 300, None),
            (100, Waste::Malformed, 150, Some(66)),
        ] {
            let seen = ended_by(allowed, waste, Duration::from_millis(gap));
            assert_eq!(seen, expected, "{allowed} allowed, {waste:?} every {gap} ms");
        }
    }

    #[test]
    fn a_quiet_while_forgives_everything_and_saves_nothing_up() {
        let (mut budget, start) = (StreamBudget::new(10), Instant::now());
        assert!((0..10).all(|_| !budget.spend(Waste::Reset, start)));
        let later = start + Duration::from_secs(3_600);
        assert!((0..10).all(|_| !budget.spend(Waste::Reset, later)));
        assert!(budget.spend(Waste::Reset, later));
    }

    /// Whether a connection with a hundred allowed lives through `requests` in ten seconds, of which `broken_off` of each
    /// ten are broken off.
    fn lives(requests: u32, broken_off: u32) -> bool {
        let (mut budget, start) = (StreamBudget::new(100), Instant::now());
        (0..requests).all(|number| {
            let now = start + Duration::from_secs(10) * number / requests;
            if number % 10 < broken_off {
                return !budget.spend(Waste::Reset, now);
            }
            budget.earn();
            true
        })
    }

    #[test]
    fn answers_that_are_taken_make_up_for_others() {
        for (requests, broken_off, expected) in
            [(1_000, 3, true), (100_000, 3, true), (1_000, 5, false), (300, 5, true), (1_000, 10, false)]
        {
            assert_eq!(lives(requests, broken_off), expected, "{broken_off} in ten of {requests}");
        }
    }

    #[test]
    fn answers_are_not_saved_up() {
        let mut budget = StreamBudget::new(100);
        (0..1_000).for_each(|_| budget.earn());
        let start = Instant::now();
        assert!((0..100).all(|_| !budget.spend(Waste::Reset, start)));
        assert!(budget.spend(Waste::Reset, start));
        let mut budget = StreamBudget::new(100);
        budget.spend(Waste::Reset, start);
        (0..1_000).for_each(|_| budget.earn());
        assert_eq!((1..1_000).find(|_| budget.spend(Waste::Reset, start)), Some(101));
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_does_no_harm() {
        let (mut budget, start) = (StreamBudget::new(10), Instant::now() + Duration::from_secs(60));
        assert!(!budget.spend(Waste::Reset, start));
        assert!(budget.spend(Waste::Reset, start - Duration::from_secs(30)));
    }
}
