//! The demo worker: a small HTTP/1.1 application that does what a worker should, and misbehaves when asked to.
//!
//! It is what `conf/demo.yaml` supervises, what the integration tests kill and stall, and the origin of the bench.
//! It knows nothing of Tidegate: it listens where it is told to and answers. One thread by default, because that is
//! what the applications we stand in front of have: `/cpu` then blocks every other request of the worker.

mod answer;
mod app;
mod body;
mod flood;
mod listen;
mod number;
mod options;
mod page;
mod pattern;
mod server;
mod trouble;
mod websocket;

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
    thread,
};

use anyhow::{Context, Result};
use clap::Parser;
use tokio::runtime::{Builder, Runtime};

use crate::{app::App, listen::Listener, options::Options};

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<ExitCode> {
    thread::sleep(options.boot_delay);
    if options.fail_boot {
        say("error: this worker was told to fail at boot (--fail-boot)");
        return Ok(ExitCode::from(FAILED_BOOT));
    }
    let app = Arc::new(App::from_environment());
    runtime(options.threads)?.block_on(async {
        let listener = Listener::open(options).await?;
        say(&format!("upstream-demo {} listens on {listener}", app.identity));
        server::serve(listener, Arc::clone(&app), options.into()).await
    })?;
    say(&format!("upstream-demo {} stopped after {} requests", app.identity, app.served()));
    Ok(ExitCode::SUCCESS)
}

fn runtime(threads: usize) -> Result<Runtime> {
    let mut builder = if threads == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    builder.enable_all().build().context("cannot start the runtime")
}

/// Writes one line to the error stream; a closed one is no reason to stop serving.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

const FAILED_BOOT: u8 = 3;
