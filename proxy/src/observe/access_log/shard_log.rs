//! The access log of one shard: lines gather in a buffer that is handed over when it is full or the shard's timer says.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_config::model::AccessFormat;

use super::super::line_writer::LineSink;
use super::format::format_line;
use super::record::Record;
use super::timestamp::Timestamps;

/// A buffer this long is handed over.
const FULL: usize = 32 * 1024;
/// Room for the line that goes over it.
const CAPACITY: usize = FULL + 4 * 1024;

/// The access log of one shard.
#[derive(Debug, Default)]
pub struct ShardLog {
    /// Guards the buffer against the timer and a reload; a request is the only other user, on the same thread.
    state: Mutex<State>,
    /// Whether there is a target; a copy for those who would gather a record for nothing.
    active: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    target: Option<Target>,
    buffer: Vec<u8>,
    lines: u64,
    times: Timestamps,
}

#[derive(Debug)]
struct Target {
    format: AccessFormat,
    sink: LineSink,
}

impl ShardLog {
    /// Lines from now on have this format and go to this sink; `None` writes none. What was gathered goes to the old one.
    pub fn configure(&self, target: Option<(AccessFormat, LineSink)>) {
        let mut state = self.state();
        state.hand_over();
        self.active.store(target.is_some(), Ordering::Relaxed);
        state.target = target.map(|(format, sink)| Target { format, sink });
    }

    /// Whether a line would be written: ask before gathering a record.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// Adds the line of an exchange. Waits for nobody.
    pub fn record(&self, record: &Record<'_>) {
        let mut state = self.state();
        let State { target: Some(target), buffer, times, lines } = &mut *state else { return };
        if buffer.capacity() == 0 {
            buffer.reserve_exact(CAPACITY);
        }
        format_line(buffer, &target.format, record, times);
        *lines += 1;
        if buffer.len() >= FULL {
            state.hand_over();
        }
    }

    /// Hands over what was gathered; for the shard's timer.
    pub fn flush(&self) {
        self.state().hand_over();
    }

    /// Hands over what was gathered and waits for room, for at most `deadline`; for shutdown, when the shard has stopped.
    pub fn drain(&self, deadline: Duration) {
        let mut state = self.state();
        if let Some((sink, buffer, lines)) = state.take() {
            sink.send_waiting(buffer, lines, deadline);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn hand_over(&mut self) {
        if let Some((sink, buffer, lines)) = self.take() {
            sink.send(buffer, lines);
        }
    }

    /// The gathered lines with the way they go; `None` without any.
    fn take(&mut self) -> Option<(&LineSink, Vec<u8>, u64)> {
        let target = self.target.as_ref()?;
        let lines = mem::take(&mut self.lines);
        (lines > 0).then(|| (&target.sink, mem::take(&mut self.buffer), lines))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::access_log::ClientCertificate;
    use crate::observe::line_writer::LineWriter;
    use crate::observe::line_writer::tests::losses;
    use std::path::Path;
    use std::time::SystemTime;
    use tidegate_config::model::{AccessPart, AccessVariable, LogTarget};

    const SOON: Duration = Duration::from_secs(10);

    fn record(log: &ShardLog, id: u128) {
        log.record(&Record {
            time: SystemTime::UNIX_EPOCH,
            remote_addr: None,
            method: b"GET",
            target: b"/",
            path: b"/",
            host: b"",
            protocol: "HTTP/1.1",
            scheme: "http",
            status: 200,
            body_bytes_sent: 0,
            request_body_bytes: 0,
            elapsed: Duration::ZERO,
            request_id: id,
            upstream: None,
            site: "",
            route: "",
            reason: None,
            certificate: ClientCertificate::NoTls,
            field: &|_| None,
        });
    }

    fn writer(path: &Path) -> LineWriter {
        LineWriter::start("t", &LogTarget::File(path.to_owned()), 64, losses()).unwrap()
    }

    fn ids() -> AccessFormat {
        AccessFormat::Template(vec![AccessPart::Variable(AccessVariable::RequestId)])
    }

    #[test]
    fn every_line_of_every_shard_arrives_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let writer = writer(&path);
        std::thread::scope(|scope| {
            for shard in 0..4_u128 {
                let sink = writer.sink();
                scope.spawn(move || {
                    let log = ShardLog::default();
                    log.configure(Some((ids(), sink)));
                    (0..5_000).for_each(|number| record(&log, shard * 5_000 + number));
                    log.drain(SOON);
                });
            }
        });
        assert!(writer.close(SOON));
        let text = std::fs::read_to_string(path).unwrap();
        let mut seen: Vec<u128> = text.lines().map(|line| u128::from_str_radix(line, 16).unwrap()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..20_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_new_target_gets_new_lines_and_none_gets_none() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| folder.path().join(name));
        let writers = [writer(&paths[0]), writer(&paths[1])];
        let log = ShardLog::default();
        record(&log, 1);
        assert!(!log.is_active());
        log.configure(Some((ids(), writers[0].sink())));
        assert!(log.is_active());
        record(&log, 2);
        log.flush();
        record(&log, 3);
        log.configure(Some((ids(), writers[1].sink())));
        record(&log, 4);
        log.configure(None);
        assert!(!log.is_active());
        record(&log, 5);
        log.flush();
        for (writer, path, wanted) in
            writers.into_iter().zip(paths).zip([&[2, 3][..], &[4]]).map(|((w, p), x)| (w, p, x))
        {
            assert!(writer.close(SOON));
            let text = std::fs::read_to_string(path).unwrap();
            let seen: Vec<u128> = text.lines().map(|line| u128::from_str_radix(line, 16).unwrap()).collect();
            assert_eq!(seen, wanted);
        }
    }
}
