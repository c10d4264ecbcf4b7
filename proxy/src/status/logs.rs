//! Lines of workers in the words of the admin endpoint.

use crate::admin::follow::{Feed, Page};
use crate::admin::order::NotTaken;
use crate::admin::view::LogLine;
use crate::app::Program;
use crate::observe::access_log::Timestamps;
use crate::observe::worker_log::{Book, Choice, Line};
use std::sync::Arc;
use tokio::sync::watch;

/// Lines of a slot, of one upstream, or all.
pub(super) fn logs(program: &Program, upstream: Option<&str>, slot: Option<u32>) -> Result<Arc<dyn Feed>, NotTaken> {
    if let Some(name) = upstream {
        program.reloader().bridge.group(name)?;
    }
    let book = program.reloader().logs.workers().book();
    Ok(Arc::new(Logs { book, choice: Choice { upstream: upstream.map(str::to_owned), slot } }))
}

struct Logs {
    book: Arc<Book>,
    choice: Choice,
}

impl Feed for Logs {
    fn before_last(&self, count: usize) -> u64 {
        self.book.before_last(&self.choice, count)
    }

    fn after(&self, number: u64) -> Page {
        let found = self.book.after(&self.choice, number);
        let mut lines = Vec::new();
        let mut times = Timestamps::default();
        if found.has_gap {
            let line = "lines are missing here: they were forgotten before they were read".to_owned();
            push(&mut lines, &LogLine { stream: "tidegate".to_owned(), line, ..LogLine::default() });
        }
        for (number, line) in &found.lines {
            push(&mut lines, &view(*number, line, &mut times));
        }
        Page { lines, last: found.last }
    }

    fn news(&self) -> watch::Receiver<u64> {
        self.book.news()
    }
}

fn view(number: u64, line: &Line, times: &mut Timestamps) -> LogLine {
    let Line { time, upstream, slot, generation, pid, stream, text, continued, dropped: _ } = line;
    let mut stamp = Vec::new();
    times.push_precise(&mut stamp, *time);
    LogLine {
        number,
        time: String::from_utf8_lossy(&stamp).into_owned(),
        upstream: upstream.to_string(),
        slot: *slot,
        generation: *generation,
        pid: *pid,
        stream: (*stream).to_owned(),
        line: text.to_string(),
        continued: *continued,
    }
}

fn push(lines: &mut Vec<u8>, line: &LogLine) {
    // Plain text and numbers: they can always be written.
    if serde_json::to_writer(&mut *lines, line).is_ok() {
        lines.push(b'\n');
    }
}
