//! `tidegate deploy`: new workers instead of those that serve, watched to the end.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

use super::arguments::{Deploy as Arguments, OutputFormat};
use super::operate::{AT_ONCE, unreachable, wrong};
use super::{Exit, Host, Streams, admin_endpoint};
use crate::admin::client::{AdminClient, ClientError};
use crate::admin::order::Order;
use crate::admin::table;
use crate::admin::view::{Deploy, DeployGroup, Deploys, PlanGroup};

/// How often one looks how far it is.
const LOOK: Duration = Duration::from_millis(100);

pub(super) fn deploy(arguments: &Arguments, host: &Host<'_>, streams: &mut Streams<'_>) -> io::Result<Exit> {
    let client = match admin_endpoint::client(&arguments.endpoint, host, streams) {
        Ok(client) => client,
        Err(problem) => return wrong(&problem, streams),
    };
    let upstream = arguments.upstream.as_deref();
    if arguments.dry_run {
        return dry_run(&client, upstream, arguments.format, streams);
    }
    let known = match client.deploys(upstream, AT_ONCE) {
        Ok(known) => known,
        Err(error) => return unreachable(&error, streams),
    };
    if arguments.last {
        return print(&known, arguments.format, streams);
    }
    if known.upstreams.is_empty() {
        return wrong("no upstream has workers", streams);
    }
    let ordered: Result<BTreeMap<String, u64>, ClientError> =
        known.upstreams.iter().map(|group| order(&client, &group.name)).collect();
    let ordered = match ordered {
        Ok(ordered) => ordered,
        Err(error) => return unreachable(&error, streams),
    };
    if !arguments.wait {
        for upstream in ordered.keys() {
            writeln!(
                streams.out,
                "{upstream}: deploy begins; `tidegate deploy --last {upstream}` tells how far it is"
            )?;
        }
        return Ok(Exit::Fine);
    }
    let is_talkative = arguments.format == OutputFormat::Text;
    let until = Instant::now() + Duration::from_secs(arguments.timeout);
    let ended = Watch { client, until, is_talkative, open: ordered }.run(streams)?;
    match ended {
        Ok(ended) => {
            print(&ended, arguments.format, streams)?;
            Ok(exit(&ended))
        }
        Err(Unfinished::Client(error)) => unreachable(&error, streams),
        Err(Unfinished::Late) => {
            writeln!(streams.err, "error: not done after {} seconds; it goes on", arguments.timeout)?;
            Ok(Exit::Runtime)
        }
    }
}

fn dry_run(
    client: &AdminClient,
    upstream: Option<&str>,
    format: OutputFormat,
    streams: &mut Streams<'_>,
) -> io::Result<Exit> {
    let plans = match client.plans(upstream, AT_ONCE) {
        Ok(plans) => plans,
        Err(error) => return unreachable(&error, streams),
    };
    if plans.upstreams.is_empty() {
        return wrong("no upstream has workers", streams);
    }
    match format {
        OutputFormat::Json => writeln!(streams.out, "{}", serde_json::to_string_pretty(&plans)?)?,
        OutputFormat::Text => {
            for PlanGroup { name, plan } in &plans.upstreams {
                writeln!(streams.out, "{}", table::deploy_plan(name, plan))?;
            }
        }
    }
    Ok(Exit::Fine)
}

fn order(client: &AdminClient, upstream: &str) -> Result<(String, u64), ClientError> {
    let ordered = client.order(&Order::Deploy { upstream: upstream.to_owned() }, AT_ONCE)?;
    Ok((upstream.to_owned(), ordered.deploy.unwrap_or_default()))
}

/// The gravest of all ends.
fn exit(ended: &Deploys) -> Exit {
    let outcomes = || ended.upstreams.iter().flat_map(|group| &group.deploys).map(|deploy| deploy.outcome.as_deref());
    let is_any = |words: &[&str]| outcomes().any(|outcome| words.contains(&outcome.unwrap_or_default()));
    if is_any(&["frozen"]) {
        Exit::Frozen
    } else if is_any(&["reverted", "failed"]) {
        Exit::Config
    } else if outcomes().all(|outcome| outcome == Some("done")) {
        Exit::Fine
    } else {
        Exit::Superseded
    }
}

fn print(deploys: &Deploys, format: OutputFormat, streams: &mut Streams<'_>) -> io::Result<Exit> {
    match format {
        OutputFormat::Json => writeln!(streams.out, "{}", serde_json::to_string_pretty(deploys)?)?,
        OutputFormat::Text => {
            for DeployGroup { name, deploys } in &deploys.upstreams {
                deploys.iter().try_for_each(|deploy| table::print_deploy(name, deploy, streams.out))?;
            }
        }
    }
    Ok(Exit::Fine)
}

/// Deploys under way.
struct Watch {
    client: AdminClient,
    until: Instant,
    is_talkative: bool,
    /// Numbers of those that have not ended, by upstream.
    open: BTreeMap<String, u64>,
}

/// Why a deploy is not watched to its end.
enum Unfinished {
    Client(ClientError),
    Late,
}

impl Watch {
    /// Tells how far they are until all have ended, and returns these. The outer error is that of `streams`.
    fn run(mut self, streams: &mut Streams<'_>) -> io::Result<Result<Deploys, Unfinished>> {
        let mut told = BTreeMap::new();
        let mut planned = BTreeSet::new();
        let mut ended = Deploys::default();
        loop {
            let known = match self.client.deploys(None, AT_ONCE) {
                Ok(known) => known,
                Err(error) => return Ok(Err(Unfinished::Client(error))),
            };
            for (name, id) in self.open.clone() {
                let deploy = ours(&known, &name, id);
                if let Some(plan) = deploy.plan.as_ref().filter(|plan| plan.by_memory && self.is_talkative)
                    && planned.insert(name.clone())
                {
                    writeln!(streams.out, "{}", table::deploy_plan(&name, plan))?;
                }
                if let Some(line) = table::deploy_progress(&name, &deploy).filter(|_| self.is_talkative)
                    && told.get(&name) != Some(&line)
                {
                    writeln!(streams.out, "{line}")?;
                    streams.out.flush()?;
                    told.insert(name.clone(), line);
                }
                if deploy.phase == OVER {
                    self.open.remove(&name);
                    ended.upstreams.push(DeployGroup { name, deploys: vec![deploy] });
                }
            }
            if self.open.is_empty() {
                return Ok(Ok(ended));
            }
            if Instant::now() >= self.until {
                return Ok(Err(Unfinished::Late));
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// The deploy of that number. One that is no longer listed, or whose upstream has none any more, gave way to something.
fn ours(known: &Deploys, upstream: &str, id: u64) -> Deploy {
    let group = known.upstreams.iter().find(|group| group.name == upstream);
    let found = group.and_then(|group| group.deploys.iter().find(|deploy| deploy.id == Some(id)));
    let gone =
        || Deploy { id: Some(id), phase: OVER.to_owned(), outcome: Some("superseded".to_owned()), ..Deploy::default() };
    found.cloned().unwrap_or_else(gone)
}

/// The phase of what has ended.
const OVER: &str = "over";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_is_that_of_the_gravest_end() {
        for (outcomes, expected) in [
            (&["done"][..], Exit::Fine),
            (&["done", "superseded"], Exit::Superseded),
            (&["superseded", "reverted"], Exit::Config),
            (&["failed", "done"], Exit::Config),
            (&["reverted", "frozen", "superseded"], Exit::Frozen),
        ] {
            let deploy = |outcome: &&str| Deploy { outcome: Some((*outcome).to_owned()), ..Deploy::default() };
            let group = DeployGroup { deploys: outcomes.iter().map(deploy).collect(), ..DeployGroup::default() };
            assert_eq!(exit(&Deploys { upstreams: vec![group] }), expected, "{outcomes:?}");
        }
    }

    #[test]
    fn what_is_no_longer_listed_was_superseded() {
        let gone = ours(&Deploys::default(), "app", 3);
        assert_eq!((gone.phase.as_str(), gone.outcome.as_deref()), ("over", Some("superseded")));
    }
}
