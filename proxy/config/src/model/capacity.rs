//! How many requests the endpoints of an upstream take at a time, and what becomes of those beyond that.

use std::time::Duration;

/// Shortest queue where the file does not say; a default follows the endpoints and stays within these bounds.
pub const QUEUE_LEAST: usize = 64;
/// Longest queue where the file does not say.
pub const QUEUE_MOST: usize = 4_096;

/// Bounds of what is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// Most exchanges under way with all endpoints together.
    pub max_in_flight: Option<u32>,
    /// Most exchanges under way with an endpoint for which nothing else is said.
    pub max_in_flight_per_endpoint: Option<u32>,
    /// Most upgraded connections and long streams with an endpoint at a time; they count apart from what is under way.
    pub max_tunnels: Option<u32>,
    /// An answer that streams for longer counts as one of these; `None` never does.
    pub stream_after: Option<Duration>,
    /// Where requests wait that no endpoint can take at once; `None` refuses them.
    pub queue: Option<QueuePolicy>,
}

impl Default for Capacity {
    /// As in a file that says nothing.
    fn default() -> Self {
        Self {
            max_in_flight: None,
            max_in_flight_per_endpoint: None,
            max_tunnels: None,
            stream_after: None,
            queue: Some(QueuePolicy::default()),
        }
    }
}

/// The queue of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuePolicy {
    /// Most requests in it; `None` is twice what endpoints take at a time, from [`QUEUE_LEAST`] to [`QUEUE_MOST`].
    pub size: Option<usize>,
    /// Longest wait for an endpoint that is full.
    pub wait: Duration,
    /// Longest wait for workers that are starting.
    pub hold: Duration,
    /// Who comes first.
    pub order: QueueOrder,
    /// The wait above which the queue is overloaded when it lasts; `None` follows the median time that an exchange
    /// takes.
    pub target: Option<Duration>,
}

impl Default for QueuePolicy {
    /// As in a file that says nothing.
    fn default() -> Self {
        Self {
            size: None,
            wait: Duration::from_secs(5),
            hold: Duration::from_secs(10),
            order: QueueOrder::Adaptive,
            target: None,
        }
    }
}

/// Who comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueueOrder {
    /// The oldest; while the queue is overloaded the newest, and who is late is refused.
    Adaptive,
    /// The oldest, always.
    Fifo,
}
