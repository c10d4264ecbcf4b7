//! What requests cost their workers, as it goes over the wire.

use serde::{Deserialize, Serialize};

/// `GET /workers/cost`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Costs {
    /// Upstreams whose `cost` is on, by name.
    pub upstreams: Vec<CostGroup>,
}

/// Of the workers of one upstream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CostGroup {
    /// Name of the upstream.
    pub name: String,
    /// Of which version the workers were.
    pub generation: u64,
    /// Intervals between two looks at a worker that the figures were made from.
    pub intervals: u64,
    /// Their length, all together.
    pub seconds: f64,
    /// CPU time that was used in them.
    pub cpu_seconds: f64,
    /// By how much the workers grew in them; less than 0 where they shrank.
    pub rss_bytes: f64,
    /// CPUs that a worker keeps busy without any request.
    pub idle: Figure,
    /// Those that had requests.
    pub routes: Vec<RouteCost>,
}

/// Of the requests of one route.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteCost {
    /// Name of its site; `None`, as that of the route, for all routes beyond the sixteen that are told apart.
    pub site: Option<String>,
    /// Its name.
    pub route: Option<String>,
    /// Requests that have ended.
    pub requests: u64,
    /// How long one held its worker, on the average.
    pub held_ms: Option<f64>,
    /// CPU time of one, in milliseconds.
    pub cpu_ms: Figure,
    /// By how much resident memory grows with each.
    pub rss_bytes: Figure,
    /// Its part of the CPU time of all workers, idling included: 0 to 1, where it is known.
    pub cpu_share: Option<f64>,
}

/// A number with its error, or why there is none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Figure {
    /// The estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Half of its 95 % interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<f64>,
    /// Why there is none: `too_few` requests or intervals, `together` with others or at an even pace, `maybe_nothing`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
    /// Upper end of the interval, where there is no estimate but an interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
}
