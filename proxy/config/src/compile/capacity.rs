//! How many requests endpoints take at a time, and who waits.

use crate::fault::Code;
use crate::model::{Capacity, QueueOrder, QueuePolicy};
use crate::raw;
use crate::report::Report;
use crate::tree::Spot;
use crate::units::format_duration;

/// Compiles the bounds of an upstream; `worker_cap` is what its workers have.
pub(super) fn capacity(
    max_in_flight: Option<u32>,
    max_in_flight_per_endpoint: Option<u32>,
    worker_cap: Option<u32>,
    queue: Option<raw::QueueChoice>,
    spot: Spot<'_>,
    report: &mut Report,
) -> Capacity {
    if let (Some(all), Some(one)) = (max_in_flight, max_in_flight_per_endpoint)
        && one > all
    {
        let problem = format!("an endpoint never gets {one} requests at a time: all together get {all}");
        let finding = report.warning(spot.key("max_in_flight_per_endpoint").span(), Code::Suspicious, problem);
        finding.related(spot.key("max_in_flight").span(), "for all together it says this").hint("remove one of both");
    }
    let queue = match queue {
        Some(raw::QueueChoice::Word(raw::QueueWord::Off)) => None,
        Some(raw::QueueChoice::Queue(raw)) => Some(self::queue(raw, spot.key("queue"), report)),
        None => Some(QueuePolicy::default()),
    };
    let max_in_flight_per_endpoint = worker_cap.or(max_in_flight_per_endpoint);
    Capacity { max_in_flight, max_in_flight_per_endpoint, queue, ..Capacity::default() }
}

fn queue(raw: raw::Queue, spot: Spot<'_>, report: &mut Report) -> QueuePolicy {
    let raw::Queue { size, wait, hold, order, target } = raw;
    let default = QueuePolicy::default();
    let policy = QueuePolicy {
        size,
        wait: wait.map_or(default.wait, |time| time.0),
        hold: hold.map_or(default.hold, |time| time.0),
        order: order.map_or(default.order, QueueOrder::from),
        target: target.map(|time| time.0),
    };
    let Some(target) = policy.target else { return policy };
    if policy.order == QueueOrder::Fifo {
        let problem = "this target is never used: the order is fifo under overload too";
        let finding = report.fault(spot.key("target").key_span(), Code::Conflict, problem);
        finding.related(spot.key("order").span(), "the order is here").hint("remove one of both");
    } else if target >= policy.wait {
        let wait = format_duration(policy.wait);
        let problem = format!("no request waits for so long: the wait ends after {wait}");
        report.fault(spot.key("target").span(), Code::Conflict, problem).hint("write a target below the wait");
    }
    policy
}

impl From<raw::QueueOrder> for QueueOrder {
    fn from(raw: raw::QueueOrder) -> Self {
        match raw {
            raw::QueueOrder::Adaptive => Self::Adaptive,
            raw::QueueOrder::Fifo => Self::Fifo,
        }
    }
}
