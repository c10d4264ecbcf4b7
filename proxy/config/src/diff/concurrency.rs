//! Changes of limits of requests under way.

use super::Setting;
use super::settings::{self, Settings};
use crate::model::ConcurrencyLimit;

/// All of them apply live.
pub(super) fn concurrency_limit(old: &ConcurrencyLimit, new: &ConcurrencyLimit) -> Vec<Setting> {
    let ConcurrencyLimit { name: _, max, key, status, dry_run, allow } = old;
    let mut settings = Settings::default();
    settings.compare("max", max, &new.max, ToString::to_string);
    settings.compare("key", key, &new.key, |key| settings::list(key.iter().map(ToString::to_string)));
    settings.compare("status", status, &new.status, ToString::to_string);
    settings.compare("dry_run", dry_run, &new.dry_run, ToString::to_string);
    settings.compare("allow", allow, &new.allow, ToString::to_string);
    settings.0
}

/// The limits of a route.
pub(super) fn names(limits: &[String]) -> String {
    match limits {
        [] => "off".to_owned(),
        [limit] => limit.clone(),
        limits => settings::list(limits.iter().cloned()),
    }
}
