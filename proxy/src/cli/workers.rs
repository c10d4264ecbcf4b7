//! `tidegate workers`: what there is and what it does.

use std::io;

use super::arguments::{OutputFormat, Workers};
use super::operate::{AT_ONCE, unreachable, wrong};
use super::{Exit, Host, Streams, admin_endpoint};
use crate::admin::client::AdminClient;
use crate::admin::table::{self, Colours};

pub(super) fn workers(workers: &Workers, host: &Host<'_>, streams: &mut Streams<'_>) -> io::Result<Exit> {
    let client = match admin_endpoint::client(&workers.endpoint, host, streams) {
        Ok(client) => client,
        Err(problem) => return wrong(&problem, streams),
    };
    if workers.cost {
        return costs(&client, workers, streams);
    }
    let answer = match client.workers(workers.upstream.as_deref(), AT_ONCE) {
        Ok(answer) => answer,
        Err(error) => return unreachable(&error, streams),
    };
    match workers.format {
        OutputFormat::Json => writeln!(streams.out, "{}", serde_json::to_string_pretty(&answer)?)?,
        OutputFormat::Text => {
            table::print_workers(&answer, colours(streams), streams.out)?;
        }
    }
    Ok(Exit::Fine)
}

fn costs(client: &AdminClient, workers: &Workers, streams: &mut Streams<'_>) -> io::Result<Exit> {
    let answer = match client.costs(workers.upstream.as_deref(), AT_ONCE) {
        Ok(answer) => answer,
        Err(error) => return unreachable(&error, streams),
    };
    match workers.format {
        OutputFormat::Json => writeln!(streams.out, "{}", serde_json::to_string_pretty(&answer)?)?,
        OutputFormat::Text => table::print_costs(&answer, colours(streams), streams.out)?,
    }
    Ok(Exit::Fine)
}

fn colours(streams: &Streams<'_>) -> Colours {
    if streams.out_is_terminal && !streams.no_color { Colours::On } else { Colours::Off }
}
