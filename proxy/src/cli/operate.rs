//! The commands that ask the running program, and the small ones that ask nobody.

use std::io;
use std::time::{Duration, Instant};

use super::arguments::{Completion, OutputFormat, Reload, Status, Stop};
use super::{Exit, Host, Streams, admin_endpoint};
use crate::admin::client::ClientError;
use crate::admin::table::{self, Colours};
use crate::admin::view::ReloadReport;
use http::StatusCode;
use tidegate_config::Faults;

/// For an answer that needs no work.
pub(super) const AT_ONCE: Duration = Duration::from_secs(10);
/// How often `stop` looks whether the program is gone.
const LOOK: Duration = Duration::from_millis(100);

pub(super) fn status(status: &Status, host: &Host<'_>, streams: &mut Streams<'_>) -> io::Result<Exit> {
    let client = match admin_endpoint::client(&status.endpoint, host, streams) {
        Ok(client) => client,
        Err(problem) => return wrong(&problem, streams),
    };
    let answer = match client.status(AT_ONCE) {
        Ok(answer) => answer,
        Err(error) => return unreachable(&error, streams),
    };
    match status.format {
        OutputFormat::Json => writeln!(streams.out, "{}", serde_json::to_string_pretty(&answer)?)?,
        OutputFormat::Text => {
            let colours = if streams.out_is_terminal && !streams.no_color { Colours::On } else { Colours::Off };
            table::print(&answer, colours, streams.out)?;
        }
    }
    Ok(Exit::Fine)
}

pub(super) fn reload(reload: &Reload, host: &Host<'_>, streams: &mut Streams<'_>) -> io::Result<Exit> {
    // The running program would refuse the same file for the same faults, and cannot be found by it.
    // Variables may be set for it only, so that it is asked wherever it can be found.
    let faults = admin_endpoint::faults(&reload.endpoint, host);
    if let Some(faults) = faults.filter(|_| !admin_endpoint::default_answers(host)) {
        return refused_here(&faults, reload.format, streams);
    }
    let client = match admin_endpoint::client(&reload.endpoint, host, streams) {
        Ok(client) => client,
        Err(problem) => return wrong(&problem, streams),
    };
    let report = match client.reload(Duration::from_secs(reload.timeout)) {
        Ok(report) => report,
        Err(error) => return unreachable(&error, streams),
    };
    match reload.format {
        OutputFormat::Json => writeln!(streams.out, "{}", serde_json::to_string_pretty(&report)?)?,
        OutputFormat::Text => print_report(&report, streams)?,
    }
    Ok(if report.applied { Exit::Fine } else { Exit::Config })
}

/// A file with faults: the program that runs was not even asked.
fn refused_here(faults: &Faults, format: OutputFormat, streams: &mut Streams<'_>) -> io::Result<Exit> {
    let message = "reload refused, nothing changed: the file has faults";
    match format {
        OutputFormat::Json => {
            let faults = faults.as_slice().iter().map(From::from).collect();
            let report = ReloadReport { message: message.to_owned(), faults, ..ReloadReport::default() };
            writeln!(streams.out, "{}", serde_json::to_string_pretty(&report)?)?;
        }
        OutputFormat::Text => writeln!(streams.err, "{faults}\n{message}")?,
    }
    Ok(Exit::Config)
}

/// What changes and the result; faults where errors go.
fn print_report(report: &ReloadReport, streams: &mut Streams<'_>) -> io::Result<()> {
    for fault in &report.faults {
        writeln!(streams.err, "{}", fault.text.trim_end())?;
    }
    for change in &report.changes {
        writeln!(streams.out, "{change}")?;
    }
    let ReloadReport { applied, generation, message, .. } = report;
    let message = if message.is_empty() { String::new() } else { format!(": {message}") };
    if *applied {
        return writeln!(streams.out, "reload applied, generation {generation}{message}");
    }
    writeln!(streams.err, "reload refused, generation {generation} stays in use{message}")
}

pub(super) fn stop(stop: &Stop, host: &Host<'_>, streams: &mut Streams<'_>) -> io::Result<Exit> {
    let client = match admin_endpoint::client(&stop.endpoint, host, streams) {
        Ok(client) => client,
        Err(problem) => return wrong(&problem, streams),
    };
    match client.stop(AT_ONCE) {
        // The other end went away while we asked: it may be stopping already, which the wait below finds out.
        Ok(()) | Err(ClientError::Connection { .. }) => {}
        Err(error) => return unreachable(&error, streams),
    }
    if stop.no_wait {
        writeln!(streams.out, "stopping")?;
        return Ok(Exit::Fine);
    }
    let timeout = Duration::from_secs(stop.timeout);
    let until = Instant::now() + timeout;
    // The program closes its admin endpoint last.
    while !matches!(client.status(AT_ONCE), Err(ClientError::NoSocket(_) | ClientError::NobodyListens(_))) {
        if Instant::now() >= until {
            writeln!(streams.err, "error: still stopping after {} seconds", stop.timeout)?;
            return Ok(Exit::Runtime);
        }
        std::thread::sleep(LOOK);
    }
    writeln!(streams.out, "stopped")?;
    Ok(Exit::Fine)
}

pub(super) fn schema(streams: &mut Streams<'_>) -> io::Result<Exit> {
    writeln!(streams.out, "{:#}", tidegate_config::schema())?;
    Ok(Exit::Fine)
}

pub(super) fn version(streams: &mut Streams<'_>) -> io::Result<Exit> {
    writeln!(streams.out, "tidegate {}", env!("CARGO_PKG_VERSION"))?;
    Ok(Exit::Fine)
}

pub(super) fn completion(
    completion: &Completion,
    streams: &mut Streams<'_>,
    command: &mut clap::Command,
) -> io::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(completion.shell, command, "tidegate", &mut script);
    streams.out.write_all(&script)?;
    Ok(Exit::Fine)
}

pub(super) fn wrong(problem: &str, streams: &mut Streams<'_>) -> io::Result<Exit> {
    writeln!(streams.err, "error: {problem}")?;
    Ok(Exit::Usage)
}

pub(super) fn unreachable(error: &ClientError, streams: &mut Streams<'_>) -> io::Result<Exit> {
    if let ClientError::Answer { status: StatusCode::NOT_FOUND, error, .. } = error {
        return wrong(error, streams);
    }
    writeln!(streams.err, "error: {error}")?;
    Ok(Exit::Runtime)
}
