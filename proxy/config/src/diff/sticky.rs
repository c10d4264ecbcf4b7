//! Changes of how clients stay with endpoints.

use super::settings::{Setting, Settings, list, optional};
use crate::model::Sticky;
use crate::units::format_duration;

/// What differs; all of it applies live.
pub(super) fn sticky(old: Option<&Sticky>, new: Option<&Sticky>) -> Vec<Setting> {
    let mut settings = Settings::default();
    let (Some(old), Some(new)) = (old, new) else {
        let cookie = |sticky: Option<&Sticky>| sticky.map_or_else(|| "none".to_owned(), |sticky| sticky.cookie.clone());
        if old != new {
            settings.add("balance.sticky", &cookie(old), &cookie(new));
        }
        return settings.0;
    };
    let Sticky { cookie, secrets, max_age, path, domain, secure, same_site, http_only } = old;
    let time = |time: &Option<_>| time.map_or_else(|| "none".to_owned(), format_duration);
    settings.compare("balance.sticky.cookie", cookie, &new.cookie, Clone::clone);
    settings.compare("balance.sticky.secret", secrets, &new.secrets, |files| {
        list(files.iter().map(|file| file.display().to_string()))
    });
    settings.compare("balance.sticky.max_age", max_age, &new.max_age, time);
    settings.compare("balance.sticky.path", path, &new.path, Clone::clone);
    settings.compare("balance.sticky.domain", domain, &new.domain, optional);
    settings.debug("balance.sticky.secure", secure, &new.secure);
    settings.compare("balance.sticky.same_site", same_site, &new.same_site, ToString::to_string);
    settings.debug("balance.sticky.http_only", http_only, &new.http_only);
    settings.0
}
