//! Where lines of workers go, as it is written.

use schemars::JsonSchema;
use serde::Deserialize as DeriveDeserialize;

use super::{PositiveSize, PositiveTime};

/// Where lines that workers print go.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum WorkerLogs {
    /// A word.
    Word(WorkerLogsWord),
    /// A file of their own.
    File(WorkerLogFile),
}

/// No file of their own.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WorkerLogsWord {
    /// To the program log.
    Inherit,
}

/// A file for lines of workers. It begins anew when it is large or old, and SIGUSR1 opens it again. Upstreams may share one.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorkerLogFile {
    /// Path, relative to this file's folder. Required.
    #[schemars(required, length(min = 1))]
    pub(crate) file: Option<String>,
    /// The file begins anew before it grows beyond that. Default: 100MiB. Unit: size.
    #[schemars(extend("default" = "100MiB"))]
    pub(crate) max_size: Option<PositiveSize>,
    /// The file begins anew with the first line after that time. Default: 7d. Unit: duration.
    #[schemars(extend("default" = "7d"))]
    pub(crate) max_age: Option<PositiveTime>,
    /// How many old files stay, named by the time of their last line. Default: 5. Unit: files.
    #[schemars(range(min = 0, max = 10_000), extend("default" = 5))]
    pub(crate) keep: Option<u32>,
    /// How old files are compressed: `gzip`, or `off`. Default: off.
    #[schemars(extend("default" = "off"))]
    pub(crate) compress: Option<Compression>,
    /// Shape of a line: `text`, or `json` for an object each, in which a line that is JSON itself stands as it is.
    /// Default: text.
    #[schemars(extend("default" = "text"))]
    pub(crate) format: Option<WorkerLogFormat>,
}

/// How old log files are compressed.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Compression {
    /// Not at all.
    Off,
    /// As gzip does.
    Gzip,
}

/// Shape of a line.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WorkerLogFormat {
    /// For people.
    Text,
    /// An object each.
    Json,
}
