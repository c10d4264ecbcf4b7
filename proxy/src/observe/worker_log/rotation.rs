//! A log file that begins anew when it is large or old. Old ones are named by the time at which they ended, so that nothing has to
//! be renamed twice, and may be compressed by a thread of their own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use tidegate_config::model::WorkerLogFile;

use crate::observe::access_log::Timestamps;

/// The file that is written to.
#[derive(Debug)]
pub(super) struct RotatingFile {
    rule: WorkerLogFile,
    file: File,
    size: u64,
    /// When its first line was written.
    began: SystemTime,
    /// What the newest of the old ones is named by. Names rise, whatever the clock does: by them it is known which are older.
    last_end: SystemTime,
    /// After a rotation that failed: not before.
    retry_at: Option<SystemTime>,
    /// Shared with the thread that compresses.
    packing: Arc<Mutex<Packing>>,
    compressing: Option<JoinHandle<()>>,
}

/// Guarded by a lock, so that no file is left that ended just when the thread had seen the last one: it says that it ends, or
/// looks again.
#[derive(Debug, Default)]
struct Packing {
    /// A file has ended since the thread began to look: how many are to stay.
    due: Option<u32>,
    is_running: bool,
}

impl RotatingFile {
    /// Opens the file, to write behind what it has; makes it with 0640.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn open(rule: WorkerLogFile, now: SystemTime) -> io::Result<Self> {
        let (file, size, began) = open(&rule.path, now)?;
        remove_parts(&rule.path);
        let last_end = last_end(&rule.path);
        let packing = Arc::default();
        Ok(Self { rule, file, size, began, last_end, retry_at: None, packing, compressing: None })
    }

    /// The same with another file behind it.
    #[cfg(test)]
    pub(super) fn writing_to(self, file: File) -> Self {
        Self { file, ..self }
    }

    pub(super) fn path(&self) -> &Path {
        &self.rule.path
    }

    /// Another rule for the same path holds from the next line on.
    pub(super) fn configure(&mut self, rule: WorkerLogFile) {
        self.rule = rule;
    }

    /// Opens the path again, for who renames files himself. The old file stays in use when that fails.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn reopen(&mut self, now: SystemTime) -> io::Result<()> {
        (self.file, self.size, self.began) = open(&self.rule.path, now)?;
        Ok(())
    }

    /// Whether a line of this length goes into a new file; so many bytes that will be written before it do not.
    pub(super) fn is_full(&self, pending: usize, line: usize, now: SystemTime) -> bool {
        let there = self.size + pending as u64;
        let is_old = || self.size > 0 && now.duration_since(self.began).is_ok_and(|age| age >= self.rule.max_age);
        let is_large = || there > 0 && there + line as u64 > self.rule.max_size;
        self.retry_at.is_none_or(|at| at <= now) && (is_large() || is_old())
    }

    /// Begins a new file. The old one stays in use when that fails, for a while at least.
    ///
    /// # Errors
    /// When the folder does not allow it.
    pub(super) fn rotate(&mut self, now: SystemTime) -> io::Result<()> {
        self.retry_at = Some(now + RETRY);
        let end = now.max(self.last_end + ONE_NAME);
        fs::rename(&self.rule.path, named(&self.rule.path, end))?;
        self.last_end = end;
        self.reopen(now)?;
        self.retry_at = None;
        self.tidy();
        Ok(())
    }

    /// Writes whole lines.
    ///
    /// # Errors
    /// When they cannot be written; some may have been.
    pub(super) fn write(&mut self, bytes: &[u8], now: SystemTime) -> io::Result<()> {
        if self.size == 0 {
            self.began = now;
        }
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Removes what is too much, and has what is left compressed.
    fn tidy(&mut self) {
        prune(&self.rule.path, self.rule.keep);
        if !self.rule.compress {
            return;
        }
        let mut packing = self.packing.lock().unwrap_or_else(PoisonError::into_inner);
        packing.due = Some(self.rule.keep);
        if packing.is_running && self.compressing.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let (path, shared) = (self.rule.path.clone(), Arc::clone(&self.packing));
        let compress = move || {
            // Traffic comes first.
            let _ = rustix::process::setpriority_process(None, LEAST_PRIORITY);
            while let Some(keep) = due(&shared) {
                compress_all(&path, keep);
            }
        };
        // Without a thread they stay as they are until the next time.
        self.compressing = thread::Builder::new().name("log-compression".to_owned()).spawn(compress).ok();
        packing.is_running = self.compressing.is_some();
    }
}

/// What the thread has to do; it ends when that is nothing.
fn due(packing: &Mutex<Packing>) -> Option<u32> {
    let mut packing = packing.lock().unwrap_or_else(PoisonError::into_inner);
    packing.is_running = packing.due.is_some();
    packing.due.take()
}

fn compress_all(path: &Path, keep: u32) {
    for old in prune(path, keep).into_iter().filter(|old| !is_compressed(old)) {
        if let Err(error) = compress(&old) {
            tracing::warn!(path = %old.display(), %error, "log cannot be compressed and stays as it is");
        }
    }
    // Some may have been too much by now.
    prune(path, keep);
}

/// The file, its size, and when it was begun.
fn open(path: &Path, now: SystemTime) -> io::Result<(File, u64, SystemTime)> {
    // Looked at before it is opened, which would wait for who reads a pipe; and a device is not ours to rename.
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file, so it cannot begin anew"));
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
    let metadata = file.metadata()?;
    let size = metadata.len();
    // Where the file system does not know when it was made, its age counts from our start.
    let began = if size > 0 { metadata.created().unwrap_or(now) } else { now };
    Ok((file, size, began))
}

/// No old file was written to after that.
fn last_end(path: &Path) -> SystemTime {
    let modified = old_files(path).into_iter().filter_map(|old| fs::metadata(old).ok()?.modified().ok());
    modified.max().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// `app.log.20001010T135536.123Z`
fn named(path: &Path, time: SystemTime) -> PathBuf {
    let mut stamp = Vec::new();
    Timestamps::default().push_precise(&mut stamp, time);
    stamp.retain(|byte| !b"-:".contains(byte));
    with_ending(path, &format!(".{}", String::from_utf8_lossy(&stamp)))
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Removes all old files but the last ones, and returns those, oldest first.
fn prune(path: &Path, keep: u32) -> Vec<PathBuf> {
    let mut old = old_files(path);
    old.sort();
    let kept = old.split_off(old.len().saturating_sub(keep as usize));
    for path in old {
        if let Err(error) = unless_gone(fs::remove_file(&path)) {
            tracing::warn!(path = %path.display(), %error, "old log cannot be removed");
        }
    }
    kept
}

/// Files that were ours at this path, compressed or not; nothing that anybody else put beside them.
fn old_files(path: &Path) -> Vec<PathBuf> {
    siblings(path, |ending| is_stamp(ending.strip_suffix(GZIP).unwrap_or(ending)))
}

/// What a compression left that did not come to its end.
fn remove_parts(path: &Path) {
    for part in siblings(path, |ending| ending.strip_suffix(PART).is_some_and(is_stamp)) {
        let _ = fs::remove_file(part);
    }
}

/// Files whose name is that of `path` with a dot and such an ending.
fn siblings(path: &Path, is_wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let is_sibling =
        |candidate: &str| candidate.strip_prefix(name).and_then(|rest| rest.strip_prefix('.')).is_some_and(&is_wanted);
    let entries = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_sibling));
    entries.map(|entry| entry.path()).collect()
}

/// `20001010T135536.123Z`
fn is_stamp(text: &str) -> bool {
    let pattern = "00000000T000000.000Z";
    let fits = |(found, wanted): (char, char)| if wanted == '0' { found.is_ascii_digit() } else { found == wanted };
    text.len() == pattern.len() && text.chars().zip(pattern.chars()).all(fits)
}

fn is_compressed(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(GZIP.as_bytes())
}

/// The compressed file has its name only once it is whole.
fn compress(old: &Path) -> io::Result<()> {
    let Some(source) = unless_gone(File::open(old))? else { return Ok(()) };
    let part = with_ending(old, PART);
    let packed = pack(source, &part).and_then(|()| fs::rename(&part, with_ending(old, GZIP)));
    if packed.is_err() {
        let _ = fs::remove_file(&part);
    }
    packed?;
    unless_gone(fs::remove_file(old)).map(drop)
}

fn pack(mut source: File, target: &Path) -> io::Result<()> {
    let target = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(target)?;
    let mut encoder = GzEncoder::new(target, Compression::default());
    io::copy(&mut source, &mut encoder)?;
    encoder.finish().map(drop)
}

/// `None` for a file that was too much meanwhile.
fn unless_gone<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        done => done.map(Some),
    }
}

const GZIP: &str = ".gz";
const PART: &str = ".gz.part";
const LEAST_PRIORITY: i32 = 19;
/// What names differ by at least.
const ONE_NAME: Duration = Duration::from_millis(1);
/// After a rotation that failed.
const RETRY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use tidegate_config::model::WorkerLogFormat;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn rule(folder: &Path) -> WorkerLogFile {
        WorkerLogFile {
            path: folder.join("app.log"),
            max_size: 10,
            max_age: Duration::from_secs(100),
            keep: 2,
            compress: false,
            format: WorkerLogFormat::Text,
        }
    }

    /// Writes lines as the writer does, one millisecond apart.
    fn write(file: &mut RotatingFile, lines: &[&str]) {
        for (at, line) in lines.iter().enumerate() {
            let now = NOW + Duration::from_millis(at as u64);
            if file.is_full(0, line.len(), now) {
                file.rotate(now).unwrap();
            }
            file.write(line.as_bytes(), now).unwrap();
        }
    }

    fn contents(folder: &Path) -> Vec<(String, String)> {
        let entries = fs::read_dir(folder).unwrap().flatten();
        let read = |entry: fs::DirEntry| {
            (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap_or_default())
        };
        let mut found: Vec<_> = entries.map(read).collect();
        found.sort();
        found
    }

    fn named(name: &str, text: &str) -> (String, String) {
        (name.to_owned(), text.to_owned())
    }

    #[test]
    fn no_file_grows_beyond_its_size_and_the_last_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("app.log.1"), "somebody's").unwrap();
        let mut file = RotatingFile::open(rule(folder.path()), NOW).unwrap();
        write(
            &mut file,
            &["one\n", "two\n", "three\n", "four\n", "five\n", "a line that is too long by itself\n", "x\n"],
        );
        let expected = [
            named("app.log", "x\n"),
            named("app.log.1", "somebody's"),
            named("app.log.19700101T000000.005Z", "four\nfive\n"),
            named("app.log.19700101T000000.006Z", "a line that is too long by itself\n"),
        ];
        assert_eq!(contents(folder.path()), expected);
    }

    #[test]
    fn an_old_file_ends_with_the_first_line_after_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let long_ago = NOW - Duration::from_secs(1_000);
        let mut file = RotatingFile::open(WorkerLogFile { keep: 0, ..rule(folder.path()) }, long_ago).unwrap();
        assert!(!file.is_full(0, 1, NOW), "an empty one has no age");
        assert!(
            !file.is_full(0, 11, NOW) && !file.is_full(5, 5, NOW) && file.is_full(5, 6, NOW),
            "what will be written counts"
        );
        file.write(b"old\n", NOW).unwrap();
        assert!(!file.is_full(0, 1, NOW + Duration::from_secs(99)));
        let later = NOW + Duration::from_secs(100);
        assert!(file.is_full(0, 1, later));
        file.rotate(later).unwrap();
        assert!(!file.is_full(0, 1, later));
        assert_eq!(contents(folder.path()), [named("app.log", "")], "none is kept");
    }

    #[test]
    fn it_goes_on_behind_what_there_is() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("app.log"), "12345\n").unwrap();
        fs::write(folder.path().join("app.log.19700101T000000.000Z.gz.part"), "half").unwrap();
        let mut file = RotatingFile::open(rule(folder.path()), SystemTime::now()).unwrap();
        file.write(b"678\n", NOW).unwrap();
        assert!(file.is_full(0, 1, SystemTime::now()));
        assert_eq!(contents(folder.path()), [named("app.log", "12345\n678\n")]);
    }

    #[test]
    fn the_last_ones_stay_when_the_clock_stands_or_goes_back_or_we_begin_again() {
        let folder = tempfile::tempdir().unwrap();
        let texts = || -> Vec<String> { contents(folder.path()).into_iter().map(|(_, text)| text).collect() };
        let open = || RotatingFile::open(WorkerLogFile { keep: 3, ..rule(folder.path()) }, NOW).unwrap();
        let mut file = open();
        for (text, now) in [("a", 9), ("b", 9), ("c", 9), ("d", 9), ("e", 3), ("f", 9)] {
            let now = NOW + Duration::from_millis(now);
            file.write(text.as_bytes(), now).unwrap();
            file.rotate(now).unwrap();
        }
        assert_eq!(texts(), ["", "d", "e", "f"]);
        let mut file = open();
        file.write(b"g", NOW).unwrap();
        file.rotate(NOW).unwrap();
        assert_eq!(texts(), ["", "e", "f", "g"]);
    }

    #[test]
    fn old_files_are_compressed_and_pruned_like_others() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = RotatingFile::open(WorkerLogFile { compress: true, ..rule(folder.path()) }, NOW).unwrap();
        for (at, text) in ["a".repeat(50_000), "b".repeat(50_000), "c".repeat(50_000)].iter().enumerate() {
            file.write(text.as_bytes(), NOW).unwrap();
            file.rotate(NOW + Duration::from_millis(at as u64 + 1)).unwrap();
            file.compressing.take().unwrap().join().unwrap();
        }
        let names: Vec<String> = contents(folder.path()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["app.log", "app.log.19700101T000000.002Z.gz", "app.log.19700101T000000.003Z.gz"]);
        let packed = File::open(folder.path().join(&names[2])).unwrap();
        assert!(packed.metadata().unwrap().len() < 1_000);
        let mut text = String::new();
        flate2::read::GzDecoder::new(packed).read_to_string(&mut text).unwrap();
        assert_eq!(text, "c".repeat(50_000));
    }

    #[test]
    fn a_file_that_ends_while_others_are_compressed_is_compressed_too() {
        let folder = tempfile::tempdir().unwrap();
        let rule = WorkerLogFile { compress: true, keep: 3, ..rule(folder.path()) };
        let mut file = RotatingFile::open(rule, NOW).unwrap();
        for at in 1..=100 {
            file.write("a".repeat(5_000).as_bytes(), NOW).unwrap();
            file.rotate(NOW + Duration::from_millis(at)).unwrap();
        }
        file.compressing.take().unwrap().join().unwrap();
        let names: Vec<String> = contents(folder.path()).into_iter().map(|(name, _)| name).collect();
        let packed = |at: u32| format!("app.log.19700101T000000.{at:03}Z.gz");
        assert_eq!(names, ["app.log".to_owned(), packed(98), packed(99), packed(100)]);
    }

    #[test]
    fn a_rotation_that_fails_is_not_tried_with_every_line() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = RotatingFile::open(rule(folder.path()), NOW).unwrap();
        file.write(b"12345678901", NOW).unwrap();
        fs::remove_file(folder.path().join("app.log")).unwrap();
        assert!(file.is_full(0, 1, NOW) && file.rotate(NOW).is_err());
        assert!(!file.is_full(0, 1, NOW + Duration::from_secs(9)));
        file.write(b"more", NOW).unwrap();
        assert!(file.is_full(0, 1, NOW + Duration::from_secs(10)));
    }

    #[test]
    fn what_is_no_file_is_refused_without_waiting_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        for path in [pipe, "/dev/null".into(), folder.path().to_owned()] {
            let refused = RotatingFile::open(WorkerLogFile { path, ..rule(folder.path()) }, NOW).unwrap_err();
            assert!(refused.to_string().contains("no regular file"), "{refused}");
        }
    }
}
