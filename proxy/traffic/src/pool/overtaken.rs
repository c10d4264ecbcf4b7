//! Endpoints that others overtake: both were asked the same, and the other one answered first.
//!
//! To lose is no failure, or every race would cost somebody his health. But an endpoint that hangs would lose every race, and
//! then nobody ever waited for it long enough to see that it fails. So losses in a row are looked at together: an
//! endpoint that was overtaken and has since ended nothing with an answer, for as long as one try may take, does not answer. From
//! there on each loss counts as an answer that did not come in time. Answers cost nothing for this: they are told from
//! figures that are counted anyway.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Pool;
use super::endpoint::Endpoint;
use super::lease::{Lease, Outcome};
use super::symptom::Symptom;

/// What is known of an endpoint's losses.
#[derive(Debug, Default)]
pub(super) struct Silence(Mutex<Option<Losses>>);

/// Losses between which there was no answer.
#[derive(Debug, Clone, Copy)]
struct Losses {
    /// When the first of the exchanges began.
    since: Instant,
    /// What the endpoint had answered by then.
    answered: u64,
}

impl Silence {
    /// An exchange that began at `began` was lost. Whether the endpoint has been silent for `patience`, its `answered`
    /// exchanges being as many as ever.
    fn lost(&self, began: Instant, answered: u64, patience: Duration, now: Instant) -> bool {
        let mut losses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match *losses {
            Some(known) if answered <= known.answered => known.since,
            Some(_) | None => {
                *losses = Some(Losses { since: began, answered });
                began
            }
        };
        now.saturating_duration_since(since) >= patience
    }
}

impl Pool {
    /// Ends an exchange whose answer another endpoint was faster with. `patience`: how long one try may take.
    pub fn overtaken(&self, lease: Lease, patience: Duration, now: Instant) {
        let endpoint: &Endpoint = lease.endpoint();
        let is_silent = endpoint.silence().lost(lease.began(), endpoint.answered(), patience, now);
        if is_silent {
            // The other endpoint has answered the request.
            endpoint.count_retried();
        }
        let outcome = if is_silent { Outcome::UpstreamFault(Symptom::HeadTimeout) } else { Outcome::Overtaken };
        self.end(lease, outcome, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(2);

    #[test]
    fn losses_count_once_nothing_was_answered_for_a_try() {
        let (silence, start) = (Silence::default(), Instant::now());
        let lost = |at: u64, answered| {
            let began = start + Duration::from_millis(at);
            silence.lost(began, answered, PATIENCE, began + Duration::from_millis(60))
        };
        for (at, answered, expected) in [
            (0, 0, false),
            (1_900, 0, false),
            (1_940, 0, true),
            (2_500, 0, true),
            // One answer, and all begins anew.
            (3_000, 1, false),
            (4_900, 1, false),
            (4_950, 2, false),
            (6_880, 2, false),
            (6_900, 2, true),
        ] {
            assert_eq!(lost(at, answered), expected, "at {at}, after {answered} answers");
        }
    }

    #[test]
    fn one_loss_that_took_as_long_as_a_try_may_is_one() {
        let (silence, start) = (Silence::default(), Instant::now());
        assert!(silence.lost(start, 5, PATIENCE, start + PATIENCE));
    }
}
