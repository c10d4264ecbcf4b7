//! Changes of when endpoints that fail are taken out: all apply live.

use super::settings::Settings;
use crate::model::Ejection;

pub(super) fn ejection(old: &Option<Ejection>, new: &Option<Ejection>, settings: &mut Settings) {
    let (Some(old), Some(new)) = (old, new) else {
        let word = |rule: &Option<Ejection>| if rule.is_some() { "on" } else { "off" };
        settings.compare("ejection", old, new, |rule| word(rule).to_owned());
        return;
    };
    let Ejection { max_fails, fail_timeout, max_time, statuses, max_ejected, success_rate } = old;
    settings.compare("ejection.max_fails", max_fails, &new.max_fails, ToString::to_string);
    settings.time("ejection.fail_timeout", fail_timeout, &new.fail_timeout);
    settings.time("ejection.max_time", max_time, &new.max_time);
    settings.statuses("ejection.statuses", statuses, &new.statuses);
    settings.compare("ejection.max_ejected", max_ejected, &new.max_ejected, |share| format!("{share}%"));
    settings.debug("ejection.success_rate", success_rate, &new.success_rate);
}
