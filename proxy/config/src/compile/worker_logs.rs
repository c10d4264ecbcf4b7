//! Where lines of workers go.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::file_path;
use crate::fault::Code;
use crate::model::{AccessLog, LogTarget, Upstream, WorkerLogFile, WorkerLogFormat};
use crate::raw;
use crate::report::Report;
use crate::tree::Spot;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Compiles `workers.logs`; `None` for the program log.
pub(super) fn worker_logs(raw: Option<raw::WorkerLogs>, spot: Spot<'_>, report: &mut Report) -> Option<WorkerLogFile> {
    let raw = match raw {
        None | Some(raw::WorkerLogs::Word(raw::WorkerLogsWord::Inherit)) => return None,
        Some(raw::WorkerLogs::File(raw)) => raw,
    };
    let raw::WorkerLogFile { file, max_size, max_age, keep, compress, format } = raw;
    let path = file.map(|file| file_path(&file, spot.key("file"), report))?;
    if path.file_name().is_none() {
        let problem = format!("\"{}\" names no file", path.display());
        report
            .fault(spot.key("file").span(), Code::BadValue, problem)
            .hint("write the path of a file, such as app.log");
    }
    Some(WorkerLogFile {
        path,
        max_size: max_size.map_or(100 << 20, |size| size.0),
        max_age: max_age.map_or(7 * DAY, |time| time.0),
        keep: keep.unwrap_or(5),
        compress: matches!(compress, Some(raw::Compression::Gzip)),
        format: match format {
            None | Some(raw::WorkerLogFormat::Text) => WorkerLogFormat::Text,
            Some(raw::WorkerLogFormat::Json) => WorkerLogFormat::Json,
        },
    })
}

/// A file has one writer, which cannot do as two of them say; and the access log's has another one.
pub(super) fn check_sharing(
    upstreams: &[(String, Upstream)],
    access: Option<&AccessLog>,
    upstreams_spot: Spot<'_>,
    report: &mut Report,
) {
    let mut known: BTreeMap<&PathBuf, (&str, &WorkerLogFile)> = BTreeMap::new();
    for (name, upstream) in upstreams {
        let Some(file) = &upstream.worker_log else { continue };
        let spot = upstreams_spot.key(name).key("workers").key("logs").key("file");
        if access.is_some_and(|access| access.to == LogTarget::File(file.path.clone())) {
            let problem = format!("{} is the access log", file.path.display());
            report.fault(spot.span(), Code::Conflict, problem).hint("give workers a file of their own");
        }
        match known.get(&file.path) {
            Some((first, other)) if *other != file => {
                let problem = format!("upstream \"{first}\" writes {} in another way", file.path.display());
                report
                    .fault(spot.span(), Code::Conflict, problem)
                    .hint("who shares a file says the same of it; or give each a file of its own");
            }
            Some(_) => {}
            None => {
                known.insert(&file.path, (name, file));
            }
        }
    }
}
