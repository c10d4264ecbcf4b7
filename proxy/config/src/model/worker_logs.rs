//! Where lines of workers go.

use std::path::PathBuf;
use std::time::Duration;

/// A file for lines of workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerLogFile {
    /// Absolute.
    pub path: PathBuf,
    /// It begins anew before it grows beyond that many bytes; 1 or more.
    pub max_size: u64,
    /// It begins anew when it is that old.
    pub max_age: Duration,
    /// How many old ones stay.
    pub keep: u32,
    /// Whether old ones are compressed with gzip.
    pub compress: bool,
    /// Shape of a line.
    pub format: WorkerLogFormat,
}

/// Shape of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerLogFormat {
    /// For people.
    Text,
    /// An object each.
    Json,
}
