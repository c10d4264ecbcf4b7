//! A pool's spec as JSON, for commands that come over a wire. The model itself is never (de)serialised.

mod deploy;
mod launch;
mod readiness;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_config::model;

mod hang;
mod recycle;
mod restart;
mod warmup;

use crate::command::PoolSpec;
use readiness::Readiness;

/// JSON form of [`PoolSpec`].
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pool {
    name: String,
    command: Vec<String>,
    count: Count,
    transport: Transport,
    cwd: Option<PathBuf>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    env_inherit: EnvInherit,
    #[serde(default)]
    env_secret: Vec<String>,
    user: Option<String>,
    ready: Readiness,
    #[serde(default)]
    ready_interval_ms: Option<u64>,
    #[serde(default)]
    warmup: Option<warmup::Warmup>,
    boot_timeout_ms: u64,
    drain_timeout_ms: u64,
    #[serde(default = "stream_grace_ms")]
    stream_grace_ms: u64,
    stop_timeout_ms: u64,
    #[serde(default)]
    pre_start: Option<deploy::PreStart>,
    #[serde(default)]
    deploy: deploy::Policy,
    #[serde(default)]
    recycle: recycle::Recycle,
    #[serde(default)]
    restart: restart::Restart,
    #[serde(default = "usual_hang")]
    hang: Option<hang::Hang>,
    #[serde(default)]
    launch: launch::Launch,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Count {
    Auto,
    Fixed(u32),
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Transport {
    Unix,
    Port,
    Fd,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EnvInherit {
    All,
    Clean,
    Only(Vec<String>),
}

impl From<PoolSpec> for Pool {
    fn from(pool: PoolSpec) -> Self {
        let model::WorkerSpec {
            command,
            count,
            transport,
            cwd,
            env,
            env_inherit,
            env_secret,
            user,
            ready,
            ready_interval,
            warmup,
            boot_timeout,
            drain_timeout,
            stream_grace,
            stop_timeout,
            pre_start,
            deploy,
            // Concerns only those who speak with the workers.
            program: _,
            recycle,
            restart,
            hang,
            launch,
        } = pool.spec;
        Self {
            name: pool.name,
            command,
            count: match count {
                model::WorkerCount::Auto => Count::Auto,
                model::WorkerCount::Fixed(count) => Count::Fixed(count),
            },
            transport: match transport {
                model::WorkerTransport::Unix => Transport::Unix,
                model::WorkerTransport::Port => Transport::Port,
                model::WorkerTransport::Fd => Transport::Fd,
            },
            cwd,
            env,
            env_inherit: match env_inherit {
                model::EnvInherit::All => EnvInherit::All,
                model::EnvInherit::Clean => EnvInherit::Clean,
                model::EnvInherit::Only(names) => EnvInherit::Only(names),
            },
            env_secret,
            user,
            ready: ready.into(),
            ready_interval_ms: ready_interval.map(milliseconds),
            warmup: warmup.map(Into::into),
            boot_timeout_ms: milliseconds(boot_timeout),
            drain_timeout_ms: milliseconds(drain_timeout),
            stream_grace_ms: milliseconds(stream_grace),
            stop_timeout_ms: milliseconds(stop_timeout),
            pre_start: pre_start.map(Into::into),
            deploy: deploy.into(),
            recycle: recycle.into(),
            restart: restart.into(),
            hang: hang.map(Into::into),
            launch: launch.into(),
        }
    }
}

impl From<Pool> for PoolSpec {
    fn from(pool: Pool) -> Self {
        Self {
            name: pool.name,
            spec: model::WorkerSpec {
                command: pool.command,
                count: match pool.count {
                    Count::Auto => model::WorkerCount::Auto,
                    Count::Fixed(count) => model::WorkerCount::Fixed(count),
                },
                transport: match pool.transport {
                    Transport::Unix => model::WorkerTransport::Unix,
                    Transport::Port => model::WorkerTransport::Port,
                    Transport::Fd => model::WorkerTransport::Fd,
                },
                cwd: pool.cwd,
                env: pool.env,
                env_inherit: match pool.env_inherit {
                    EnvInherit::All => model::EnvInherit::All,
                    EnvInherit::Clean => model::EnvInherit::Clean,
                    EnvInherit::Only(names) => model::EnvInherit::Only(names),
                },
                env_secret: pool.env_secret,
                user: pool.user,
                ready: pool.ready.into(),
                ready_interval: pool.ready_interval_ms.map(Duration::from_millis),
                warmup: pool.warmup.map(Into::into),
                boot_timeout: Duration::from_millis(pool.boot_timeout_ms),
                drain_timeout: Duration::from_millis(pool.drain_timeout_ms),
                stream_grace: Duration::from_millis(pool.stream_grace_ms),
                stop_timeout: Duration::from_millis(pool.stop_timeout_ms),
                pre_start: pool.pre_start.map(Into::into),
                deploy: pool.deploy.into(),
                program: model::WorkerProgram::default(),
                recycle: pool.recycle.into(),
                restart: pool.restart.into(),
                hang: pool.hang.map(Into::into),
                launch: pool.launch.into(),
            },
        }
    }
}

fn stream_grace_ms() -> u64 {
    milliseconds(model::WorkerSpec::STREAM_GRACE)
}

#[expect(clippy::unnecessary_wraps, reason = "the field is an option, whose default is not none")]
fn usual_hang() -> Option<hang::Hang> {
    Some(hang::Hang::default())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
