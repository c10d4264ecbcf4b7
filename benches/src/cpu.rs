//! Processor time of a process tree, from `/proc`.

use std::{fs, ops::Sub, time::Duration};

use anyhow::{Context, Result};

/// Linux reports times in `/proc/PID/stat` in hundredths of a second on every architecture we build for.
const TICK: Duration = Duration::from_millis(10);

/// Time spent in the program and in the kernel on its behalf.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CpuTime {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

/// Whose time counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CpuScope {
    /// All threads of the process.
    Process,
    /// And those of the processes it started.
    WithChildren,
}

impl CpuTime {
    /// Reads what process `pid` has used since it started.
    pub(crate) fn of(pid: u32, scope: CpuScope) -> Result<Self> {
        let main = Stat::read(pid).with_context(|| format!("cannot read the processor time of process {pid}"))?;
        let children = match scope {
            CpuScope::Process => Vec::new(),
            CpuScope::WithChildren => children_of(pid)?,
        };
        Ok(children.iter().fold(main.time, |sum, child| Self {
            user: sum.user + child.time.user,
            system: sum.system + child.time.system,
        }))
    }

    pub(crate) fn total(self) -> Duration {
        self.user + self.system
    }
}

impl Sub for CpuTime {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { user: self.user.saturating_sub(earlier.user), system: self.system.saturating_sub(earlier.system) }
    }
}

struct Stat {
    parent: u32,
    time: CpuTime,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The second field is the program's name in parentheses, which may itself hold spaces and parentheses.
    fn parse(line: &str) -> Option<Self> {
        let (_, after_name) = line.rsplit_once(") ")?;
        let fields: Vec<&str> = after_name.split(' ').collect();
        let ticks = |index: usize| Some(TICK * fields.get(index)?.parse::<u32>().ok()?);
        Some(Self { parent: fields.get(1)?.parse().ok()?, time: CpuTime { user: ticks(11)?, system: ticks(12)? } })
    }
}

fn children_of(pid: u32) -> Result<Vec<Stat>> {
    let processes = fs::read_dir("/proc").context("cannot list /proc")?;
    Ok(processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(Stat::read)
        .filter(|stat| stat.parent == pid)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = Stat::parse("17 (a) (b) S 4 17 17 0 -1 4194560 9 0 0 0 250 31 7 8 20 0 1 0").unwrap();
        assert_eq!(stat.parent, 4);
        assert_eq!(stat.time, CpuTime { user: Duration::from_millis(2500), system: Duration::from_millis(310) });
    }

    #[test]
    fn a_cut_line_is_no_reading() {
        assert!(Stat::parse("17 (a) S 4 17").is_none());
    }
}
