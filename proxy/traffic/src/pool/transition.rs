//! Changes of a pool's service that somebody may want to hear of: one each time, never one for each request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tidegate_config::model::Address;

use super::breaker::BreakerStatus;
use super::ejection::Ejected;

/// A change of a pool's service.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// Name of the upstream.
    pub upstream: Arc<str>,
    /// What has changed.
    pub change: Change,
}

/// What has changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// An endpoint is out of service for a time.
    Ejected {
        /// Which.
        endpoint: Address,
        /// Why and for how long.
        ejected: Ejected,
    },
    /// An endpoint is out of service because its checks fail.
    CheckFailing {
        /// Which.
        endpoint: Address,
        /// Why the last one did.
        why: String,
    },
    /// An endpoint's checks pass again.
    CheckPassing {
        /// Which.
        endpoint: Address,
        /// How long they failed.
        after: Duration,
    },
    /// The breaker lets others pass than before.
    Breaker(BreakerStatus),
    /// An endpoint's time out of service is over.
    Returned {
        /// Which.
        endpoint: Address,
        /// How long it was out.
        after: Duration,
        /// Before its time: the pool needs it.
        early: bool,
    },
}

/// Hears of changes. Called on any thread, with no lock held; must not wait.
#[derive(Clone)]
pub struct Observer(Arc<dyn Fn(&Transition) + Send + Sync>);

impl Observer {
    /// One that calls this.
    pub fn new(hear: impl Fn(&Transition) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }

    pub(super) fn hear(&self, transition: &Transition) {
        (self.0)(transition);
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
