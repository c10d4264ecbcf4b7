//! The one origin behind every proxy.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::{
    process::{self, Patience, Process},
    template,
};

/// The program that answers behind the proxies. It must cost less per request than a proxy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OriginKind {
    /// upstream-demo with one thread
    Demo,
    /// nginx with bodies from memory; it has no WebSocket
    Nginx,
}

/// The running origin.
pub(crate) struct Origin {
    pub(crate) kind: OriginKind,
    pub(crate) port: u16,
    _process: Process,
}

impl Origin {
    /// Starts the origin on `core` with its files in `directory`.
    pub(crate) fn start(wanted: Option<OriginKind>, binaries: &Path, directory: &Path, core: usize) -> Result<Self> {
        let demo = binaries.join("upstream-demo");
        let kind = wanted.unwrap_or(if demo.exists() { OriginKind::Demo } else { OriginKind::Nginx });
        let [port] = process::free_ports()?;
        let command = match kind {
            OriginKind::Demo if !demo.exists() => {
                bail!("there is no '{}'; build it with `make build`, or use --origin nginx", demo.display())
            }
            OriginKind::Demo => demo_command(&demo, port),
            OriginKind::Nginx => nginx_command(directory, port)?,
        };
        let process =
            Process::start("the origin", command, core, directory.join("origin.log"), &[port], Patience::Usual)?;
        Ok(Self { kind, port, _process: process })
    }

    /// How the report names it.
    pub(crate) fn title(&self) -> &'static str {
        match self.kind {
            OriginKind::Demo => "upstream-demo --threads 1",
            OriginKind::Nginx => "nginx, one worker (benches/peers/origin.conf)",
        }
    }
}

fn demo_command(demo: &Path, port: u16) -> Command {
    let mut command = Command::new(demo);
    command.args(["--threads", "1", "--port"]).arg(port.to_string());
    command
}

fn nginx_command(directory: &Path, port: u16) -> Result<Command> {
    let bodies = directory.join("bodies");
    fs::create_dir_all(&bodies).with_context(|| format!("cannot make '{}'", bodies.display()))?;
    for (name, size) in [("10k", 10 << 10), ("1m", 1 << 20)] {
        fs::write(bodies.join(name), vec![b'x'; size]).with_context(|| format!("cannot write a body '{name}'"))?;
    }
    let words = [("DIR", directory.display().to_string()), ("ORIGIN", port.to_string())];
    let config: PathBuf = directory.join("origin.conf");
    fs::write(&config, template::fill(include_str!("../peers/origin.conf"), &words)?)
        .with_context(|| format!("cannot write '{}'", config.display()))?;
    let mut command = Command::new("/usr/sbin/nginx");
    command.arg("-e").arg(directory.join("origin-start.log")).arg("-c").arg(config);
    Ok(command)
}
