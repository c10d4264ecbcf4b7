//! Processor time of a process tree, from `/proc`.

use std::{fs, ops::Sub, time::Duration};

use anyhow::{Context, Result};

/// Linux reports times in `/proc/PID/stat` in hundredths of a second on every architecture we build for.
const TICK: Duration = Duration::from_millis(10);

/// Time spent in the program and in the kernel on its behalf.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CpuTime {
    /// Both to a hundredth of a second: good enough to divide the sum.
    user: Duration,
    system: Duration,
    /// Time on a processor to the nanosecond, of the threads that are alive.
    scheduled: Duration,
}

impl CpuTime {
    /// Reads what the processes have used since they started.
    pub(crate) fn of(processes: &[u32]) -> Result<Self> {
        let mut sum = Self::default();
        for pid in processes {
            let own = Self::of_one(*pid).with_context(|| format!("cannot read the processor time of process {pid}"))?;
            sum.user += own.user;
            sum.system += own.system;
            sum.scheduled += own.scheduled;
        }
        Ok(sum)
    }

    pub(crate) fn user(self) -> Duration {
        self.total().mul_f64(self.user_share())
    }

    pub(crate) fn system(self) -> Duration {
        self.total().mul_f64(1.0 - self.user_share())
    }

    /// The scheduler's figure, unless threads ended meanwhile and took theirs with them.
    pub(crate) fn total(self) -> Duration {
        let ticks = self.user + self.system;
        if ticks > self.scheduled + TICK * 4 { ticks } else { self.scheduled }
    }

    fn user_share(self) -> f64 {
        let ticks = (self.user + self.system).as_secs_f64();
        if ticks > 0.0 { self.user.as_secs_f64() / ticks } else { 0.5 }
    }

    fn of_one(pid: u32) -> Option<Self> {
        let (user, system) = ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.filter_map(Result::ok);
        let nanoseconds = threads.filter_map(|thread| {
            let schedule = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            schedule.split(' ').next()?.parse::<u64>().ok()
        });
        Some(Self { user, system, scheduled: Duration::from_nanos(nanoseconds.sum()) })
    }
}

impl Sub for CpuTime {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
            scheduled: self.scheduled.saturating_sub(earlier.scheduled),
        }
    }
}

/// A process and all its descendants.
pub(crate) fn family(pid: u32) -> Result<Vec<u32>> {
    let processes = fs::read_dir("/proc").context("cannot list /proc")?;
    let parents: Vec<(u32, u32)> = processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| Some((pid, parent(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?)))
        .collect();
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&member) = family.get(next) {
        family.extend(parents.iter().filter(|(_, parent)| *parent == member).map(|(child, _)| *child));
        next += 1;
    }
    Ok(family)
}

/// The second field is the program's name in parentheses, which may itself hold spaces and parentheses.
fn fields(line: &str) -> Option<Vec<&str>> {
    let (_, after_name) = line.rsplit_once(") ")?;
    Some(after_name.split(' ').collect())
}

fn parent(line: &str) -> Option<u32> {
    fields(line)?.get(1)?.parse().ok()
}

fn ticks(line: &str) -> Option<(Duration, Duration)> {
    let fields = fields(line)?;
    let time = |index: usize| Some(TICK * fields.get(index)?.parse::<u32>().ok()?);
    Some((time(11)?, time(12)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "17 (a) (b) S 4 17 17 0 -1 4194560 9 0 0 0 250 31 7 8 20 0 1 0";

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        assert_eq!(parent(LINE), Some(4));
        assert_eq!(ticks(LINE), Some((Duration::from_millis(2500), Duration::from_millis(310))));
        assert_eq!(ticks("17 (a) S 4 17"), None);
    }

    #[test]
    fn the_scheduler_is_more_exact_than_ticks() {
        let [user, system] = [30, 10].map(|ticks| TICK * ticks);
        let time = CpuTime { user, system, scheduled: Duration::from_micros(404_000) };
        assert_eq!(time.total(), Duration::from_micros(404_000));
        assert_eq!(time.user(), Duration::from_micros(303_000));
        let threads_ended = CpuTime { scheduled: Duration::from_millis(100), ..time };
        assert_eq!(threads_ended.total(), Duration::from_millis(400));
    }

    #[test]
    fn this_process_is_the_head_of_its_family() {
        let own = std::process::id();
        assert_eq!(family(own).unwrap().first(), Some(&own));
        assert!(CpuTime::of(&[own]).is_ok());
    }
}
