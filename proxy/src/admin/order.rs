//! Orders about workers, as the admin endpoint takes them.

/// What shall become of workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// New workers take the place of those that serve, one after the other.
    Restart {
        /// Name of the upstream.
        upstream: String,
        /// Which slot; all of them when there is none.
        slot: Option<u32>,
    },
    /// A slot's worker finishes its requests and ends; the slot stays empty.
    Drain {
        /// Name of the upstream.
        upstream: String,
        /// Which slot.
        slot: u32,
    },
    /// A new generation of the workers of an upstream.
    Deploy {
        /// Name of the upstream.
        upstream: String,
    },
    /// Another number of workers.
    Scale {
        /// Name of the upstream.
        upstream: String,
        /// How many.
        to: Scale,
    },
}

/// How many workers there shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// That many.
    To(u32),
    /// So many more; fewer when negative, but never none.
    By(i32),
    /// As many as the site file says.
    File,
}

/// Why an order was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// It names an upstream or slot that does not exist.
    #[error("{0}")]
    NotThere(String),
    /// The program is shutting down.
    #[error("the program is shutting down")]
    Stopping,
}
