//! What the program tells about itself: metrics, the access log and the program log.
//!
//! Every metric and log field has its name in `names`. Writing never happens on the caller's thread: `line_writer` owns
//! the targets.

pub mod access_log;
pub mod health;
pub mod line_writer;
pub mod metrics;
pub mod names;
mod process;
pub mod program_log;
pub mod worker_life;
pub mod worker_log;
pub mod worker_sample;
pub mod workers;

#[cfg(test)]
mod metrics_page;
