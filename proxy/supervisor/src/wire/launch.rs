//! What the process of a worker is given, as JSON.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tidegate_config::model;

/// JSON form of [`model::LaunchSettings`]; what is left out is as in a site file that says nothing.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Launch {
    env_files: Vec<PathBuf>,
    limits: Limits,
    umask: u32,
    stop_signal: StopSignal,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Limits {
    nofile: Option<u64>,
    nproc: Option<u64>,
    core: Option<u64>,
    address_space: Option<u64>,
    nice: Option<i32>,
    oom_score_adj: Option<i32>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StopSignal {
    Term,
    Int,
    Quit,
    Hup,
    Usr1,
    Usr2,
    Winch,
}

impl Default for Launch {
    fn default() -> Self {
        model::LaunchSettings::default().into()
    }
}

impl From<model::LaunchSettings> for Launch {
    fn from(launch: model::LaunchSettings) -> Self {
        let model::LaunchSettings { env_files, limits, umask, stop_signal } = launch;
        let model::ProcessLimits { nofile, nproc, core, address_space, nice, oom_score_adj } = limits;
        let limits = Limits { nofile, nproc, core, address_space, nice, oom_score_adj };
        let stop_signal = match stop_signal {
            model::StopSignal::Term => StopSignal::Term,
            model::StopSignal::Int => StopSignal::Int,
            model::StopSignal::Quit => StopSignal::Quit,
            model::StopSignal::Hup => StopSignal::Hup,
            model::StopSignal::Usr1 => StopSignal::Usr1,
            model::StopSignal::Usr2 => StopSignal::Usr2,
            model::StopSignal::Winch => StopSignal::Winch,
        };
        Self { env_files, limits, umask, stop_signal }
    }
}

impl From<Launch> for model::LaunchSettings {
    fn from(launch: Launch) -> Self {
        let Launch { env_files, limits, umask, stop_signal } = launch;
        let Limits { nofile, nproc, core, address_space, nice, oom_score_adj } = limits;
        let limits = model::ProcessLimits { nofile, nproc, core, address_space, nice, oom_score_adj };
        let stop_signal = match stop_signal {
            StopSignal::Term => model::StopSignal::Term,
            StopSignal::Int => model::StopSignal::Int,
            StopSignal::Quit => model::StopSignal::Quit,
            StopSignal::Hup => model::StopSignal::Hup,
            StopSignal::Usr1 => model::StopSignal::Usr1,
            StopSignal::Usr2 => model::StopSignal::Usr2,
            StopSignal::Winch => model::StopSignal::Winch,
        };
        Self { env_files, limits, umask, stop_signal }
    }
}
