//! Changes of what is tried again.

use std::time::Duration;

use super::settings::Settings;
use crate::model::{Backoff, Retry};
use crate::units::format_duration;

/// Compares what two routes say.
pub(super) fn retry(path: &str, old: &Retry, new: &Retry, settings: &mut Settings) {
    let Retry { tries, on, grpc, try_timeout, hedge, backoff: Backoff { base, max }, start_over, retry_after } = old;
    settings.compare(&format!("{path}.tries"), tries, &new.tries, ToString::to_string);
    settings.compare(&format!("{path}.on"), on, &new.on, ToString::to_string);
    settings.compare(&format!("{path}.grpc"), grpc, &new.grpc, ToString::to_string);
    settings.compare(&format!("{path}.try_timeout"), try_timeout, &new.try_timeout, time_or_off);
    settings.compare(&format!("{path}.hedge"), hedge, &new.hedge, time_or_off);
    settings.time(&format!("{path}.backoff.base"), base, &new.backoff.base);
    settings.time(&format!("{path}.backoff.max"), max, &new.backoff.max);
    settings.compare(&format!("{path}.backoff"), start_over, &new.start_over, |present| {
        if *present { "present" } else { "absent" }.to_owned()
    });
    settings.compare(&format!("{path}.respect_retry_after"), retry_after, &new.retry_after, time_or_off);
}

/// A time, or `off`.
pub(super) fn time_or_off(time: &Option<Duration>) -> String {
    time.map_or_else(|| "off".to_owned(), format_duration)
}
