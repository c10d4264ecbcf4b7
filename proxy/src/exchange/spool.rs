//! Temporary files of bodies that are held for slow clients.
//!
//! One budget for all of them. Each body has a file of its own without a name, so nothing outlives the process and no
//! mistake in our books can mix two bodies. Reads and writes are done in place, on the shard's thread, in pieces of at
//! most 128 KiB: they are copies to and from the page cache, shorter than handing them to another thread and back.

use crate::edge::admission::Admission;
use crate::observe::metrics::SpoolMetrics;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A file that has been read to its end gives its place back when it has grown to this.
const WORTH_TRUNCATING: u64 = 1 << 20;

/// The folder of the files and what they may take together; shared by all shards.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: PathBuf,
    total: AtomicU64,
    used: AtomicU64,
    files: AtomicUsize,
    descriptors: AtomicUsize,
    admission: Arc<Admission>,
    metrics: SpoolMetrics,
}

/// Why bytes were not taken. The body is passed on as it comes instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// All files together are as large as they may be.
    Total,
    /// Connections need the descriptors that are left.
    Descriptors,
    /// The file system refused: full, over quota, broken, not there.
    Disk,
}

impl Denied {
    /// Word for metrics.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Descriptors => "descriptors",
            Self::Disk => "disk",
        }
    }
}

impl Spool {
    /// A spool that has no room before [`Self::set_limits`].
    pub(crate) fn new(dir: PathBuf, admission: Arc<Admission>, metrics: SpoolMetrics) -> Self {
        Self {
            dir,
            total: AtomicU64::new(0),
            used: AtomicU64::new(0),
            files: AtomicUsize::new(0),
            descriptors: AtomicUsize::new(0),
            admission,
            metrics,
        }
    }

    /// Bytes of all files, and descriptors that files and connections share. What is held already stays.
    pub(crate) fn set_limits(&self, total: u64, descriptors: usize) {
        self.total.store(total, Ordering::Relaxed);
        self.descriptors.store(descriptors, Ordering::Relaxed);
    }

    /// A body is passed on as it comes because of this.
    pub(crate) fn count_fallback(&self, denied: Denied) {
        self.metrics.fell_back(denied.reason());
        tracing::debug!(reason = denied.reason(), "a body is not held");
    }

    fn reserve(&self, bytes: u64) -> Result<(), Denied> {
        let total = self.total.load(Ordering::Relaxed);
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= total);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map_err(|_| Denied::Total)?;
        self.metrics.bytes.add(signed(bytes));
        Ok(())
    }

    fn release(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        self.metrics.bytes.sub(signed(bytes));
    }

    /// Counts a file in, unless a client's connection and the one to its endpoint may need the descriptor.
    fn reserve_file(&self) -> Result<(), Denied> {
        let descriptors = self.descriptors.load(Ordering::Relaxed);
        let connections = self.admission.open().saturating_mul(2);
        if self.files.fetch_add(1, Ordering::Relaxed) + connections >= descriptors {
            self.files.fetch_sub(1, Ordering::Relaxed);
            return Err(Denied::Descriptors);
        }
        Ok(())
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// One body's file; dropping it gives everything back.
#[derive(Debug)]
pub(crate) struct SpoolFile {
    spool: Arc<Spool>,
    file: File,
    /// Bytes it has reserved, which is as far as it was written.
    size: u64,
}

impl SpoolFile {
    /// An empty file.
    ///
    /// # Errors
    ///
    /// When there is no descriptor to spare or the folder takes no file.
    pub(crate) fn create(spool: &Arc<Spool>) -> Result<Self, Denied> {
        spool.reserve_file()?;
        match unnamed(&spool.dir) {
            Ok(file) => {
                spool.metrics.bodies.inc();
                Ok(Self { spool: spool.clone(), file, size: 0 })
            }
            Err(error) => {
                spool.files.fetch_sub(1, Ordering::Relaxed);
                tracing::warn!(path = %spool.dir.display(), %error, "no temporary file");
                Err(Denied::Disk)
            }
        }
    }

    /// Writes as much of `data` as can be written, at least one byte.
    ///
    /// # Errors
    ///
    /// When nothing was written.
    pub(crate) fn write(&mut self, data: &[u8], at: u64) -> Result<usize, Denied> {
        let end = at + data.len() as u64;
        if end > self.size {
            self.spool.reserve(end - self.size)?;
            self.size = end;
        }
        let mut written = 0;
        while written < data.len() {
            match self.file.write_at(&data[written..], at + written as u64) {
                Ok(0) => break,
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!(path = %self.spool.dir.display(), %error, "cannot write a temporary file");
                    break;
                }
            }
        }
        if written == 0 { Err(Denied::Disk) } else { Ok(written) }
    }

    /// Fills `buffer` with what stands at `at`.
    ///
    /// # Errors
    ///
    /// What the system said; what was written is lost then.
    pub(crate) fn read(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, at)
    }

    /// Everything in it has been read: gives its place back where that is worth a system call.
    pub(crate) fn clear(&mut self) {
        if self.size >= WORTH_TRUNCATING && self.file.set_len(0).is_ok() {
            self.spool.release(std::mem::take(&mut self.size));
        }
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        self.spool.release(self.size);
        self.spool.files.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A file without a name; where the file system cannot make one, a name is taken away at once.
fn unnamed(dir: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::openat(CWD, dir, flags | OFlags::TMPFILE, mode) {
        Ok(file) => Ok(file.into()),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => named_and_unlinked(dir, flags, mode),
        Err(error) => Err(error.into()),
    }
}

fn named_and_unlinked(dir: &Path, flags: OFlags, mode: Mode) -> io::Result<File> {
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    let path = dir.join(format!("body-{:016x}", u64::from_ne_bytes(random)));
    let file = rustix::fs::openat(CWD, &path, flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW, mode)?;
    rustix::fs::unlink(&path)?;
    Ok(file.into())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::observe::metrics::Metrics;

    /// A spool of `total` bytes in a folder of its own.
    pub(crate) fn spool(total: u64) -> (Arc<Spool>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Metrics::new("test").unwrap().spool();
        let spool = Arc::new(Spool::new(dir.path().to_owned(), Arc::default(), metrics));
        spool.set_limits(total, 10);
        (spool, dir)
    }

    #[test]
    fn files_share_one_budget_and_give_it_back() {
        let (spool, dir) = spool(100);
        let mut one = SpoolFile::create(&spool).unwrap();
        let mut other = SpoolFile::create(&spool).unwrap();
        assert_eq!(one.write(&[1; 60], 0), Ok(60));
        assert_eq!(other.write(&[2; 60], 0), Err(Denied::Total));
        assert_eq!(other.write(&[2; 40], 0), Ok(40));
        assert_eq!(one.write(&[3; 60], 0), Ok(60), "what it has it may write again");
        let mut read = [0; 60];
        one.read(&mut read, 0).unwrap();
        assert_eq!(read, [3; 60]);
        drop(one);
        assert_eq!(other.write(&[2; 60], 40), Ok(60));
        assert_eq!(spool.metrics.bytes.get(), 100);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "no file has a name");
        drop(other);
        assert_eq!((spool.used.load(Ordering::Relaxed), spool.files.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn files_leave_descriptors_to_connections() {
        let (spool, _dir) = spool(100);
        let files: Vec<_> = (0..10).map(|_| SpoolFile::create(&spool)).collect();
        assert!(files.iter().all(Result::is_ok));
        assert_eq!(SpoolFile::create(&spool).err(), Some(Denied::Descriptors));
    }

    #[test]
    fn a_file_system_without_unnamed_files_will_do() {
        let dir = tempfile::tempdir().unwrap();
        let file = named_and_unlinked(dir.path(), OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR).unwrap();
        file.write_all_at(b"x", 0).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
