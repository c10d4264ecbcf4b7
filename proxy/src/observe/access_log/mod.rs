//! The access log: one line for each exchange, formatted on its shard, written by a thread of its own.
//!
//! It is no tracing event, because a line must cost the request path no allocation and no lock that others hold. A shard
//! collects lines in a buffer and hands whole buffers to [`super::line_writer::LineWriter`].

mod escape;
mod format;
mod record;
mod shard_log;
mod timestamp;

pub use format::format_line;
pub use record::{ClientCertificate, Record, UpstreamRecord};
pub use shard_log::ShardLog;
pub use timestamp::Timestamps;

pub(crate) use escape::{push_json, push_plain};
