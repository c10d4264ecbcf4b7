//! Changes of how a new generation takes over: they hold from the next deploy on.

use super::settings::Settings;
use crate::model::DeployPolicy;

pub(super) fn deploy(old: &DeployPolicy, new: &DeployPolicy, settings: &mut Settings) {
    let DeployPolicy { strategy, surge, max_unavailable, min_ready, on_failure } = old;
    settings.debug("deploy.strategy", strategy, &new.strategy);
    settings.compare("deploy.surge", surge, &new.surge, ToString::to_string);
    settings.compare("deploy.max_unavailable", max_unavailable, &new.max_unavailable, ToString::to_string);
    settings.time("deploy.min_ready", min_ready, &new.min_ready);
    settings.debug("deploy.on_failure", on_failure, &new.on_failure);
}
