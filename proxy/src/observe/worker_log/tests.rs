//! The whole way of a line, and what happens when its target takes none.

use std::fs::OpenOptions;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use prometheus::Registry;
use tidegate_config::environment::System;
use tidegate_config::model::{LogFormat, LogLevel, LogTarget, Model};

use super::line::tests::line;
use super::*;
use crate::observe::line_writer::tests::losses;
use crate::observe::program_log::{Options, ProgramLog};

const SOON: Duration = Duration::from_secs(10);

/// The log beside a program log that goes to a file.
fn started(program: &Path) -> (ProgramLog, WorkerLog) {
    let target = LogTarget::File(program.to_owned());
    let (log, _) = ProgramLog::start(LogLevel::Info, LogFormat::Text, Options::default(), &target, losses()).unwrap();
    let metrics = WorkerMetrics::new(&Registry::new()).unwrap();
    let workers = WorkerLog::start(log.worker_lines(), metrics).unwrap();
    (log, workers)
}

/// A model with two upstreams; `logs` is what the workers of "app" have for it.
fn model(folder: &Path, logs: &str) -> Model {
    let text = format!(
        "listeners: [{{ address: \"127.0.0.1:1\" }}]\nupstreams:\n  app: {{ workers: {{ command: [a, \"{{socket}}\"]{logs} }} }}\n"
    );
    let path = folder.join("site.yaml");
    std::fs::write(&path, text).unwrap();
    let environment = System { runtime_folder: folder.to_owned() };
    tidegate_config::load(&path, &environment).unwrap_or_else(|faults| panic!("{faults}")).model
}

fn dropped(log: &WorkerLog) -> u64 {
    log.metrics.log_lines_dropped_so_far("app", 0)
}

#[test]
fn lines_go_where_the_configuration_says_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let (program, log) = started(&folder.path().join("program"));
    let to = |logs: &str| {
        let model = model(folder.path(), logs);
        let prepared = log.prepare(&model).unwrap();
        log.apply(&model, prepared);
    };
    log.take(line(0, "before"));
    to(", logs: { file: one.log }");
    log.take(line(0, "first"));
    to(", logs: { file: two.log, format: json }");
    log.take(line(1, "{\"second\": 2}"));
    to("");
    log.take(line(0, "after"));
    log.finish();
    assert!(program.flush(SOON));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(read("program"), "app/0 | before\napp/0 | after\n");
    assert_eq!(read("one.log"), "1970-01-01T00:00:00.007Z app/0 | first\n");
    assert!(read("two.log").contains("\"json\":{\"second\": 2}"), "{}", read("two.log"));
    assert_eq!(log.book().after(&Choice::default(), 0).lines.len(), 4, "all are remembered");
}

#[test]
fn a_file_that_cannot_be_opened_refuses_the_change() {
    let folder = tempfile::tempdir().unwrap();
    let (_program, log) = started(&folder.path().join("program"));
    let refused = log.prepare(&model(folder.path(), ", logs: { file: no/app.log }")).unwrap_err();
    assert!(refused.starts_with("upstreams.app.workers.logs: cannot open ") && refused.contains("create its folder"));
}

#[test]
fn a_target_that_takes_nothing_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let _reader = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let (_program, log) = started(&pipe);
    let long = "x".repeat(10_000);
    let begun = Instant::now();
    for _ in 0..500 {
        log.take(line(0, &long));
    }
    log.take(line(1, "of a quiet one"));
    assert!(begun.elapsed() < SOON / 2, "{:?}", begun.elapsed());
    // 5 MB came, of which 1 MiB waits; some more is on its way.
    assert!((350..450).contains(&dropped(&log)), "{}", dropped(&log));
    assert_eq!(log.metrics.log_lines_dropped_so_far("app", 1), 0, "a flood costs others nothing");
    let begun = Instant::now();
    log.finish();
    assert!(begun.elapsed() < CLOSE + SOON / 2, "{:?}", begun.elapsed());
}

#[test]
fn lines_that_come_together_fill_as_many_files_as_they_need() {
    let folder = tempfile::tempdir().unwrap();
    let (_program, log) = started(&folder.path().join("program"));
    let model = model(folder.path(), ", logs: { file: app.log, max_size: 200B, keep: 100 }");
    let prepared = log.prepare(&model).unwrap();
    log.apply(&model, prepared);
    for number in 0..100 {
        log.take(line(0, &format!("this is line {number:03}")));
    }
    log.finish();
    let entries = std::fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.to_string_lossy().contains("app.log")).collect();
    // The old ones by their time, then the one in use.
    files.sort_by_key(|path| (path.ends_with("app.log"), path.clone()));
    let texts: Vec<String> = files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    assert!(texts.iter().all(|text| text.len() <= 200 && text.ends_with('\n')), "{texts:?}");
    let whole = texts.concat();
    let numbers: Vec<usize> = whole.lines().map(|line| line[line.len() - 3..].parse().unwrap()).collect();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_full_disk_is_counted_and_the_next_line_stands_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = WorkerMetrics::new(&Registry::new()).unwrap();
    let rule = files(&model(folder.path(), ", logs: { file: app.log }")).next().unwrap().1.clone();
    let file = RotatingFile::open(rule.clone(), SystemTime::now()).unwrap();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let file = file.writing_to(full);
    let writer = Writer::start("t", Target::File(Box::new(file), rule.format), metrics.clone()).unwrap();
    let inbox = writer.inbox();
    inbox.push(line(0, "lost"));
    let until = Instant::now() + SOON;
    while metrics.log_errors().get() == 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!((metrics.log_errors().get(), metrics.log_lines_dropped_so_far("app", 0)), (1, 1));
    // What logrotate does when it has made room.
    writer.reopen();
    inbox.push(line(0, "kept"));
    writer.ask_to_end(until);
    assert!(writer.join(until));
    assert_eq!(std::fs::read_to_string(rule.path).unwrap(), "\n1970-01-01T00:00:00.007Z app/0 | kept\n");
}
