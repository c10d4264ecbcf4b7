//! Output of real processes through real pipes.

use serde_json::Value;

use crate::bed::{Bed, pool};

fn lines(bed: &Bed, stream: &str) -> Vec<(String, bool)> {
    bed.all(|line| {
        let output = line.get("output").filter(|output| output["stream"] == stream)?;
        Some((output["line"].as_str()?.to_owned(), output["continued"].as_bool()?))
    })
}

#[test]
fn lines_are_framed_escaped_and_tagged() {
    let mut bed = Bed::new();
    bed.set(&[pool(1, "printf 'a\\033[1mb\\nno end' >&2; head -c 40000 /dev/zero | tr '\\0' x; echo; echo done")]);
    let worker = bed.ready(0);
    bed.printed("done");
    bed.printed("no end");
    let stdout = lines(&bed, "stdout");
    let shape: Vec<(usize, bool)> = stdout.iter().map(|(line, continued)| (line.len(), *continued)).collect();
    assert_eq!(shape, [(16384, false), (16384, true), (7232, true), (4, false)]);
    assert_eq!(lines(&bed, "stderr"), [("a\\x1b[1mb".to_owned(), false), ("no end".to_owned(), false)]);
    let first = bed.wait("output", |line| line.get("output").cloned());
    let tags = [&first["pool"], &first["slot"], &first["generation"], &first["pid"]];
    assert_eq!(tags, [&worker.id["pool"], &worker.id["slot"], &worker.id["generation"], &Value::from(worker.pid)]);
}

#[test]
fn a_flood_neither_holds_up_the_worker_nor_gets_through() {
    let mut bed = Bed::new();
    bed.set(&[pool(1, "yes 'a line of some length' | head -n 1000000")]);
    bed.ready(0);
    let dropped = bed.wait("dropped lines", |line| {
        let text = line.pointer("/output/line")?.as_str()?.strip_prefix("dropped ")?;
        text.strip_suffix(" lines: more than 10000 in one second")?.parse::<u64>().ok()
    });
    assert!(dropped > 10_000, "{dropped}");
}
