//! The command line: what was asked for, and the commands that need no running program in this process.
//!
//! `run` and `serve` become a [`ConfigSource`] for the program; everything else is an [`Operation`] that executes here and
//! writes only to the streams it is given.

mod admin_endpoint;
mod arguments;
mod check;
mod deploy;
mod events;
mod locate;
mod logs;
mod operate;
mod orders;
mod serve;
mod workers;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use tidegate_config::environment::Environment;
use tidegate_config::model::Server;

pub use crate::config_source::ConfigSource;

pub use arguments::OutputFormat;
use arguments::{Arguments, Subcommand};

/// Where a command reads and writes.
pub struct Streams<'a> {
    /// Data.
    pub out: &'a mut dyn Write,
    /// Everything else.
    pub err: &'a mut dyn Write,
    /// Whether `out` is a terminal.
    pub out_is_terminal: bool,
    /// Whether `NO_COLOR` is set to something.
    pub no_color: bool,
}

/// What commands need of the machine.
pub struct Host<'a> {
    /// Variables, files and folders.
    pub environment: &'a dyn Environment,
    /// The state folder of a configuration.
    pub state_folder: fn(&Server, &dyn Environment) -> PathBuf,
    /// Reads all of standard input.
    pub standard_input: &'a dyn Fn() -> std::io::Result<String>,
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// As asked.
    Fine,
    /// The configuration is wrong or the start failed; trying again changes nothing.
    Config,
    /// The command line is wrong.
    Usage,
    /// It ran, and failed.
    Runtime,
    /// A deploy failed half way, and the mix of old and new stays.
    Frozen,
    /// Another deploy took its place.
    Superseded,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Fine => 0,
            Exit::Config => 1,
            Exit::Usage => 2,
            Exit::Runtime => 3,
            Exit::Frozen => 4,
            Exit::Superseded => 5,
        })
    }
}

/// What was asked for.
#[derive(Debug)]
pub enum Command {
    /// Run the program.
    Run(ConfigSource),
    /// Do this here and end.
    Operate(Operation),
}

/// A command that needs no running program in this process.
#[derive(Debug)]
pub struct Operation(Subcommand);

impl Operation {
    /// Does it. What cannot be written to the streams is lost.
    #[must_use]
    pub fn execute(self, host: &Host<'_>, streams: &mut Streams<'_>) -> Exit {
        let done = match self.0 {
            Subcommand::Check(check) => check::check(&check, host, streams),
            Subcommand::Schema => operate::schema(streams),
            Subcommand::Reload(reload) => operate::reload(&reload, host, streams),
            Subcommand::Status(status) => operate::status(&status, host, streams),
            Subcommand::Stop(stop) => operate::stop(&stop, host, streams),
            Subcommand::Workers(workers) => workers::workers(&workers, host, streams),
            Subcommand::Restart(restart) => orders::restart(&restart, host, streams),
            Subcommand::Drain(drain) => orders::drain(&drain, host, streams),
            Subcommand::Scale(scale) => orders::scale(&scale, host, streams),
            Subcommand::Deploy(deploy) => deploy::deploy(&deploy, host, streams),
            Subcommand::Events(events) => events::events(&events, host, streams),
            Subcommand::Logs(logs) => logs::logs(&logs, host, streams),
            Subcommand::Version => operate::version(streams),
            Subcommand::Completion(completion) => operate::completion(&completion, streams, &mut Arguments::command()),
            Subcommand::Run(_) | Subcommand::Serve(_) => Ok(Exit::Usage),
        };
        // Standard output was closed: `tidegate status | head` is no failure.
        done.unwrap_or_else(|error| match error.kind() {
            std::io::ErrorKind::BrokenPipe => Exit::Fine,
            _ => Exit::Runtime,
        })
    }
}

/// Understands the command line, the program's name first.
///
/// # Errors
/// How the process ends when there is nothing left to do: after a usage error (2), help or the version (0). What there is
/// to say has been written.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    host: &Host<'_>,
    streams: &mut Streams<'_>,
) -> Result<Command, Exit> {
    let parsed = Arguments::try_parse_from(arguments).map_err(|error| tell(&error, streams))?;
    let subcommand = match parsed.into_subcommand() {
        Ok(Some(subcommand)) => subcommand,
        Ok(None) => {
            let _ = write!(streams.err, "{}", Arguments::command().render_help());
            return Err(Exit::Usage);
        }
        Err(problem) => return Err(usage(&problem, streams)),
    };
    match subcommand {
        Subcommand::Run(run) => {
            let source = locate::source(run.config.config.as_deref(), host);
            source.map(Command::Run).map_err(|problem| failed(&problem, streams))
        }
        Subcommand::Serve(serve) => match serve::source(&serve) {
            Ok(quick) => {
                for note in quick.notes {
                    let _ = writeln!(streams.err, "tidegate: {note}");
                }
                Ok(Command::Run(quick.source))
            }
            Err(problem) => Err(usage(&problem, streams)),
        },
        operation => Ok(Command::Operate(Operation(operation))),
    }
}

/// Prints help, a version or a usage error where it belongs.
fn tell(error: &clap::Error, streams: &mut Streams<'_>) -> Exit {
    let text = error.render();
    if error.use_stderr() {
        let _ = write!(streams.err, "{text}");
        return Exit::Usage;
    }
    let _ = write!(streams.out, "{text}");
    Exit::Fine
}

fn usage(problem: &str, streams: &mut Streams<'_>) -> Exit {
    let _ = writeln!(streams.err, "error: {problem}");
    Exit::Usage
}

fn failed(problem: &str, streams: &mut Streams<'_>) -> Exit {
    let _ = writeln!(streams.err, "error: {problem}");
    Exit::Config
}

#[cfg(test)]
mod tests;
