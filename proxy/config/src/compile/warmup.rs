//! Requests that a new worker gets before those of clients.

use std::time::Duration;

use super::{each, ready};
use crate::fault::Code;
use crate::model::Warmup;
use crate::raw;
use crate::report::Report;
use crate::tree::Spot;

/// Compiles `warmup` and its timeout; `workers` is where both stand.
pub(super) fn warmup(
    paths: Option<Vec<String>>,
    timeout: Option<raw::PositiveTime>,
    workers: Spot<'_>,
    report: &mut Report,
) -> Option<Warmup> {
    let Some(paths) = paths else {
        if timeout.is_some() && !workers.is_damaged() {
            let problem = "there is no `warmup` that could take too long";
            report.fault(workers.key("warmup_timeout").key_span(), Code::Conflict, problem).hint("remove it");
        }
        return None;
    };
    let paths = each(paths, workers.key("warmup"), report, ready::target);
    Some(Warmup { paths, timeout: timeout.map_or(DEFAULT_TIMEOUT, |time| time.0) })
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
