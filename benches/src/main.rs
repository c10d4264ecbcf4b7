//! `make bench`: load through Tidegate and its peers, side by side on one machine.
//!
//! The proxy under test has one core to itself; the load generator and the one origin share another. Peers take turns
//! in rounds, each run with a freshly started process, so that a slow minute of the machine hits all of them. Beside the
//! load it counts instructions and system calls per request, and weighs idle connections. It talks to loopback only. How
//! to read the output is written in `benches/RESULTS.md`.

mod callgrind;
mod cores;
mod cpu;
mod instructions;
mod log_reader;
mod machine;
mod memory;
mod options;
mod origin;
mod pace;
mod peer;
mod process;
mod report;
mod session;
mod stats;
mod syscalls;
mod template;
mod workload;

use std::io::Write;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};

use crate::{
    options::{Options, Part},
    session::Session,
    workload::Workload,
};

fn main() -> Result<()> {
    let options = Options::parse();
    if options.list {
        return list();
    }
    let report = Session::prepare(&options)?.measure()?;
    let markdown = report.markdown();
    let written = report.write(&options.out, &markdown)?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "\n{markdown}").context("cannot print the tables")?;
    for path in written {
        writeln!(stdout, "written: {}", path.display()).context("cannot print the tables")?;
    }
    if report.errors() > 0 || !report.failures.is_empty() {
        bail!("{} errors, {} failures: the report is not whole", report.errors(), report.failures.len());
    }
    Ok(())
}

fn list() -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    for workload in Workload::ALL {
        writeln!(stdout, "--only {:12} {}", workload.name(), workload.title()).context("cannot print the list")?;
    }
    for part in Part::value_variants() {
        if let Some(value) = part.to_possible_value() {
            let help = value.get_help().map(ToString::to_string).unwrap_or_default();
            writeln!(stdout, "--part {:12} {help}", value.get_name()).context("cannot print the list")?;
        }
    }
    Ok(())
}
