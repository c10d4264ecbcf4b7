//! A program the bench starts on one core, waits for, and stops again.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::cores;

/// A running program; dropping it stops the program.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    limit: Duration,
}

/// How long a program may take to start and to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    Usual,
    /// It runs under an instrument that makes it a hundred times slower.
    Instrumented,
}

impl Process {
    /// Starts `command` on `core`, its output going to `log`, and waits until it accepts on every one of `ports`.
    pub(crate) fn start(
        name: &str,
        command: Command,
        core: usize,
        log: PathBuf,
        ports: &[u16],
        patience: Patience,
    ) -> Result<Self> {
        let limit = match patience {
            Patience::Usual => Duration::from_secs(15),
            Patience::Instrumented => Duration::from_secs(90),
        };
        let child = spawn(name, &command, core, &log)?;
        let mut process = Self { name: name.to_owned(), child, log, limit };
        let deadline = Instant::now() + limit;
        for port in ports {
            process.await_port(*port, deadline)?;
        }
        Ok(process)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the program has printed `text` so far.
    pub(crate) fn has_said(&self, text: &str) -> bool {
        fs::read_to_string(&self.log).is_ok_and(|log| log.contains(text))
    }

    /// The end of what the program printed, for an error message.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    fn await_port(&mut self, port: u16, deadline: Instant) -> Result<()> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        while TcpStream::connect_timeout(&address, POLL).is_err() {
            if let Some(status) = self.child.try_wait().context("cannot ask for the state of a process")? {
                bail!("{} ended before it was ready: {status}\n{}", self.name, self.last_words());
            }
            if Instant::now() > deadline {
                bail!("{} does not accept on {address} after {:?}\n{}", self.name, self.limit, self.last_words());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Asks the program to end with `signal`, waits until it has ended, and kills it when it takes too long.
    pub(crate) fn stop(&mut self, signal: Signal) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let _ = kill_process(Pid::from_child(&self.child), signal);
        let deadline = Instant::now() + self.limit;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop(Signal::TERM);
    }
}

/// Runs a program to its end on `core` and returns what it printed.
pub(crate) fn output(name: &str, mut command: Command, core: usize) -> Result<String> {
    #[expect(clippy::disallowed_methods, reason = "the bench is a program of its own, beside the supervisor")]
    let output = cores::on_core(core, || command.stdin(Stdio::null()).output().context("cannot start"))
        .with_context(|| format!("cannot run {name}; is it installed?"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{name} failed: {}\n{stdout}{stderr}", output.status);
    }
    Ok(if stdout.is_empty() { stderr.into_owned() } else { stdout })
}

/// Ports of loopback that nobody listens on. Held together until all are known, so that they differ.
pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let listeners: Vec<TcpListener> =
        (0..N).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect::<Result<_, _>>().context("no free port")?;
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr().context("no free port")?.port();
    }
    Ok(ports)
}

/// Starts a program that the kernel stops when the bench dies, however it dies: an nginx left behind would spoil every
/// later measurement.
fn spawn(name: &str, command: &Command, core: usize, log: &Path) -> Result<Child> {
    let output = File::create(log).with_context(|| format!("cannot write '{}'", log.display()))?;
    let errors = output.try_clone().context("cannot share the log file")?;
    let mut bound = Command::new("setpriv");
    bound.args(["--pdeathsig", "TERM", "--"]).arg(command.get_program()).args(command.get_args());
    bound.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    bound.stdin(Stdio::null()).stdout(output).stderr(errors);
    #[expect(clippy::disallowed_methods, reason = "the bench is a program of its own, beside the supervisor")]
    cores::on_core(core, || bound.spawn().context("cannot start setpriv"))
        .with_context(|| format!("cannot run {name}; is it installed?"))
}

const POLL: Duration = Duration::from_millis(20);
