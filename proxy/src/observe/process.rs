//! Numbers of our own process from /proc, read when somebody asks for metrics.

use std::fs;

/// The kernel tells user space times in hundredths of a second on every machine we build for (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// What /proc says; a number that cannot be read is left out.
#[derive(Debug, Default)]
pub(crate) struct ProcessNumbers {
    pub(crate) rss_bytes: Option<u64>,
    pub(crate) open_fds: Option<u64>,
    pub(crate) max_fds: Option<u64>,
    pub(crate) start_time_seconds: Option<f64>,
    pub(crate) cpu_seconds: Option<f64>,
}

impl ProcessNumbers {
    /// Reads a few small files of /proc.
    pub(crate) fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").ok();
        let stat = stat.as_deref().map(Stat::parse).unwrap_or_default();
        Self {
            rss_bytes: fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident_bytes),
            // The folder handle of the listing itself is one of them.
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|fds| (fds.count() as u64).saturating_sub(1)),
            max_fds: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
            start_time_seconds: boot_time()
                .zip(stat.start_ticks)
                .map(|(boot, start)| boot + start as f64 / TICKS_PER_SECOND),
            cpu_seconds: stat.cpu_ticks.map(|cpu| cpu as f64 / TICKS_PER_SECOND),
        }
    }
}

/// The fields of /proc/self/stat that matter here.
#[derive(Debug, Default, PartialEq)]
struct Stat {
    cpu_ticks: Option<u64>,
    start_ticks: Option<u64>,
}

impl Stat {
    /// Fields are counted after the name, which may hold spaces and parentheses (proc_pid_stat(5)).
    fn parse(text: &str) -> Self {
        let Some((_, rest)) = text.rsplit_once(')') else { return Self::default() };
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |from_state: usize| fields.get(from_state).and_then(|field| field.parse::<u64>().ok());
        Self { cpu_ticks: number(11).zip(number(12)).map(|(user, system)| user + system), start_ticks: number(19) }
    }
}

/// `VmRSS` of /proc/self/status, which is in KiB.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// When the machine booted, in seconds since 1970.
fn boot_time() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime ")).and_then(|seconds| seconds.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_odd_names() {
        let fields: Vec<String> = (3..=22).map(|field| field.to_string()).collect();
        let stat = Stat::parse(&format!("1 (a) b) {}", fields.join(" ")));
        assert_eq!(stat, Stat { cpu_ticks: Some(14 + 15), start_ticks: Some(22) });
        assert_eq!(Stat::parse("junk"), Stat::default());
    }

    #[test]
    fn our_own_numbers_are_plausible() {
        let numbers = ProcessNumbers::read();
        assert!(numbers.rss_bytes.unwrap() > 100_000);
        assert!(numbers.open_fds.unwrap() >= 3);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - numbers.start_time_seconds.unwrap();
        assert!((-5.0..3600.0).contains(&age), "{age}");
    }
}
