//! `tidegate logs`: what workers print.

use std::io;

use super::arguments::{Logs, OutputFormat, Whose};
use super::operate::{AT_ONCE, unreachable, wrong};
use super::{Exit, Host, Streams, admin_endpoint};
use crate::admin::client::WhichLines;
use crate::admin::table;
use crate::admin::view::LogLine;

/// How many of the past lines are shown when nobody says.
const USUAL: usize = 100;

pub(super) fn logs(logs: &Logs, host: &Host<'_>, streams: &mut Streams<'_>) -> io::Result<Exit> {
    let Logs { endpoint, whose, follow, lines, format } = logs;
    let client = match admin_endpoint::client(endpoint, host, streams) {
        Ok(client) => client,
        Err(problem) => return wrong(&problem, streams),
    };
    let (upstream, slot) = match whose {
        Some(Whose { upstream, slot }) => (Some(upstream.as_str()), *slot),
        None => (None, None),
    };
    let out = &mut *streams.out;
    let mut print = |line: &[u8]| match (format, serde_json::from_slice::<LogLine>(line)) {
        (OutputFormat::Text, Ok(line)) => table::print_log_line(&line, slot.is_none(), out),
        _ => out.write_all(line).and_then(|()| out.write_all(b"\n")),
    };
    let which = WhichLines { upstream, slot, last: Some(lines.unwrap_or(USUAL)), follow: *follow };
    match client.logs(which, AT_ONCE, &mut print) {
        Ok(printed) => printed.map(|()| Exit::Fine),
        Err(error) => unreachable(&error, streams),
    }
}
