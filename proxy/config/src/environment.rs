//! What loading a configuration needs from outside: variables, files and the two folders that paths start from.
//!
//! Passed in, so that tests and the quick start choose it.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where a configuration gets variables and files from.
pub trait Environment {
    /// The value of an environment variable; `None` when it is not set or not UTF-8.
    fn variable(&self, name: &str) -> Option<String>;

    /// The text of a regular file of at most `most` bytes.
    ///
    /// # Errors
    /// When it cannot be read, is larger, is not UTF-8, or is anything but a regular file (opening a FIFO would wait
    /// for a writer).
    fn read(&self, path: &Path, most: u64) -> Result<String, ReadError>;

    /// The existing paths that match a pattern with `*`, `?` and `[...]`, sorted; names with a leading dot need one in
    /// the pattern.
    fn matches(&self, pattern: &str) -> Vec<PathBuf>;

    /// Folder that relative paths on the command line start from; absolute.
    fn current_folder(&self) -> PathBuf;

    /// Folder for sockets when the file names none; absolute.
    fn runtime_folder(&self) -> PathBuf;
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A folder, FIFO, socket or device.
    #[error("it is {0}, not a regular file")]
    NotRegular(&'static str),
    /// Larger than allowed.
    #[error("it is larger than {most} bytes")]
    TooLarge {
        /// The limit.
        most: u64,
    },
    /// Bytes that are no UTF-8.
    #[error("it is not UTF-8 text (line {line})")]
    NotUtf8 {
        /// Line of the first bad byte, from 1.
        line: usize,
    },
}

/// The real environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// Folder for sockets when the file names none; absolute.
    pub runtime_folder: PathBuf,
}

impl System {
    /// Chooses the runtime folder: the service manager's `$RUNTIME_DIRECTORY`, else `/run/tidegate` for root, else `$XDG_RUNTIME_DIR/tidegate`, else
    /// `/tmp/tidegate-<uid>`.
    #[must_use]
    pub fn detect() -> Self {
        // The owner of /proc/self is our effective user; this asks for no more than the standard library.
        let user = std::fs::metadata("/proc/self").map_or(0, |metadata| metadata.uid());
        if let Some(given) = service_folder("RUNTIME_DIRECTORY") {
            return Self { runtime_folder: given };
        }
        let session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
        let runtime_folder = match (user, session) {
            (0, _) => PathBuf::from("/run/tidegate"),
            (_, Some(session)) => session.join("tidegate"),
            (user, None) => PathBuf::from(format!("/tmp/tidegate-{user}")),
        };
        Self { runtime_folder }
    }
}

/// A folder that the service manager made for us; of several the first.
fn service_folder(name: &str) -> Option<PathBuf> {
    let value = std::env::var(name).ok()?;
    value.split(':').map(PathBuf::from).find(|path| path.is_absolute())
}

impl Environment for System {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn read(&self, path: &Path, most: u64) -> Result<String, ReadError> {
        // Looked at before opening: opening a FIFO blocks. Looked at again after: it may have been replaced.
        regular(&std::fs::metadata(path)?)?;
        let file = File::open(path)?;
        regular(&file.metadata()?)?;
        let mut bytes = Vec::new();
        file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most {
            return Err(ReadError::TooLarge { most });
        }
        String::from_utf8(bytes).map_err(|error| {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            ReadError::NotUtf8 { line: good.iter().filter(|&&byte| byte == b'\n').count() + 1 }
        })
    }

    fn matches(&self, pattern: &str) -> Vec<PathBuf> {
        let options = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        let Ok(paths) = glob::glob_with(pattern, options) else { return Vec::new() };
        let mut found: Vec<PathBuf> = paths.filter_map(Result::ok).collect();
        found.sort();
        found
    }

    fn current_folder(&self) -> PathBuf {
        std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"))
    }

    fn runtime_folder(&self) -> PathBuf {
        self.runtime_folder.clone()
    }
}

fn regular(metadata: &Metadata) -> Result<(), ReadError> {
    if metadata.is_file() {
        return Ok(());
    }
    Err(ReadError::NotRegular(if metadata.is_dir() { "a folder" } else { "a pipe, socket or device" }))
}
