//! Changes of what the process of a worker is given.

use super::settings::{Settings, list};
use crate::model::{LaunchSettings, ProcessLimits};
use crate::units::format_size;

/// None of them reaches a process that runs. Of what stands in the files nothing is known here.
pub(super) fn launch(old: &LaunchSettings, new: &LaunchSettings, settings: &mut Settings) {
    let LaunchSettings { env_files, limits, umask, stop_signal } = old;
    settings.compare("env_file", env_files, &new.env_files, |files| {
        list(files.iter().map(|file| file.display().to_string()))
    });
    self::limits(limits, &new.limits, settings);
    settings.compare("umask", umask, &new.umask, |mask| format!("{mask:04o}"));
    settings.compare("stop_signal", stop_signal, &new.stop_signal, |signal| signal.word().to_owned());
}

fn limits(old: &ProcessLimits, new: &ProcessLimits, settings: &mut Settings) {
    let ProcessLimits { nofile, nproc, core, address_space, nice, oom_score_adj } = old;
    let usual = || "usual".to_owned();
    let number = |limit: &Option<u64>| limit.map_or_else(usual, |limit| limit.to_string());
    let size = |limit: &Option<u64>| match limit {
        None => usual(),
        Some(u64::MAX) => "on".to_owned(),
        Some(0) => "off".to_owned(),
        Some(size) => format_size(*size),
    };
    let level = |level: &Option<i32>| level.map_or_else(usual, |level| level.to_string());
    settings.compare("limits.nofile", nofile, &new.nofile, number);
    settings.compare("limits.nproc", nproc, &new.nproc, number);
    settings.compare("limits.core", core, &new.core, size);
    settings.compare("limits.address_space", address_space, &new.address_space, size);
    settings.compare("limits.nice", nice, &new.nice, level);
    settings.compare("limits.oom_score_adj", oom_score_adj, &new.oom_score_adj, level);
}
