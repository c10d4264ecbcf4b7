//! The command line of the bench.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};

use crate::{origin::OriginKind, workload::Workload};

/// Measures Tidegate side by side with nginx and haproxy on this machine, over loopback.
#[derive(Debug, Parser)]
#[command(name = "bench")]
pub(crate) struct Options {
    /// Rounds; in each round every peer runs once
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=200))]
    rounds: u32,

    /// Seconds of one measured run; each peer has two in a round, closed loop and open loop
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,

    /// Measure only this workload; may be given several times
    #[arg(long, value_name = "WORKLOAD")]
    only: Vec<Workload>,

    /// Do only this part; may be given several times
    #[arg(long, value_name = "PART")]
    part: Vec<Part>,

    /// Print the workloads and parts, and measure nothing
    #[arg(long)]
    pub(crate) list: bool,

    /// Three rounds, and a short look at memory: enough to see that it runs, not enough to believe
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

    /// Idle connections whose memory is measured
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    idle_connections: u32,

    /// Seconds after which memory is looked at again, once idle connections have left
    #[arg(long, default_value_t = 60)]
    leave_seconds: u64,

    /// Folder of valgrind's tools. Tidegate needs those of 3.24 or later, which know process descriptors
    #[arg(long, default_value = "/usr/libexec/valgrind")]
    pub(crate) valgrind: PathBuf,

    /// Folder of the built `tidegate` and `upstream-demo`
    #[arg(long, default_value = "target/release")]
    pub(crate) binaries: PathBuf,

    /// Folder for the results, in Markdown and JSON
    #[arg(long, default_value = "benches/out")]
    pub(crate) out: PathBuf,
}

/// What can be measured of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Rates, latencies and processor time
    Load,
    /// Instructions of user space per request, by callgrind
    Instructions,
    /// System calls per request, by strace
    Syscalls,
    /// Memory of idle connections (the workloads do not matter)
    Memory,
}

impl Options {
    /// Rounds per table and workload.
    pub(crate) fn rounds(&self) -> u32 {
        if self.quick { self.rounds.min(3) } else { self.rounds }
    }

    /// How long one measured run takes, without warm-up.
    pub(crate) fn length(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// The chosen workloads, in the order of the tables.
    pub(crate) fn workloads(&self) -> Vec<Workload> {
        Workload::ALL.into_iter().filter(|workload| self.only.is_empty() || self.only.contains(workload)).collect()
    }

    /// Whether a part was chosen. Memory belongs to no workload, so that choosing one leaves it out.
    pub(crate) fn has(&self, part: Part) -> bool {
        let by_default = part != Part::Memory || self.only.is_empty();
        if self.part.is_empty() { by_default } else { self.part.contains(&part) }
    }

    pub(crate) fn idle_connections(&self) -> u32 {
        if self.quick { self.idle_connections.min(1000) } else { self.idle_connections }
    }

    /// How long a peer may take to give memory back.
    pub(crate) fn leave(&self) -> Duration {
        Duration::from_secs(if self.quick { self.leave_seconds.min(5) } else { self.leave_seconds })
    }
}
