//! Output of one worker: bytes to lines, a memory of the last ones, a cap on the rate. Pure: bytes and the time come in,
//! lines go out. Whoever reads the pipes never waits for anybody, so a worker is never held up by its own log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Which of the two pipes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

/// One line of a worker's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputLine {
    /// Name of the worker's pool.
    pub pool: Arc<str>,
    /// Its slot; `None` for a command that runs once for a generation.
    pub slot: Option<u32>,
    /// Its generation.
    pub generation: u64,
    /// Its main process; the line may come from one of its descendants.
    pub pid: u32,
    /// Which pipe.
    pub stream: Stream,
    /// The text without its end of line: valid UTF-8, control characters and other bytes escaped as `\x1b`.
    pub line: String,
    /// It goes on where the stream's last line ended: that one was cut at 16 KiB, or stood unfinished for 200 ms.
    pub continued: bool,
    /// Lines that were dropped before this one, which then is ours and says so; else 0.
    pub dropped: u64,
}

/// What [`Output`] hands on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) stream: Stream,
    pub(crate) text: String,
    pub(crate) continued: bool,
    pub(crate) dropped: u64,
}

pub(crate) type LineSink<'a> = &'a mut dyn FnMut(Line);

/// Both streams of one worker.
#[derive(Debug, Default)]
pub(crate) struct Output {
    stdout: Framer,
    stderr: Framer,
    last: Last,
    rate: Rate,
}

impl Output {
    /// Takes bytes as they were read.
    pub(crate) fn push(&mut self, stream: Stream, bytes: &[u8], now: Duration, sink: LineSink<'_>) {
        let Self { stdout, stderr, last, rate } = self;
        let framer = match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        };
        framer.push(bytes, now, &mut |line, continued| {
            last.keep(line);
            rate.pass(stream, line, continued, now, sink);
        });
    }

    /// Hands on what has waited long enough.
    pub(crate) fn flush(&mut self, now: Duration, sink: LineSink<'_>) {
        let Self { stdout, stderr, last, rate } = self;
        for (stream, framer) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr)] {
            if framer.due().is_some_and(|due| due <= now) {
                framer.flush(false, &mut |line, continued| {
                    last.keep(line);
                    rate.pass(stream, line, continued, now, sink);
                });
            }
        }
        rate.turn(now, sink);
    }

    /// Hands on everything that is left; nothing comes after it.
    pub(crate) fn finish(&mut self, now: Duration, sink: LineSink<'_>) {
        let Self { stdout, stderr, last, rate } = self;
        for (stream, framer) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr)] {
            framer.flush(true, &mut |line, continued| {
                last.keep(line);
                rate.pass(stream, line, continued, now, sink);
            });
        }
        rate.report(sink);
    }

    /// When [`Output::flush`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        [self.stdout.due(), self.stderr.due(), self.rate.due()].into_iter().flatten().min()
    }

    /// The last lines, oldest first, those that were dropped among them.
    pub(crate) fn tail(&self) -> Vec<String> {
        self.last.0.iter().map(|line| printable(line)).collect()
    }
}

/// The last lines as they came: of a flood few are ever shown.
#[derive(Debug, Default)]
struct Last(VecDeque<Vec<u8>>);

impl Last {
    fn keep(&mut self, line: &[u8]) {
        let mut oldest = if self.0.len() == REMEMBERED { self.0.pop_front().unwrap_or_default() } else { Vec::new() };
        oldest.clear();
        oldest.extend_from_slice(line);
        self.0.push_back(oldest);
    }
}

/// Bytes of one stream to lines.
#[derive(Debug, Default)]
struct Framer {
    buffer: Vec<u8>,
    /// When the unfinished line began to wait; `None` when there is none to hand on.
    waiting_since: Option<Duration>,
    /// A part of the present line was handed on already.
    is_inside: bool,
}

impl Framer {
    fn push(&mut self, bytes: &[u8], now: Duration, sink: &mut dyn FnMut(&[u8], bool)) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = &rest[..end];
            rest = &rest[end + 1..];
            if self.buffer.is_empty() && !self.is_inside && line.len() <= LONGEST_LINE {
                // Whole lines, which most are, need not be put together.
                sink(line.strip_suffix(b"\r").unwrap_or(line), false);
                self.waiting_since = None;
                continue;
            }
            self.extend(line, sink);
            self.end_line(sink);
        }
        if rest.is_empty() {
            return;
        }
        self.extend(rest, sink);
        self.waiting_since = self.waiting_since.or(Some(now)).filter(|_| !self.buffer.is_empty());
    }

    fn extend(&mut self, bytes: &[u8], sink: &mut dyn FnMut(&[u8], bool)) {
        self.buffer.extend_from_slice(bytes);
        while self.buffer.len() > LONGEST_LINE {
            let cut = whole_characters(&self.buffer[..LONGEST_LINE]);
            self.emit(cut, sink);
        }
    }

    fn end_line(&mut self, sink: &mut dyn FnMut(&[u8], bool)) {
        if self.buffer.last() == Some(&b'\r') {
            self.buffer.pop();
        }
        // The end of a line that was handed on before is no line of its own.
        if !self.buffer.is_empty() || !self.is_inside {
            self.emit(self.buffer.len(), sink);
        }
        self.is_inside = false;
        self.waiting_since = None;
    }

    fn flush(&mut self, is_last: bool, sink: &mut dyn FnMut(&[u8], bool)) {
        let length = if is_last { self.buffer.len() } else { whole_characters(&self.buffer) };
        if length > 0 {
            self.emit(length, sink);
        }
        self.waiting_since = None;
    }

    fn emit(&mut self, length: usize, sink: &mut dyn FnMut(&[u8], bool)) {
        sink(&self.buffer[..length], self.is_inside);
        self.buffer.drain(..length);
        self.is_inside = true;
    }

    fn due(&self) -> Option<Duration> {
        self.waiting_since.map(|since| since + PATIENCE)
    }
}

/// Length without a character at the end whose last bytes are still to come; never 0 unless that is all there is.
fn whole_characters(bytes: &[u8]) -> usize {
    let Some(last) = bytes.utf8_chunks().last() else { return 0 };
    let tail = last.invalid();
    let needed = match tail.first() {
        Some(0xc2..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf4) => 4,
        _ => 0,
    };
    if tail.len() < needed { bytes.len() - tail.len() } else { bytes.len() }
}

/// Text that cannot move a terminal's cursor or forge a log line.
pub(crate) fn printable(bytes: &[u8]) -> String {
    if bytes.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
        // All of it is; the check above is the cheap one.
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\t' => out.push('\t'),
                '\0'..='\x1f' | '\x7f' => out.push_str(&format!("\\x{:02x}", u32::from(character))),
                '\u{80}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => out.extend(character.escape_unicode()),
                _ => out.push(character),
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// Lines handed on within the present second.
#[derive(Debug, Default)]
struct Rate {
    began: Duration,
    passed: u32,
    dropped: u64,
}

impl Rate {
    fn pass(&mut self, stream: Stream, line: &[u8], continued: bool, now: Duration, sink: LineSink<'_>) {
        self.turn(now, sink);
        if self.passed < LINES_PER_SECOND {
            self.passed += 1;
            sink(Line { stream, text: printable(line), continued, dropped: 0 });
        } else {
            self.dropped += 1;
        }
    }

    fn turn(&mut self, now: Duration, sink: LineSink<'_>) {
        if now.saturating_sub(self.began) >= SECOND {
            self.report(sink);
            (self.began, self.passed) = (now, 0);
        }
    }

    fn report(&mut self, sink: LineSink<'_>) {
        if self.dropped > 0 {
            let dropped = std::mem::take(&mut self.dropped);
            let text = format!("dropped {dropped} lines: more than {LINES_PER_SECOND} in one second");
            sink(Line { stream: Stream::Stderr, text, continued: false, dropped });
        }
    }

    fn due(&self) -> Option<Duration> {
        (self.dropped > 0).then(|| self.began + SECOND)
    }
}

const LONGEST_LINE: usize = 16 * 1024;
const PATIENCE: Duration = Duration::from_millis(200);
/// With how many a failure is reported.
const REMEMBERED: usize = 50;
const LINES_PER_SECOND: u32 = 10_000;
const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(5);

    /// Pushes the chunks to stdout, 1 ms apart, and ends the stream.
    fn lines(chunks: &[&[u8]]) -> Vec<(String, bool)> {
        let mut output = Output::default();
        let mut lines = Vec::new();
        let mut sink = |line: Line| lines.push((line.text, line.continued));
        for (number, chunk) in (0..).zip(chunks) {
            output.push(Stream::Stdout, chunk, START + Duration::from_millis(number), &mut sink);
        }
        output.finish(START, &mut sink);
        lines
    }

    #[track_caller]
    fn check(chunks: &[&[u8]], expected: &[&str]) {
        let lines = lines(chunks);
        assert!(lines.iter().all(|(_, continued)| !continued), "{lines:?}");
        let texts: Vec<&str> = lines.iter().map(|(line, _)| line.as_str()).collect();
        assert_eq!(texts, expected);
    }

    #[test]
    fn lines_are_framed_however_they_arrive() {
        check(&[b"one\ntwo\n"], &["one", "two"]);
        check(&[b"o", b"ne\nt", b"wo", b"\n"], &["one", "two"]);
        check(&[b"one\r\n\r\nlast"], &["one", "", "last"]);
        check(&[b"\n\n"], &["", ""]);
        check(&[], &[]);
    }

    #[test]
    fn bytes_that_are_no_text_are_escaped() {
        check(&[b"a\x1b[31mred\x07\x00\tx\n"], &["a\\x1b[31mred\\x07\\x00\tx"]);
        check(&[b"\xff\xfeok \xc3\xa9\xc3\n"], &["\\xff\\xfeok \u{e9}\\xc3"]);
        check(&["a\u{9b}b\u{2028}c\n".as_bytes()], &["a\\u{9b}b\\u{2028}c"]);
        check(&[b"\xe2\x82", b"\xac\n"], &["\u{20ac}"]);
    }

    #[test]
    fn a_long_line_is_cut_between_characters_and_marked() {
        let text = "\u{20ac}".repeat(11_000) + "\nnext\n";
        let lines = lines(&[text.as_bytes()]);
        let flags: Vec<bool> = lines.iter().map(|(_, continued)| *continued).collect();
        assert_eq!(flags, [false, true, true, false]);
        assert!(lines.iter().all(|(line, _)| line.len() <= LONGEST_LINE && !line.contains('\\')));
        let joined: String = lines[..3].iter().map(|(line, _)| line.as_str()).collect();
        assert_eq!(joined, "\u{20ac}".repeat(11_000));
    }

    #[test]
    fn an_unfinished_line_is_handed_on_after_200_ms() {
        let mut output = Output::default();
        let mut lines = Vec::new();
        output.push(Stream::Stderr, b"waiting \xe2\x82", START, &mut |line| lines.push((line.text, line.continued)));
        assert_eq!(output.deadline(), Some(START + PATIENCE));
        output.flush(START + PATIENCE / 2, &mut |line| lines.push((line.text, line.continued)));
        assert_eq!(lines, []);
        output.flush(START + PATIENCE, &mut |line| lines.push((line.text, line.continued)));
        assert_eq!(lines, [("waiting ".to_owned(), false)]);
        assert_eq!(output.deadline(), None);
        output.push(Stream::Stderr, b"\xac.\n\n", START + SECOND, &mut |line| {
            lines.push((line.text, line.continued));
        });
        assert_eq!(lines[1..], [("\u{20ac}.".to_owned(), true), (String::new(), false)]);
    }

    #[test]
    fn a_flood_is_cut_and_counted_but_its_end_is_remembered() {
        let mut output = Output::default();
        let mut lines = Vec::new();
        let flood: String = (0..25_000).map(|number| format!("{number}\n")).collect();
        output.push(Stream::Stdout, flood.as_bytes(), START, &mut |line| lines.push(line));
        assert_eq!(lines.len(), LINES_PER_SECOND as usize);
        assert_eq!(output.deadline(), Some(START + SECOND));
        output.flush(START + SECOND, &mut |line| lines.push(line));
        let text = "dropped 15000 lines: more than 10000 in one second".to_owned();
        let expected = Line { stream: Stream::Stderr, text, continued: false, dropped: 15_000 };
        assert_eq!(lines.last(), Some(&expected));
        let tail = output.tail();
        assert_eq!((tail.len(), &tail[48..]), (REMEMBERED, &["24998".to_owned(), "24999".to_owned()][..]));
    }
}
