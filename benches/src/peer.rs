//! The proxies that are measured: how each is configured, started and named.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde::Serialize;

use crate::{
    callgrind::Callgrind,
    cores::{self, Cores},
    cpu,
    log_reader::LogReader,
    process::{self, Patience, Process},
    template,
    workload::{Features, HOST, Protocol},
};

/// One program under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Peer {
    Tidegate,
    Nginx,
    Haproxy,
}

/// What every peer is given.
pub(crate) struct Setting {
    pub(crate) binaries: PathBuf,
    pub(crate) directory: PathBuf,
    pub(crate) origin: u16,
    pub(crate) cores: Cores,
}

/// A peer that accepts requests.
pub(crate) struct Running {
    peer: Peer,
    process: Process,
    ports: Ports,
    directory: PathBuf,
    /// Where haproxy's access log goes. It ends after the process, which would complain.
    reader: Option<LogReader>,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    plain: u16,
    h2c: u16,
    tls: u16,
    metrics: u16,
}

impl Peer {
    pub(crate) const ALL: [Self; 3] = [Self::Tidegate, Self::Nginx, Self::Haproxy];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tidegate => "tidegate",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }

    /// The first line the program prints when asked for its version.
    pub(crate) fn version(self, setting: &Setting) -> Result<String> {
        let mut command = Command::new(self.program(setting));
        command.arg(if self == Self::Tidegate { "--version" } else { "-v" });
        let printed = process::output(self.name(), command, setting.cores.load)?;
        Ok(printed.lines().next().unwrap_or_default().trim().to_owned())
    }

    /// Starts the peer on its core with ports of its own, and waits until it accepts.
    pub(crate) fn start(self, setting: &Setting, features: Features) -> Result<Running> {
        self.start_with(setting, features, None)
    }

    /// The same under an instrument that counts instructions.
    pub(crate) fn start_under(self, setting: &Setting, features: Features, callgrind: &Callgrind) -> Result<Running> {
        self.start_with(setting, features, Some(callgrind))
    }

    fn start_with(self, setting: &Setting, features: Features, callgrind: Option<&Callgrind>) -> Result<Running> {
        let [plain, h2c, tls, metrics] = process::free_ports()?;
        let ports = Ports { plain, h2c, tls, metrics };
        let directory = setting.directory.join(self.name());
        fs::create_dir_all(&directory).with_context(|| format!("cannot make '{}'", directory.display()))?;
        let _ = fs::remove_file(directory.join(ACCESS_LOG));
        let reader = match (self, features) {
            (Self::Haproxy, Features::Full) => Some(cores::on_core(setting.cores.load, LogReader::start)?),
            _ => None,
        };
        let reader_port = reader.as_ref().map_or(0, LogReader::port);
        let config = self.write_config(setting, features, ports, reader_port, &directory)?;
        let native = self.command(setting, &config, &directory);
        let (command, patience) = match callgrind {
            None => (native, Patience::Usual),
            Some(callgrind) => (callgrind.around(&native)?, Patience::Instrumented),
        };
        let mut awaited = vec![plain, h2c, tls];
        if features == Features::Full && self != Self::Tidegate {
            awaited.push(metrics);
        }
        let log = directory.join("log");
        let process = Process::start(self.name(), command, setting.cores.proxy, log, &awaited, patience)?;
        Ok(Running { peer: self, process, ports, directory, reader })
    }

    fn write_config(
        self,
        setting: &Setting,
        features: Features,
        ports: Ports,
        reader: u16,
        directory: &Path,
    ) -> Result<PathBuf> {
        let certificate = Certificate::in_directory(&setting.directory);
        let words = [
            ("DIR", directory.display().to_string()),
            ("ORIGIN", setting.origin.to_string()),
            ("PLAIN", ports.plain.to_string()),
            ("H2C", ports.h2c.to_string()),
            ("TLS", ports.tls.to_string()),
            ("METRICS", ports.metrics.to_string()),
            ("READER", reader.to_string()),
            ("CERTIFICATE", certificate.chain.display().to_string()),
            ("KEY", certificate.key.display().to_string()),
            ("BUNDLE", certificate.bundle.display().to_string()),
        ];
        let tags: &[&str] = match features {
            Features::Bare => &["bare"],
            Features::Full => &["full"],
            Features::Told => &["bare", "told"],
        };
        let (name, text) = match self {
            Self::Tidegate => ("tidegate.yaml", include_str!("../peers/tidegate.yaml")),
            Self::Nginx => ("nginx.conf", include_str!("../peers/nginx.conf")),
            Self::Haproxy => ("haproxy.cfg", include_str!("../peers/haproxy.cfg")),
        };
        let config = directory.join(name);
        fs::write(&config, template::fill(&template::choose(text, tags), &words)?)
            .with_context(|| format!("cannot write '{}'", config.display()))?;
        Ok(config)
    }

    fn program(self, setting: &Setting) -> PathBuf {
        match self {
            Self::Tidegate => setting.binaries.join("tidegate"),
            Self::Nginx | Self::Haproxy => Path::new("/usr/sbin").join(self.name()),
        }
    }

    fn command(self, setting: &Setting, config: &Path, directory: &Path) -> Command {
        let mut command = Command::new(self.program(setting));
        match self {
            Self::Tidegate => command.args(["run", "-c"]).arg(config),
            Self::Nginx => command.arg("-e").arg(directory.join("start.log")).arg("-c").arg(config),
            Self::Haproxy => command.args(["-db", "-f"]).arg(config),
        };
        command
    }

    /// Whether a peer told to say in its answers if a TLS session was resumed does so.
    pub(crate) fn tells_resumption(self) -> bool {
        self != Self::Tidegate
    }
}

impl Running {
    pub(crate) fn port(&self, protocol: Protocol) -> u16 {
        match protocol {
            Protocol::Http1 | Protocol::WebSocket => self.ports.plain,
            Protocol::Http2Plain => self.ports.h2c,
            Protocol::Http1Tls | Protocol::Http2Tls => self.ports.tls,
        }
    }

    /// The process that was started, and all it started: nginx works in a child.
    pub(crate) fn processes(&self) -> Result<Vec<u32>> {
        cpu::family(self.process.pid())
    }

    /// Lines of the access log that have been written.
    pub(crate) fn logged_lines(&self) -> u64 {
        match &self.reader {
            Some(reader) => reader.lines(),
            None => {
                let log = fs::read(self.directory.join(ACCESS_LOG)).unwrap_or_default();
                log.iter().filter(|byte| **byte == b'\n').count() as u64
            }
        }
    }

    /// Where metrics are asked for over HTTP, by `GET /metrics`. Tidegate's are on the admin endpoint, always.
    pub(crate) fn metrics_port(&self) -> Option<u16> {
        (self.peer != Peer::Tidegate).then_some(self.ports.metrics)
    }

    /// Ends the peer and waits until it is gone.
    pub(crate) fn stop(&mut self) {
        self.process.stop(Signal::TERM);
    }

    /// The end of what the peer printed, for an error message.
    pub(crate) fn last_words(&self) -> String {
        self.process.last_words()
    }
}

/// The certificate all peers present: ECDSA on P-256.
pub(crate) struct Certificate {
    pub(crate) chain: PathBuf,
    key: PathBuf,
    bundle: PathBuf,
}

impl Certificate {
    /// The files in the folder of a session.
    pub(crate) fn in_directory(directory: &Path) -> Self {
        let [chain, key, bundle] = ["cert.pem", "key.pem", "bundle.pem"].map(|name| directory.join(name));
        Self { chain, key, bundle }
    }

    /// Makes a self-signed one with the openssl program, valid for two days.
    pub(crate) fn create(directory: &Path, core: usize) -> Result<()> {
        let certificate = Self::in_directory(directory);
        let mut command = Command::new("openssl");
        command
            .args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec", "-pkeyopt"])
            .args(["ec_paramgen_curve:prime256v1", "-subj", &format!("/CN={HOST}")])
            .args(["-addext", &format!("subjectAltName=DNS:{HOST}")])
            .arg("-keyout")
            .arg(&certificate.key)
            .arg("-out")
            .arg(&certificate.chain);
        process::output("openssl", command, core)?;
        let mut bundle = fs::read(&certificate.chain).context("cannot read the new certificate")?;
        bundle.extend(fs::read(&certificate.key).context("cannot read the new key")?);
        fs::write(&certificate.bundle, bundle).context("cannot write the certificate with its key")
    }
}

const ACCESS_LOG: &str = "access.log";
