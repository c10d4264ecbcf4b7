//! Changes of where lines of workers go: from the next line on.

use super::settings::Settings;
use crate::model::WorkerLogFile;
use crate::units::format_size;

pub(super) fn worker_logs(old: Option<&WorkerLogFile>, new: Option<&WorkerLogFile>, settings: &mut Settings) {
    let path = |file: Option<&WorkerLogFile>| {
        file.map_or_else(|| "inherit".to_owned(), |file| file.path.display().to_string())
    };
    let (Some(old), Some(new)) = (old, new) else {
        if old != new {
            settings.add("workers.logs", &path(old), &path(new));
        }
        return;
    };
    let WorkerLogFile { path: _, max_size, max_age, keep, compress, format } = old;
    settings.compare("workers.logs.file", &path(Some(old)), &path(Some(new)), Clone::clone);
    settings.compare("workers.logs.max_size", max_size, &new.max_size, |&size| format_size(size));
    settings.time("workers.logs.max_age", max_age, &new.max_age);
    settings.compare("workers.logs.keep", keep, &new.keep, ToString::to_string);
    settings.compare("workers.logs.compress", compress, &new.compress, |compress| {
        if *compress { "gzip" } else { "off" }.to_owned()
    });
    settings.debug("workers.logs.format", format, &new.format);
}
