//! A line of a worker's output, and how it is written.

use std::io::Write;
use std::sync::Arc;
use std::time::SystemTime;

use serde::de::IgnoredAny;

use crate::observe::access_log::{Timestamps, push_json, push_plain};
use crate::observe::names::field;

/// A line of a worker's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When it was read.
    pub time: SystemTime,
    /// Name of the worker's upstream.
    pub upstream: Arc<str>,
    /// Its slot; `None` for a line of `pre_start`.
    pub slot: Option<u32>,
    /// Its generation.
    pub generation: u64,
    /// Its process.
    pub pid: u32,
    /// `stdout` or `stderr`.
    pub stream: &'static str,
    /// Without its line break.
    pub text: Arc<str>,
    /// It goes on where the stream's last line ended.
    pub continued: bool,
    /// Lines that were dropped before this one, which then is ours and says so.
    pub dropped: u64,
}

impl Line {
    /// A line of ours that says how many of this worker's lines did not make it.
    pub(super) fn about_losses(&self, dropped: u64) -> Self {
        let text = format!("dropped {dropped} lines: they came faster than they could be written");
        Self { stream: "stderr", text: text.into(), continued: false, dropped, ..self.clone() }
    }
}

/// Shape of written lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `app/0 | line`
    Text,
    /// The same with the time in front, for a file.
    DatedText,
    /// An object.
    Json,
}

/// Adds a line with its line break.
pub(crate) fn push_line(out: &mut Vec<u8>, line: &Line, shape: Shape, times: &mut Timestamps) {
    if shape == Shape::Json {
        return push_object(out, line, times);
    }
    if shape == Shape::DatedText {
        times.push_precise(out, line.time);
        out.push(b' ');
    }
    let _ = match line.slot {
        Some(slot) => write!(out, "{}/{slot} | ", line.upstream),
        None => write!(out, "{}/pre_start | ", line.upstream),
    };
    push_plain(out, line.text.as_bytes());
    out.push(b'\n');
}

/// A line that is JSON itself stands in the object as it is, so that whoever reads it need not read JSON twice.
fn push_object(out: &mut Vec<u8>, line: &Line, times: &mut Timestamps) {
    let Line { time, upstream, slot, generation, pid, stream, text, continued: _, dropped: _ } = line;
    out.extend_from_slice(b"{\"timestamp\":\"");
    times.push_precise(out, *time);
    out.extend_from_slice(b"\",\"level\":\"INFO\",\"target\":\"worker\",");
    if is_object(text) {
        let _ = write!(out, "\"{}\":", field::JSON);
        out.extend_from_slice(text.as_bytes());
        out.push(b',');
    } else {
        out.extend_from_slice(b"\"message\":\"");
        push_json(out, text.as_bytes());
        out.extend_from_slice(b"\",");
    }
    let _ = write!(out, "\"{}\":\"", field::UPSTREAM);
    push_json(out, upstream.as_bytes());
    let slot = slot.map_or_else(|| "null".to_owned(), |slot| slot.to_string());
    let _ = write!(out, "\",\"{}\":{slot},\"{}\":{generation}", field::SLOT, field::GENERATION);
    let _ = writeln!(out, ",\"{}\":{pid},\"{}\":\"{stream}\"}}", field::PID, field::STREAM);
}

/// Whether a text is one whole object of JSON.
fn is_object(text: &str) -> bool {
    text.starts_with('{') && text.ends_with('}') && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::time::Duration;

    pub(in super::super) fn line(slot: u32, text: &str) -> Line {
        Line {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(7),
            upstream: Arc::from("app"),
            slot: Some(slot),
            generation: 2,
            pid: 42,
            stream: "stdout",
            text: Arc::from(text),
            continued: false,
            dropped: 0,
        }
    }

    fn written(text: &str, shape: Shape) -> String {
        let mut out = Vec::new();
        push_line(&mut out, &line(1, text), shape, &mut Timestamps::default());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_stands_behind_its_worker() {
        assert_eq!(written("hello \u{fc}", Shape::Text), "app/1 | hello \u{fc}\n");
        let mut out = Vec::new();
        push_line(&mut out, &Line { slot: None, ..line(0, "migrated") }, Shape::Text, &mut Timestamps::default());
        assert_eq!(out, b"app/pre_start | migrated\n");
        assert_eq!(written("hello", Shape::DatedText), "1970-01-01T00:00:00.007Z app/1 | hello\n");
    }

    #[test]
    fn an_object_has_the_line_as_text_or_as_the_json_it_is() {
        let read = |text: &str| -> serde_json::Value {
            let written = written(text, Shape::Json);
            assert_eq!(written.matches('\n').count(), 1);
            serde_json::from_str(&written).unwrap_or_else(|error| panic!("{error}: {written}"))
        };
        let plain = read("say \"hi\" \\x1b");
        let expected = serde_json::json!({
            "timestamp": "1970-01-01T00:00:00.007Z", "level": "INFO", "target": "worker", "message": "say \"hi\" \\x1b",
            "upstream": "app", "slot": 1, "generation": 2, "pid": 42, "stream": "stdout",
        });
        assert_eq!(plain, expected);
        assert_eq!(read("{\"a\": [1, {\"b\": null}]}")["json"], serde_json::json!({"a": [1, {"b": null}]}));
        for text in ["{", "{}}", "{\"a\": }", "[1]", "{\"a\": \"\\x1b\"}", "{a: 1}", "{} {}", "5", ""] {
            assert_eq!(read(text)["message"], text);
        }
        let deep = format!("{}1{}", "{\"a\":".repeat(3_000), "}".repeat(3_000));
        assert!(written(&deep, Shape::Json).contains(if is_object(&deep) { "\"json\"" } else { "\"message\"" }));
    }
}
