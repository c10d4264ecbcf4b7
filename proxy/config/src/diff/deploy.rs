//! Changes of how a new generation comes up and takes over: no worker is replaced for their sake.

use super::settings::{Settings, list};
use crate::model::{DeployPolicy, PreStart};
use crate::units::format_duration;

pub(super) fn pre_start(old: Option<&PreStart>, new: Option<&PreStart>, settings: &mut Settings) {
    let command = |hook: &Option<&PreStart>| match hook {
        Some(hook) => list(hook.command.iter().cloned()),
        None => "none".to_owned(),
    };
    let same_command = old.map(|hook| &hook.command) == new.map(|hook| &hook.command);
    if !same_command {
        settings.compare("pre_start", &old, &new, command);
    }
    if let (Some(old), Some(new)) = (old, new) {
        settings.compare("pre_start_timeout", &old.timeout, &new.timeout, |&time| format_duration(time));
    }
}

pub(super) fn deploy(old: &DeployPolicy, new: &DeployPolicy, settings: &mut Settings) {
    let DeployPolicy { strategy, surge, max_unavailable, min_ready, on_failure, on_hup, canary } = old;
    settings.debug("deploy.strategy", strategy, &new.strategy);
    settings.compare("deploy.surge", surge, &new.surge, ToString::to_string);
    settings.compare("deploy.max_unavailable", max_unavailable, &new.max_unavailable, ToString::to_string);
    settings.time("deploy.min_ready", min_ready, &new.min_ready);
    settings.debug("deploy.on_failure", on_failure, &new.on_failure);
    super::canary::canary(canary.as_ref(), new.canary.as_ref(), settings);
    settings.debug("on_hup", on_hup, &new.on_hup);
}
