//! Giving up at the start, when no worker comes up at all: for whoever starts containers, a program that ends says more than
//! one that serves nothing but refusals.

use tidegate_supervisor::{Event, Failure};

/// Counts failures of workers until one is ready.
#[derive(Debug, Default)]
pub(crate) struct FailFast {
    tries: Option<u32>,
    failed: u32,
    /// A worker has been ready: from then on failures are the supervisor's business.
    is_over: bool,
}

impl FailFast {
    /// Gives up after so many failures; `None` is never.
    pub(crate) fn configure(&mut self, tries: Option<u32>) {
        self.tries = tries;
    }

    /// Takes one event. A text when that was enough, once.
    pub(crate) fn hear(&mut self, event: &Event) -> Option<String> {
        match event {
            Event::Ready { .. } => self.is_over = true,
            Event::Failure(failure) if !self.is_over => {
                self.failed = self.failed.saturating_add(1);
                self.is_over = self.tries.is_some_and(|tries| self.failed >= tries);
                return self.is_over.then(|| self.told(failure));
            }
            _ => {}
        }
        None
    }

    fn told(&self, last: &Failure) -> String {
        let Failure { worker, status, message, last_lines, .. } = last;
        let message = message.as_ref().map_or_else(String::new, |message| format!(", {message}"));
        let lines: String = last_lines.iter().map(|line| format!("\n  {line}")).collect();
        let failed = self.failed;
        format!(
            "no worker became ready in {failed} tries (server.fail_fast); the last one, of {}: {status}{message}{lines}",
            worker.pool
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidegate_supervisor::{ExitReason, ExitStatus, WorkerAddress, WorkerId};

    use super::*;

    fn worker() -> WorkerId {
        WorkerId { pool: "app".into(), slot: 0, generation: 1, spawn: 1 }
    }

    fn failure() -> Event {
        Event::Failure(Failure {
            worker: worker(),
            pid: None,
            reason: ExitReason::BootExit,
            status: ExitStatus::Code(1),
            message: None,
            uptime: Duration::ZERO,
            last_lines: vec!["boom".to_owned()],
        })
    }

    #[test]
    fn it_gives_up_once_after_so_many_failures() {
        let mut fail_fast = FailFast::default();
        fail_fast.configure(Some(2));
        assert_eq!(fail_fast.hear(&failure()), None);
        let text = fail_fast.hear(&failure()).expect("the second one");
        assert!(text.contains("2 tries") && text.contains("exit code 1") && text.ends_with("\n  boom"), "{text}");
        assert_eq!(fail_fast.hear(&failure()), None);
    }

    #[test]
    fn one_that_was_ready_ends_it() {
        let mut fail_fast = FailFast::default();
        fail_fast.configure(Some(1));
        let address = WorkerAddress::Unix("/s".into());
        assert_eq!(fail_fast.hear(&Event::Ready { worker: worker(), address }), None);
        assert_eq!(fail_fast.hear(&failure()), None);
    }

    #[test]
    fn without_a_number_it_never_gives_up() {
        let mut fail_fast = FailFast::default();
        assert!((0..100).all(|_| fail_fast.hear(&failure()).is_none()));
    }
}
