//! What the process of a worker is given besides its command, as it is written.

use schemars::JsonSchema;
use serde::Deserialize as DeriveDeserialize;

use super::{Holding, PositiveSize};

/// What the process of each worker may use; it passes that on to what it starts. Soft and hard limits alike (setrlimit(2)). A
/// limit that the kernel refuses makes the start fail, by name. More than the hard limit that the program has itself needs root, as
/// `nice` and `oom_score_adj` below the program's own do.
#[derive(Debug, Default, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorkerLimits {
    /// Open files and connections. Default: what the program was started with, which uses more for itself. Unit: files.
    #[schemars(range(min = 64, max = 1_000_000_000))]
    pub(crate) nofile: Option<u64>,
    /// Processes and threads. The kernel counts all of an account together, and not those of root. Default: what the program
    /// has. Unit: processes.
    #[schemars(range(min = 1, max = 4_194_304))]
    pub(crate) nproc: Option<u64>,
    /// Size of a core dump: a size, `on` for any or `off` for none. Default: what the program has. Unit: size.
    pub(crate) core: Option<Holding>,
    /// Address space, which is more than the memory in use; `recycle: { hard_rss }` looks at that. Default: what the program
    /// has. Unit: size, 64MiB at least.
    pub(crate) address_space: Option<PositiveSize>,
    /// How far a worker stands back when CPUs are short: 19 the most, -20 the least. Default: that of the program.
    #[schemars(range(min = -20, max = 19))]
    pub(crate) nice: Option<i32>,
    /// How soon the kernel ends a worker when memory is short: 1000 first, -1000 never. Default: 300 more than the program has,
    /// so that it ends a worker and not the proxy.
    #[schemars(range(min = -1000, max = 1000))]
    pub(crate) oom_score_adj: Option<i32>,
}

/// Files of environment variables.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum EnvFiles {
    /// One.
    One(String),
    /// Several: later ones win.
    Several(#[schemars(length(min = 1, max = 16))] Vec<String>),
}

/// A signal that programs end on.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum StopSignal {
    /// SIGTERM, as most programs expect.
    Term,
    /// SIGINT.
    Int,
    /// SIGQUIT, on which PHP-FPM and uWSGI finish what they have.
    Quit,
    /// SIGHUP.
    Hup,
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
    /// SIGWINCH, on which Apache finishes what it has.
    Winch,
}
