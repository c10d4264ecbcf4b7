//! The proxies that are measured: how each is configured, started and named.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{
    cores::Cores,
    cpu::{CpuScope, CpuTime},
    load::HOST,
    process::{self, Process},
    template,
    workload::Protocol,
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
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    plain: u16,
    h2c: u16,
    tls: u16,
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
    pub(crate) fn start(self, setting: &Setting) -> Result<Running> {
        let [plain, h2c, tls] = process::free_ports()?;
        let ports = Ports { plain, h2c, tls };
        let directory = setting.directory.join(self.name());
        fs::create_dir_all(&directory).with_context(|| format!("cannot make '{}'", directory.display()))?;
        let config = self.write_config(setting, ports, &directory)?;
        let command = self.command(setting, &config, &directory);
        let log = directory.join("log");
        let process = Process::start(self.name(), command, setting.cores.proxy, log, &[plain, h2c, tls])?;
        Ok(Running { peer: self, process, ports })
    }

    fn write_config(self, setting: &Setting, ports: Ports, directory: &Path) -> Result<PathBuf> {
        let certificate = Certificate::in_directory(&setting.directory);
        let words = [
            ("DIR", directory.display().to_string()),
            ("ORIGIN", setting.origin.to_string()),
            ("PLAIN", ports.plain.to_string()),
            ("H2C", ports.h2c.to_string()),
            ("TLS", ports.tls.to_string()),
            ("CERTIFICATE", certificate.chain.display().to_string()),
            ("KEY", certificate.key.display().to_string()),
            ("BUNDLE", certificate.bundle.display().to_string()),
        ];
        let (name, text) = match self {
            Self::Tidegate => ("tidegate.yaml", include_str!("../peers/tidegate.yaml")),
            Self::Nginx => ("nginx.conf", include_str!("../peers/nginx.conf")),
            Self::Haproxy => ("haproxy.cfg", include_str!("../peers/haproxy.cfg")),
        };
        let config = directory.join(name);
        fs::write(&config, template::fill(text, &words)?)
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

    /// nginx works in a child of the process we start. Of Tidegate's other processes (the guardian, and here no
    /// workers) none touches a request.
    fn cpu_scope(self) -> CpuScope {
        match self {
            Self::Nginx => CpuScope::WithChildren,
            Self::Tidegate | Self::Haproxy => CpuScope::Process,
        }
    }
}

impl Running {
    pub(crate) fn port(&self, protocol: Protocol) -> u16 {
        match protocol {
            Protocol::Http1 => self.ports.plain,
            Protocol::Http2Plain => self.ports.h2c,
            Protocol::Http1Tls | Protocol::Http2Tls => self.ports.tls,
        }
    }

    /// Processor time used since the start.
    pub(crate) fn cpu(&self) -> Result<CpuTime> {
        CpuTime::of(self.process.pid(), self.peer.cpu_scope())
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
