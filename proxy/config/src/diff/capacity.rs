//! Changes of how many requests endpoints take at a time, and of who waits.

use super::settings::Settings;
use crate::model::{Capacity, QueuePolicy};
use crate::units::format_duration;

/// All of them apply live.
pub(super) fn capacity(old: &Capacity, new: &Capacity, settings: &mut Settings) {
    let Capacity { max_in_flight, max_in_flight_per_endpoint, max_tunnels, stream_after, queue } = old;
    let time = |time: &Option<_>| time.map_or_else(|| "off".to_owned(), format_duration);
    settings.debug("max_in_flight", max_in_flight, &new.max_in_flight);
    settings.debug("max_in_flight_per_endpoint", max_in_flight_per_endpoint, &new.max_in_flight_per_endpoint);
    settings.debug("max_tunnels", max_tunnels, &new.max_tunnels);
    settings.compare("stream_after", stream_after, &new.stream_after, time);
    let (Some(old), Some(new)) = (queue, &new.queue) else {
        let word = |queue: &Option<QueuePolicy>| if queue.is_some() { "on" } else { "off" }.to_owned();
        settings.compare("queue", queue, &new.queue, word);
        return;
    };
    let QueuePolicy { size, wait, hold, order, target } = old;
    let optional = |time: &Option<_>| time.map_or_else(|| "none".to_owned(), format_duration);
    settings.debug("queue.size", size, &new.size);
    settings.time("queue.wait", wait, &new.wait);
    settings.time("queue.hold", hold, &new.hold);
    settings.debug("queue.order", order, &new.order);
    settings.compare("queue.target", target, &new.target, optional);
}
