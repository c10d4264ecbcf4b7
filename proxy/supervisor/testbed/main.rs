//! A supervising process for the tests, so that each test has one of its own to kill: the runtime folder is its
//! argument, commands come in on standard input and events and output go out on standard output, one JSON value a line.
//! The end of its input is a shutdown.

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_supervisor::{Command, Reexec, SupervisorOptions, guardian_main, shim_main, start};

fn main() -> ExitCode {
    let reexec = Reexec::default();
    let argument = std::env::args_os().nth(1).unwrap_or_default();
    if argument == reexec.shim_arg {
        return shim_main();
    }
    if argument == reexec.guardian_arg {
        return guardian_main();
    }
    let options = SupervisorOptions {
        runtime_dir: argument.into(),
        reexec,
        environment: std::env::vars_os().collect(),
        events: Box::new(|event| tell(&json!({ "event": event }))),
        output: Box::new(|line| tell(&json!({ "output": line }))),
        cpus: 2.0,
    };
    let handle = match start(options) {
        Ok(handle) => handle,
        Err(error) => {
            tell(&json!({ "error": format!("{error}: {:?}", std::error::Error::source(&error)) }));
            return ExitCode::FAILURE;
        }
    };
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        if line == "status" {
            tell(&json!({ "status": &*handle.status() }));
            continue;
        }
        match serde_json::from_str::<Command>(&line) {
            Ok(command) => handle.send(command),
            Err(error) => tell(&json!({ "error": error.to_string() })),
        }
    }
    handle.send(Command::Shutdown { deadline: Duration::from_secs(5) });
    ExitCode::from(u8::from(!handle.join_stopped(Duration::from_secs(10))))
}

fn tell(value: &Value) {
    let mut out = std::io::stdout().lock();
    // A test that reads no more has seen enough.
    let _ = writeln!(out, "{value}").and_then(|()| out.flush());
}
