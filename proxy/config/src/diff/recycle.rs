//! Changes of when workers are replaced although nothing is wrong with them.

use super::retry::time_or_off;
use super::settings::Settings;
use crate::model::Recycle;
use crate::units::format_size;

/// All of them apply live, to workers that run too.
pub(super) fn recycle(old: &Recycle, new: &Recycle, settings: &mut Settings) {
    let Recycle { max_requests, jitter, max_lifetime, max_rss, hard_rss } = old;
    let number = |limit: &Option<u64>| limit.map_or_else(|| "off".to_owned(), |limit| limit.to_string());
    let size = |limit: &Option<u64>| limit.map_or_else(|| "off".to_owned(), format_size);
    settings.compare("recycle.max_requests", max_requests, &new.max_requests, number);
    settings.compare("recycle.jitter", jitter, &new.jitter, |share| format!("{share}%"));
    settings.compare("recycle.max_lifetime", max_lifetime, &new.max_lifetime, time_or_off);
    settings.compare("recycle.max_rss", max_rss, &new.max_rss, size);
    settings.compare("recycle.hard_rss", hard_rss, &new.hard_rss, size);
}
