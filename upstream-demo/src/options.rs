//! The command line.

use std::{num::ParseFloatError, path::PathBuf, time::Duration};

use clap::{ArgGroup, Parser, builder::TypedValueParser};

/// A demo HTTP worker: obedient, and misbehaving on request.
#[derive(Debug, Clone, Parser)]
#[command(version, group = ArgGroup::new("listen").required(true).args(["uds", "port", "fd"]))]
pub(crate) struct Options {
    /// Listen on a unix socket
    #[arg(long, value_name = "PATH")]
    pub(crate) uds: Option<PathBuf>,
    /// Listen on a TCP port; 0 picks a free one
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Listen on an inherited, already listening socket
    #[arg(long, value_name = "N")]
    pub(crate) fd: Option<i32>,
    /// The address that goes with --port
    #[arg(long, default_value = "127.0.0.1", conflicts_with_all = ["uds", "fd"])]
    pub(crate) host: String,
    /// Threads that serve requests
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256).map(usize::from))]
    pub(crate) threads: usize,
    /// Requests that are served at once, from the first byte of the answer to the last; more wait
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..).map(usize::from))]
    pub(crate) concurrency: Option<usize>,
    /// Close a connection that had no request for this long
    #[arg(long, value_name = "SECONDS", default_value = "75", value_parser = seconds)]
    pub(crate) keep_alive: Duration,
    /// How long requests in flight may take to finish after SIGTERM
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) drain: Duration,
    /// Print one line for each request
    #[arg(long)]
    pub(crate) log_requests: bool,
    /// Do not stop on SIGTERM
    #[arg(long)]
    pub(crate) ignore_term: bool,
    /// Wait this long before listening
    #[arg(long, value_name = "MS", default_value = "0", value_parser = milliseconds)]
    pub(crate) boot_delay: Duration,
    /// Exit with status 3 instead of listening
    #[arg(long)]
    pub(crate) fail_boot: bool,
    /// Answer so many of a hundred requests with 500
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = clap::value_parser!(u64).range(0..=100))]
    pub(crate) fail: u64,
    /// Never answer so many of a hundred requests
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = clap::value_parser!(u64).range(0..=100))]
    pub(crate) hang: u64,
    /// Take this much longer for each request
    #[arg(long, value_name = "MS", default_value = "0", value_parser = milliseconds)]
    pub(crate) delay: Duration,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error: ParseFloatError| error.to_string())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    text.parse().map(Duration::from_millis).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn exactly_one_place_to_listen() {
        let parse = |line: &str| Options::try_parse_from(line.split_whitespace()).is_ok();
        for line in ["demo --uds /tmp/x", "demo --port 0", "demo --port 80 --host ::1", "demo --fd 3"] {
            assert!(parse(line), "{line}");
        }
        for line in ["demo", "demo --uds /tmp/x --port 1", "demo --port 1 --fd 3", "demo --fd 3 --host ::1"] {
            assert!(!parse(line), "{line}");
        }
    }

    #[test]
    fn durations_have_their_unit() {
        let options = Options::try_parse_from(["demo", "--port", "0", "--keep-alive", "0.5", "--boot-delay", "250"]);
        let options = options.expect("a correct line");
        assert_eq!(options.keep_alive, Duration::from_millis(500));
        assert_eq!(options.boot_delay, Duration::from_millis(250));
        assert!(Options::try_parse_from(["demo", "--port", "0", "--keep-alive", "-1"]).is_err());
    }
}
