//! Changes of a circuit breaker: a changed one begins closed.

use super::settings::Settings;
use crate::model::Breaker;

pub(super) fn breaker(old: &Option<Breaker>, new: &Option<Breaker>, settings: &mut Settings) {
    let (Some(old), Some(new)) = (old, new) else {
        let word = |breaker: &Option<Breaker>| if breaker.is_some() { "on" } else { "off" };
        settings.compare("breaker", old, new, |breaker| word(breaker).to_owned());
        return;
    };
    let Breaker { statuses, failures, share, window, min_requests, cool_down, max_cool_down, probes, successes } = old;
    settings.statuses("breaker.statuses", statuses, &new.statuses);
    settings.compare("breaker.failures", failures, &new.failures, ToString::to_string);
    settings.compare("breaker.share", share, &new.share, |share| format!("{share}%"));
    settings.time("breaker.window", window, &new.window);
    settings.compare("breaker.min_requests", min_requests, &new.min_requests, ToString::to_string);
    settings.time("breaker.cool_down", cool_down, &new.cool_down);
    settings.time("breaker.max_cool_down", max_cool_down, &new.max_cool_down);
    settings.compare("breaker.probes", probes, &new.probes, ToString::to_string);
    settings.compare("breaker.successes", successes, &new.successes, ToString::to_string);
}
