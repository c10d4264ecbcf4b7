//! Keeps worker processes alive: starts them, knows when they are ready, replaces them when they fail or change, and
//! leaves none behind. Knows no routing; the data plane is told where traffic may go, and tells when a drain is over.
//!
//! # Three kinds of process
//!
//! ```text
//! supervising process ──────────────────────────────┐ pipe
//!   supervisor thread (the only one that starts      │
//!   and waits; feeds the pure `state`)               ▼
//!     │ socket: launch →, ← failure              guardian (own session; kills every
//!     │ pipes:  ← output                          group when the pipe ends)
//!     ▼
//!   shim, which becomes the worker by execve ── whatever that starts
//! ```
//!
//! - **The thread** (`thread.rs`) never ends, because a parent-death signal is sent when the *thread* that started a
//!   process ends. It is the only one that starts processes and takes exit statuses. It decides nothing: inputs go to
//!   [`state::State::step`], which returns actions.
//! - **The shim** (`shim.rs`) is our own program started again. It makes a session and group, drops privileges, closes
//!   descriptors, asks for the parent-death signal and executes the command, with a readable text for each thing that
//!   can fail.
//! - **The guardian** (`guardian.rs`) is our own program too. It learns of every group before that group's command runs,
//!   and acts only when the supervising process is gone, SIGKILL included.
//!
//! # How a worker ends
//!
//! Drain (until the data plane reports that nothing is under way, for `stream_grace` that only streams are, or for
//! `drain_timeout`), SIGTERM to the main process,
//! `stop_timeout`, SIGKILL to the group. However the main process ends, what is left of its group is killed before it
//! is reaped: until then its number cannot mean anybody else. What left the group by making its own session is found
//! at the end of a shutdown (descendants of ours, and everything that carries the marker variable
//! `TIDEGATE_INSTANCE`), and by the guardian (the marker only, so a program that made its own session, outlived a
//! SIGKILL of ours *and* wrote over its environment block escapes). A daemon that a worker deliberately started lives on
//! when that worker alone is replaced.
//!
//! # What the program must do
//!
//! `main` looks at its first argument before anything else: [`Reexec::shim_arg`] goes to [`shim_main`],
//! [`Reexec::guardian_arg`] to [`guardian_main`]. Nobody else in the process starts or waits for processes. With a
//! `user` for workers the process must be root, or have CAP_SETUID, CAP_SETGID, CAP_KILL, CAP_CHOWN and
//! CAP_DAC_OVERRIDE in its ambient set (shim and guardian inherit them from there; the shim drops them before the
//! command runs).

mod backoff;
mod canary;
mod capacity;
mod cgroup;
mod command;
mod cpu;
mod cpu_use;
mod deploy;
mod endpoint;
mod env_file;
mod environment;
mod event;
mod evidence;
mod generation;
mod guardian;
mod handle;
mod hook;
mod launch;
mod limits;
mod link;
mod memory;
mod on_hang;
mod oom;
mod output;
mod peer;
mod plan;
mod process;
mod process_table;
mod progress;
mod pss;
mod readiness;
mod sampling;
mod shim;
mod spawn;
pub mod state;
mod status;
mod stray;
mod template;
mod thread;
mod usage;
mod wire;
mod worker;

pub use backoff::RestartPolicy;
pub use canary::{CanaryFigures, CanaryVerdict, Comparison};
pub use capacity::Capacity;
pub use cgroup::Roots;
pub use command::{Command, PoolSpec};
pub use cpu::effective_cpus;
pub use cpu_use::CpuUse;
pub use deploy::{Boots, Cause, DeployEnd, DeployPhase, DeployStatus, HookFailure, Outcome};
pub use event::{Event, Failure, Hung, ScaledBy, Transition};
pub use guardian::guardian_main;
pub use handle::{Handle, StartError, SupervisorOptions, start};
pub use hook::HookId;
pub use memory::{Bound, Memory};
pub use output::{OutputLine, Stream};
pub use plan::{DeployPlan, Way};
pub use process::Reexec;
pub use process_table::tree_rss;
pub use progress::{Progress, ProgressBySpawn};
pub use pss::pss_of_trees;
pub use shim::shim_main;
pub use status::{GenerationState, GenerationStatus, HeldSlot, LastExit, PoolState, PoolStatus, WorkerStatus};
pub use usage::{Usage, usage_of_trees};
pub use worker::{ExitReason, ExitStatus, WorkerAddress, WorkerId, WorkerState};
