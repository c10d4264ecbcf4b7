//! Why endpoints are out of service, for people: a line each.

use std::io::{self, Write};

use super::printable;
use crate::admin::view::{Breaker, Check, Ejected, Endpoint};

/// Prints a line for each endpoint that is out of service.
pub(super) fn print(endpoints: &[Endpoint], out: &mut dyn Write) -> io::Result<()> {
    for endpoint in endpoints {
        if let Some(Check { passing: false, since, reason, last, .. }) = &endpoint.check {
            let (address, since) = (printable(&endpoint.address), clock(since));
            let (reason, last) = (printable(reason.as_deref().unwrap_or_default()), printable(last));
            writeln!(out, "  {address}: checks fail since {since}: {reason}, last: {last}")?;
        }
        if let Some(Ejected { since, until: _, seconds_left, times, reason }) = &endpoint.ejected {
            let again = if *times > 1 { format!(", {times} times lately") } else { String::new() };
            let (address, since, reason) = (printable(&endpoint.address), clock(since), printable(reason));
            writeln!(out, "  {address}: out since {since}, back in {seconds_left}s{again}: {reason}")?;
        }
    }
    Ok(())
}

/// Prints a line about a breaker that has opened at some time.
pub(super) fn print_breaker(breaker: Option<&Breaker>, out: &mut dyn Write) -> io::Result<()> {
    let Some(Breaker { state, since: Some(since), seconds_left, reason, trips }) = breaker else { return Ok(()) };
    let left = seconds_left.map(|left| format!(", {left}s left")).unwrap_or_default();
    let (state, since) = (printable(state), clock(since));
    let reason = printable(reason.as_deref().unwrap_or_default());
    writeln!(out, "  breaker {state} since {since}{left}, opened {trips} times, last: {reason}")
}

/// The time of day in what [`time`](crate::admin::view::time) wrote.
fn clock(time: &str) -> String {
    printable(time.split_once('T').map_or(time, |(_, clock)| clock.get(..8).unwrap_or(clock)))
}
