//! `make bench`: load through Tidegate and its peers, side by side on one machine.
//!
//! The proxy under test has one core to itself; the load generator (h2load) and the one origin share another. Peers
//! take turns in rounds, each run with a freshly started process, so that a slow minute of the machine hits all of
//! them. It does not judge correctness beyond the size of bodies, and talks to loopback only. How to read the output
//! is written in `benches/RESULTS.md`.

mod cores;
mod cpu;
mod load;
mod machine;
mod options;
mod origin;
mod pace;
mod peer;
mod process;
mod report;
mod session;
mod stats;
mod template;
mod workload;

use std::io::Write;

use anyhow::{Context, Result};
use clap::Parser;

use crate::{options::Options, session::Session};

fn main() -> Result<()> {
    let options = Options::parse();
    let report = Session::prepare(&options)?.measure()?;
    let markdown = report.markdown();
    let written = report.write(&options.out, &markdown)?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "\n{markdown}").context("cannot print the tables")?;
    for path in written {
        writeln!(stdout, "written: {}", path.display()).context("cannot print the tables")?;
    }
    Ok(())
}
