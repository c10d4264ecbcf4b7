//! The command line of the bench.

use std::{path::PathBuf, time::Duration};

use clap::Parser;

use crate::{origin::OriginKind, workload::Workload};

/// Measures Tidegate side by side with nginx and haproxy on this machine, over loopback.
#[derive(Debug, Parser)]
#[command(name = "bench")]
pub(crate) struct Options {
    /// Rounds; in each round every peer runs once
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=200))]
    rounds: u32,

    /// Seconds of one measured run
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,

    /// Measure only this workload; may be given several times
    #[arg(long, value_name = "WORKLOAD")]
    only: Vec<Workload>,

    /// Three rounds of one second: enough to see that it runs, not enough to believe
    #[arg(long)]
    quick: bool,

    /// Leave Tidegate out
    #[arg(long)]
    pub(crate) peers_only: bool,

    /// Who answers behind the proxies [default: demo, or nginx when upstream-demo is not built]
    #[arg(long)]
    pub(crate) origin: Option<OriginKind>,

    /// Leave the open-loop table out
    #[arg(long)]
    pub(crate) no_open_loop: bool,

    /// Folder of the built `tidegate` and `upstream-demo`
    #[arg(long, default_value = "target/release")]
    pub(crate) binaries: PathBuf,

    /// Folder for the results, in Markdown and JSON
    #[arg(long, default_value = "benches/out")]
    pub(crate) out: PathBuf,
}

impl Options {
    /// Rounds per table and workload.
    pub(crate) fn rounds(&self) -> u32 {
        if self.quick { self.rounds.min(3) } else { self.rounds }
    }

    /// How long one measured run takes, without warm-up.
    pub(crate) fn length(&self) -> Duration {
        Duration::from_secs(if self.quick { 1 } else { self.seconds })
    }

    /// The chosen workloads, in the order of the tables.
    pub(crate) fn workloads(&self) -> Vec<Workload> {
        Workload::ALL.into_iter().filter(|workload| self.only.is_empty() || self.only.contains(workload)).collect()
    }
}
