//! Arguments of `deploy`.

use clap::Args;

use super::{Endpoint, OutputFormat};

#[derive(Debug, Args)]
pub(in crate::cli) struct Deploy {
    #[command(flatten)]
    pub(in crate::cli) endpoint: Endpoint,
    /// Only the workers of this upstream [default: of all]
    #[arg(value_name = "UPSTREAM")]
    pub(in crate::cli) upstream: Option<String>,
    /// Wait for the end, and tell how far it is
    #[arg(long)]
    pub(in crate::cli) wait: bool,
    /// Show the last deploys instead
    #[arg(long, conflicts_with_all = ["wait"])]
    pub(in crate::cli) last: bool,
    /// Show what a deploy would do, and whether memory is there for it, instead
    #[arg(long, conflicts_with_all = ["wait", "last"])]
    pub(in crate::cli) dry_run: bool,
    /// How to print what it comes to
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) format: OutputFormat,
    /// Seconds to wait for the end
    #[arg(long, value_name = "SECONDS", default_value_t = 900, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub(in crate::cli) timeout: u64,
}
