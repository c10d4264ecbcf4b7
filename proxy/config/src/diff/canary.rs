//! Changes of how the first new worker is compared: they hold for a deploy under way too.

use super::settings::Settings;
use crate::model::{CanaryHold, MaxDelta, Share};
use crate::units::format_duration;

pub(super) fn canary(old: Option<&CanaryHold>, new: Option<&CanaryHold>, settings: &mut Settings) {
    let time = |hold: Option<&CanaryHold>| hold.map(|hold| hold.time).unwrap_or_default();
    settings.compare("deploy.canary_hold", &time(old), &time(new), |&time| format_duration(time));
    let (Some(CanaryHold { time: _, max_delta: old }), Some(CanaryHold { time: _, max_delta: new })) = (old, new)
    else {
        return;
    };
    let MaxDelta { errors, p95 } = old;
    settings.compare("deploy.canary_max_delta.errors", errors, &new.errors, word);
    settings.compare("deploy.canary_max_delta.p95", p95, &new.p95, word);
}

fn word(share: &Option<Share>) -> String {
    share.map_or_else(|| "off".to_owned(), |share| share.to_string())
}
