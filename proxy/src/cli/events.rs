//! `tidegate events`: what happened to workers, and what happens to them.

use std::io;

use super::arguments::{Events, OutputFormat};
use super::operate::{AT_ONCE, unreachable, wrong};
use super::{Exit, Host, Streams, admin_endpoint};
use crate::admin::table;
use crate::admin::view::Event;

/// With how many of the past one begins who wants the future.
const CONTEXT: usize = 10;

pub(super) fn events(events: &Events, host: &Host<'_>, streams: &mut Streams<'_>) -> io::Result<Exit> {
    let Events { endpoint, upstream, follow, last, format } = events;
    let client = match admin_endpoint::client(endpoint, host, streams) {
        Ok(client) => client,
        Err(problem) => return wrong(&problem, streams),
    };
    let last = last.or(follow.then_some(CONTEXT));
    let out = &mut *streams.out;
    let mut print = |line: &[u8]| match (format, serde_json::from_slice::<Event>(line)) {
        (OutputFormat::Text, Ok(event)) => table::print_event(&event, out),
        _ => out.write_all(line).and_then(|()| out.write_all(b"\n")),
    };
    match client.events(upstream.as_deref(), last, *follow, AT_ONCE, &mut print) {
        Ok(printed) => printed.map(|()| Exit::Fine),
        Err(error) => unreachable(&error, streams),
    }
}
