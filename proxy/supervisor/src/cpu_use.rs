//! CPU time that a worker used within some time: what tells one that computes from one that waits.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::usage::cpu_of_tree;

/// CPU time of a process and everything below it, to a hundredth of a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuUse {
    /// What was used, in user space and in the kernel.
    pub used: Duration,
    /// Within which time.
    pub within: Duration,
}

impl fmt::Display for CpuUse {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "used {:.2} s of CPU in {:.1} s", self.used.as_secs_f64(), self.within.as_secs_f64())
    }
}

/// What a worker had used at some moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CpuMark {
    at: Duration,
    cpu: Duration,
}

impl CpuMark {
    /// `None` when there is no such process.
    pub(crate) fn now(pid: i32, now: Duration) -> Option<Self> {
        Some(Self { at: now, cpu: cpu_of_tree(pid.unsigned_abs())? })
    }

    pub(crate) fn until(self, later: Self) -> CpuUse {
        // It goes back when somebody of the tree ends that nobody waited for.
        CpuUse { used: later.cpu.saturating_sub(self.cpu), within: later.at.saturating_sub(self.at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_in_seconds() {
        let some = CpuUse { used: Duration::from_millis(1_230), within: Duration::from_millis(15_249) };
        assert_eq!(some.to_string(), "used 1.23 s of CPU in 15.2 s");
        let none = CpuUse { used: Duration::ZERO, within: Duration::from_secs(2) };
        assert_eq!(none.to_string(), "used 0.00 s of CPU in 2.0 s");
    }

    #[test]
    fn a_loop_uses_what_the_kernel_says_it_used() {
        let own = std::process::id().cast_signed();
        let before = CpuMark::now(own, Duration::from_secs(3)).expect("it is us");
        // Nanoseconds that this thread had a CPU.
        let burnt = || -> u64 {
            let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("it is us");
            text.split(' ').next().expect("a field").parse().expect("a number")
        };
        let begun = burnt();
        while burnt() - begun < 200_000_000 {
            std::hint::black_box(0);
        }
        let used = before.until(CpuMark::now(own, Duration::from_secs(4)).expect("it is us"));
        assert_eq!(used.within, Duration::from_secs(1));
        // The kernel tells hundredths; other tests may run beside this one.
        assert!(used.used >= Duration::from_millis(180), "{used:?}");
        assert!(CpuMark::now(i32::MAX, Duration::ZERO).is_none());
    }
}
