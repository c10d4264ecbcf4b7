//! One generation of a pool: a frozen spawn specification and how far it has come.

use std::sync::Arc;
use std::time::Duration;

use tidegate_config::model::{Hang, WorkerSpec};

use crate::status::GenerationState;

#[derive(Debug)]
pub(super) struct Generation {
    pub(super) number: u64,
    pub(super) spec: Arc<WorkerSpec>,
    pub(super) state: GenerationState,
    /// One of its workers has been ready: it works, so it may serve as the one to fall back to.
    pub(super) proven: bool,
    /// How often its hook failed.
    pub(super) tries: u32,
    /// Its hook is not tried again before.
    pub(super) retry_at: Duration,
}

impl Generation {
    pub(super) fn new(number: u64, spec: Arc<WorkerSpec>) -> Self {
        let state = if spec.pre_start.is_some() { GenerationState::Preparing } else { GenerationState::Canary };
        Self { number, spec, state, proven: false, tries: 0, retry_at: Duration::ZERO }
    }

    /// Whether workers started from `spec` would be the same; numbers that apply to running workers do not count.
    pub(super) fn starts_same(&self, spec: &WorkerSpec) -> bool {
        let WorkerSpec {
            command,
            count: _,
            transport,
            cwd,
            env,
            env_inherit,
            env_secret,
            user,
            ready,
            ready_interval,
            warmup,
            boot_timeout: _,
            drain_timeout: _,
            stream_grace: _,
            stop_timeout: _,
            pre_start: _,
            deploy: _,
            program: _,
            recycle: _,
            restart: _,
            hang,
            launch,
        } = spec;
        let own = &self.spec;
        let watchdog = |hang: &Option<Hang>| hang.as_ref().and_then(|hang| hang.watchdog);
        own.command == *command
            && own.transport == *transport
            && own.cwd == *cwd
            && own.env == *env
            && own.env_inherit == *env_inherit
            && own.env_secret == *env_secret
            && own.user == *user
            && own.ready == *ready
            && own.ready_interval == *ready_interval
            && own.launch == *launch
            && own.warmup == *warmup
            && watchdog(&own.hang) == watchdog(hang)
    }
}
