//! Tidegate: edge proxy, load balancer and worker supervisor in one program.
//!
//! `app` is the one assembly; ARCHITECTURE.md is the map.

pub mod admin;
mod announce;
mod app;
pub mod cli;
mod config_source;
mod desk;
mod discovery;
mod edge;
mod exchange;
mod expansion;
mod folders;
mod health;
mod logs;
pub mod observe;
mod plane;
pub mod privileges;
mod reload;
mod shutdown;
mod signal;
mod snapshot;
mod status;
mod sticky;
pub mod tls;
mod upstream;
mod workers;

use crate::app::Ended;
use crate::cli::{Command, Exit, Host, Streams};
use crate::config_source::ConfigSource;
use crate::folders::Folders;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use tidegate_config::System;
use tidegate_supervisor::Reexec;

/// Version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The whole program; `main` does nothing else. Helpers of the supervisor come before anything that allocates threads,
/// reads files or prints.
#[must_use]
pub fn main() -> ExitCode {
    let reexec = Reexec::default();
    match std::env::args_os().nth(1) {
        Some(first) if first == reexec.shim_arg => return tidegate_supervisor::shim_main(),
        Some(first) if first == reexec.guardian_arg => return tidegate_supervisor::guardian_main(),
        _ => {}
    }
    // Fails only when one is installed, and nobody else installs one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    command_line().into()
}

fn command_line() -> Exit {
    let environment = System::detect();
    let host = Host {
        environment: &environment,
        state_folder: |server, environment| Folders::of(server, environment).state,
        standard_input: &|| std::io::read_to_string(std::io::stdin()),
    };
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr());
    let out_is_terminal = out.is_terminal();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let mut streams = Streams { out: &mut out, err: &mut err, out_is_terminal, no_color };
    match cli::parse(std::env::args_os(), &host, &mut streams) {
        Ok(Command::Operate(operation)) => operation.execute(&host, &mut streams),
        Ok(Command::Run(source)) => {
            // The program's logs need standard output for themselves.
            drop(out);
            run(source)
        }
        Err(exit) => exit,
    }
}

fn run(source: ConfigSource) -> Exit {
    let name = source.name();
    let (exit, text) = match app::run(source) {
        Ok(()) => return Exit::Fine,
        Err(Ended::Faulty(faults)) => (Exit::Config, format!("{faults}\n")),
        Err(Ended::Refused(refused)) => {
            let line = |line: &str| format!("{name}: {line}\n");
            (Exit::Config, refused.to_string().lines().map(line).collect())
        }
        Err(Ended::Start(error)) => (Exit::Config, format!("error: {name}: {error:#}\n")),
        Err(Ended::Runtime(error)) => (Exit::Runtime, format!("error: {error:#}\n")),
    };
    // Without standard error there is nobody to tell.
    let _ = std::io::stderr().write_all(text.as_bytes());
    exit
}
