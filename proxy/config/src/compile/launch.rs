//! What the process of a worker is given besides its command.

use std::path::PathBuf;

use super::{file_path, keep};
use crate::fault::Code;
use crate::model::{LaunchSettings, ProcessLimits, StopSignal};
use crate::raw;
use crate::report::Report;
use crate::tree::Spot;
use crate::units::Reason;

/// The keys of it, which stand among those of workers.
pub(super) struct Keys {
    pub(super) env_file: Option<raw::EnvFiles>,
    pub(super) limits: Option<raw::WorkerLimits>,
    pub(super) umask: Option<raw::Text>,
    pub(super) stop_signal: Option<raw::StopSignal>,
}

/// Compiles them; `None` after a fault that leaves no sense.
pub(super) fn launch(keys: Keys, workers: Spot<'_>, report: &mut Report) -> Option<LaunchSettings> {
    let Keys { env_file, limits, umask, stop_signal } = keys;
    let env_files = env_files(env_file, workers.key("env_file"), report);
    let limits = self::limits(limits.unwrap_or_default(), workers.key("limits"), report);
    let umask = match umask {
        Some(raw::Text(text)) => keep(mask(&text), &text, workers.key("umask"), report)?,
        None => LaunchSettings::default().umask,
    };
    let stop_signal = stop_signal.map(StopSignal::from).unwrap_or_default();
    Some(LaunchSettings { env_files, limits, umask, stop_signal })
}

fn env_files(raw: Option<raw::EnvFiles>, spot: Spot<'_>, report: &mut Report) -> Vec<PathBuf> {
    let files = match raw {
        None => return Vec::new(),
        Some(raw::EnvFiles::One(file)) => vec![(file, spot)],
        Some(raw::EnvFiles::Several(files)) => {
            files.into_iter().enumerate().map(|(at, file)| (file, spot.item(at))).collect()
        }
    };
    let mut paths = Vec::with_capacity(files.len());
    for (file, spot) in files {
        let path = file_path(&file, spot, report);
        if path.file_name().is_none() {
            let problem = format!("\"{}\" names no file", spot.shown(&file));
            report.fault(spot.span(), Code::BadValue, problem).hint("write the path of a file, such as .env");
        }
        paths.push(path);
    }
    paths
}

fn limits(raw: raw::WorkerLimits, spot: Spot<'_>, report: &mut Report) -> ProcessLimits {
    let raw::WorkerLimits { nofile, nproc, core, address_space, nice, oom_score_adj } = raw;
    let address_space = address_space.map(|size| size.0);
    if address_space.is_some_and(|size| size < LEAST_SPACE) {
        let problem = "no program can be started in so little address space";
        report.fault(spot.key("address_space").span(), Code::BadValue, problem).hint("write 64MiB or more");
    }
    let core = core.map(|raw::Holding(size)| match size {
        raw::HoldingSize::On => u64::MAX,
        raw::HoldingSize::Off => 0,
        raw::HoldingSize::UpTo(size) => size,
    });
    ProcessLimits { nofile, nproc, core, address_space, nice, oom_score_adj }
}

/// Octal digits, as umask(1) takes and prints them.
fn mask(text: &str) -> Result<u32, Reason> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let is_mask = (3..=4).contains(&digits.len()) && digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    let mask = u32::from_str_radix(digits, 8).ok().filter(|mask| is_mask && *mask <= 0o777);
    mask.ok_or_else(|| Reason::new("is not a mask of permissions", "write octal digits, such as \"0027\""))
}

impl From<raw::StopSignal> for StopSignal {
    fn from(raw: raw::StopSignal) -> Self {
        match raw {
            raw::StopSignal::Term => Self::Term,
            raw::StopSignal::Int => Self::Int,
            raw::StopSignal::Quit => Self::Quit,
            raw::StopSignal::Hup => Self::Hup,
            raw::StopSignal::Usr1 => Self::Usr1,
            raw::StopSignal::Usr2 => Self::Usr2,
            raw::StopSignal::Winch => Self::Winch,
        }
    }
}

const LEAST_SPACE: u64 = 64 << 20;
