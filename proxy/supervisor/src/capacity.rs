//! What the machine gives us right now. Both CPUs and memory can change while we run: a container is resized in place.

use std::collections::BTreeMap;

use crate::memory::Memory;

/// Figures of one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Capacity {
    /// CPUs that we may use, more than 0.
    pub cpus: f64,
    /// Limits of memory, and what is used of them.
    pub memory: Memory,
    /// What workers take for themselves, in bytes by spawn number; `None` when nobody looked.
    pub pss: Option<BTreeMap<u64, u64>>,
}
