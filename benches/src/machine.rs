//! What the figures were measured on.

use std::fs;

use serde::Serialize;

/// The facts a reader needs before comparing with figures from elsewhere.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    pub(crate) system: String,
    /// Mean number of running programs in the minute before the start.
    pub(crate) load_average: f64,
}

impl Machine {
    /// Reads the facts of this machine.
    pub(crate) fn read() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        Self {
            processor: field(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            memory_mib: field(&read("/proc/meminfo"), "MemTotal")
                .and_then(|value| value.strip_suffix(" kB")?.parse::<u64>().ok())
                .unwrap_or_default()
                / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            system: read("/etc/os-release")
                .lines()
                .find_map(|line| line.strip_prefix("PRETTY_NAME="))
                .unwrap_or("unknown")
                .trim_matches('"')
                .to_owned(),
            load_average: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|mean| mean.parse().ok())
                .unwrap_or_default(),
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}
