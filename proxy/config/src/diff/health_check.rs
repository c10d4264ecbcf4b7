//! Changes of how servers are asked whether they are well: a changed check begins anew.

use super::settings::Settings;
use crate::model::HealthCheck;

pub(super) fn health_check(old: &Option<HealthCheck>, new: &Option<HealthCheck>, settings: &mut Settings) {
    let (Some(old), Some(new)) = (old, new) else {
        let word = |check: &Option<HealthCheck>| if check.is_some() { "on" } else { "off" };
        settings.compare("health_check", old, new, |check| word(check).to_owned());
        return;
    };
    let HealthCheck { kind, interval, jitter, timeout, rise, fall, port } = old;
    settings.debug("health_check", kind, &new.kind);
    settings.time("health_check.interval", interval, &new.interval);
    settings.time("health_check.jitter", jitter, &new.jitter);
    settings.time("health_check.timeout", timeout, &new.timeout);
    settings.compare("health_check.rise", rise, &new.rise, ToString::to_string);
    settings.compare("health_check.fall", fall, &new.fall, ToString::to_string);
    settings.debug("health_check.port", port, &new.port);
}
