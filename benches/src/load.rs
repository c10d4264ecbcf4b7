//! The closed loop: one run of h2load, and what it measured.
//!
//! Percentiles come from h2load's log of single requests, because Debian's version prints none. Writing that log costs
//! the load side a tenth of its speed, so rates and percentiles are taken in separate runs.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, bail};

use crate::{
    process, stats,
    workload::{Protocol, Workload},
};

/// Where the load goes and how hard it pushes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) workload: Workload,
    pub(crate) port: u16,
    pub(crate) amount: Amount,
}

/// When requests are sent, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Amount {
    /// So many requests in all.
    Requests(u32),
    /// Closed loop: each stream sends the next request when it has the answer to the last.
    Saturate { length: Duration },
}

/// What one run gave.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outcome {
    /// Answered with a 2xx status.
    pub(crate) requests: u64,
    /// Not answered, or answered with another status.
    pub(crate) errors: u64,
    /// Answers per second.
    pub(crate) rate: f64,
    /// Bytes of bodies.
    pub(crate) body_bytes: u64,
    /// Cipher and key exchange, on TLS.
    pub(crate) tls: Option<String>,
    /// Median and 99th percentile of the time to the end of an answer, in microseconds. Not known without a log.
    pub(crate) latency: Option<Latency>,
}

/// Times to the end of an answer, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Latency {
    pub(crate) p50: u32,
    pub(crate) p99: u32,
}

impl Load {
    /// Runs h2load on `core`. With `log`, single requests are written to that file for the percentiles, and it is
    /// removed again.
    pub(crate) fn run(&self, core: usize, log: Option<&Path>) -> Result<Outcome> {
        let printed = process::output("h2load", self.command(log), core)?;
        let mut outcome =
            Outcome::parse(&printed).with_context(|| format!("cannot read h2load's summary:\n{printed}"))?;
        if let Some(log) = log {
            outcome.latency = Latency::read(log)?;
            fs::remove_file(log).with_context(|| format!("cannot remove '{}'", log.display()))?;
        }
        Ok(outcome)
    }

    /// The command line of a run, for the report.
    pub(crate) fn shown(&self) -> String {
        let command = self.command(None);
        let words: Vec<_> = command
            .get_args()
            .skip(2)
            .skip_while(|word| *word != "h2load")
            .map(|word| word.to_string_lossy())
            .collect();
        words.join(" ")
    }

    /// h2load under `timeout`, because it waits without end for a proxy that stopped answering.
    fn command(&self, log: Option<&Path>) -> Command {
        let mut command = Command::new("timeout");
        command.arg("--kill-after=5").arg((self.amount.length() + GRACE).as_secs().to_string()).arg("h2load");
        command.arg(format!("--clients={}", self.workload.connections()));
        command.arg(format!("--max-concurrent-streams={}", self.workload.streams()));
        match self.amount {
            Amount::Requests(count) => command.arg(format!("--requests={count}")),
            Amount::Saturate { length } => command.arg(format!("--duration={}", length.as_secs())),
        };
        if let Some(log) = log {
            command.arg(format!("--log-file={}", log.display()));
        }
        command.arg("--tls13-ciphers=TLS_AES_128_GCM_SHA256").arg("--groups=X25519");
        let scheme = match self.workload.protocol() {
            Protocol::Http1 => {
                command.arg("--h1");
                "http"
            }
            Protocol::Http1Tls => {
                command.arg("--h1");
                "https"
            }
            Protocol::Http2Tls => {
                command.arg("--npn-list=h2");
                "https"
            }
            Protocol::Http2Plain => "http",
        };
        command.arg(format!("--connect-to=127.0.0.1:{}", self.port));
        command.arg(format!("{scheme}://{HOST}:{}{}", self.port, self.workload.path()));
        command
    }
}

impl Amount {
    fn length(self) -> Duration {
        match self {
            Self::Requests(_) => Duration::ZERO,
            Self::Saturate { length } => length,
        }
    }
}

impl Outcome {
    fn parse(printed: &str) -> Option<Self> {
        let line = |start: &str| printed.lines().find_map(|line| line.trim().strip_prefix(start));
        let requests = line("requests: ")?;
        let succeeded_status = counted(line("status codes: ")?, " 2xx")?;
        let failed = counted(requests, " failed")?;
        let unexpected_status = counted(requests, " succeeded")?.saturating_sub(succeeded_status);
        let (_, data) = line("traffic: ")?.rsplit_once(", ")?;
        Some(Self {
            requests: succeeded_status,
            errors: failed + unexpected_status,
            rate: line("finished in ")?.split(", ").nth(1)?.strip_suffix(" req/s")?.parse().ok()?,
            body_bytes: data.split_once('(')?.1.split_once(')')?.0.parse().ok()?,
            tls: line("Cipher: ")
                .map(|cipher| format!("{cipher}, {}", line("Server Temp Key: ").unwrap_or("unknown key exchange"))),
            latency: None,
        })
    }
}

impl Latency {
    fn read(log: &Path) -> Result<Option<Self>> {
        let text = fs::read_to_string(log).with_context(|| format!("cannot read '{}'", log.display()))?;
        let mut times = Vec::with_capacity(text.len() / 24);
        for line in text.lines() {
            match line.split('\t').nth(2).and_then(|time| time.parse::<u32>().ok()) {
                Some(time) => times.push(time),
                None => bail!("unexpected line in h2load's log: '{line}'"),
            }
        }
        times.sort_unstable();
        Ok(stats::percentile(&times, 0.5).zip(stats::percentile(&times, 0.99)).map(|(p50, p99)| Self { p50, p99 }))
    }
}

/// The number before `unit` in a list such as `3 done, 2 failed`.
fn counted(list: &str, unit: &str) -> Option<u64> {
    list.split(", ").find_map(|item| item.trim().strip_suffix(unit)?.parse().ok())
}

/// The name all certificates and sites of the bench are for.
pub(crate) const HOST: &str = "bench.test";

const GRACE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    const SUMMARY: &str = "\
TLS Protocol: TLSv1.3
Cipher: TLS_AES_256_GCM_SHA384
Server Temp Key: X25519 253 bits
Application protocol: http/1.1

finished in 3.00s, 70215.67 req/s, 10.78MB/s
requests: 210647 total, 210711 started, 210647 done, 210640 succeeded, 7 failed, 2 errored, 1 timeout
status codes: 210630 2xx, 10 3xx, 4 4xx, 0 5xx
traffic: 32.34MB (33914167) total, 21.90MB (22967499) headers (space savings 0.00%), 2.61MB (2739243) data
";

    #[test]
    fn the_summary_is_read() {
        let outcome = Outcome::parse(SUMMARY).unwrap();
        assert_eq!(outcome.requests, 210_630);
        assert_eq!(outcome.errors, 7 + 10);
        assert_eq!(outcome.rate, 70215.67);
        assert_eq!(outcome.body_bytes, 2_739_243);
        assert_eq!(outcome.tls.as_deref(), Some("TLS_AES_256_GCM_SHA384, X25519 253 bits"));
    }

    #[test]
    fn a_summary_without_requests_is_no_outcome() {
        assert_eq!(Outcome::parse("h2load: could not connect\n"), None);
    }

    #[test]
    fn percentiles_come_from_the_third_column() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        fs::write(&log, "1\t200\t30\n2\t200\t10\n3\t200\t20\n").unwrap();
        assert_eq!(Latency::read(&log).unwrap(), Some(Latency { p50: 20, p99: 30 }));
        fs::write(&log, "").unwrap();
        assert_eq!(Latency::read(&log).unwrap(), None);
        fs::write(&log, "broken\n").unwrap();
        assert!(Latency::read(&log).is_err());
    }
}
