//! Limits of request rates: those with a name, and those that stand where they are used.

use std::collections::{BTreeMap, BTreeSet};

use super::{check_name, listener, names, variables};
use crate::Networks;
use crate::fault::Code;
use crate::model::{RateLimit, RateLimitHeaders, RateLimitUse, Variable};
use crate::rate::parse_rate;
use crate::raw;
use crate::report::Report;
use crate::source::Span;
use crate::tree::Spot;

/// The word that switches an inherited limit off, so no name.
pub(super) const OFF: &str = "off";
const ENTRIES: u32 = 262_144;
const STATUS: u16 = 429;

/// The limits of a file, and who uses them.
#[derive(Default)]
pub(crate) struct RateLimits {
    compiled: BTreeMap<String, RateLimit>,
    named: Vec<(String, Span)>,
    used: BTreeSet<String>,
    /// Some entries were faulty and are missing here, so that an unknown name is no news.
    damaged: bool,
}

/// Where a limit without a name stands.
pub(super) enum Place<'a> {
    Site(&'a str),
    Route { site: &'a str, way: &'a str },
}

impl Place<'_> {
    /// With a space, so that it is no name of a file.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Site(site) => format!("site {site}"),
            Self::Route { site, way } => format!("site {site}, route {way}"),
        }
    }
}

impl RateLimits {
    /// Compiles the limits that have names.
    pub(super) fn define(
        &mut self,
        raw: raw::Named<raw::RateLimit>,
        spot: Spot<'_>,
        root_damaged: bool,
        report: &mut Report,
    ) {
        self.damaged = root_damaged || spot.is_damaged();
        for (name, raw) in raw.0 {
            let spot = spot.key(&name);
            check_name(&name, "a rate limit", spot, report);
            if name == OFF {
                let problem = "\"off\" cannot be the name of a rate limit: it switches limits off";
                report.fault(spot.key_span(), Code::BadValue, problem).hint("give it another name");
            }
            self.named.push((name.clone(), spot.key_span()));
            if let Some(limit) = rate_limit(raw, name.clone(), true, spot, report) {
                self.compiled.insert(name, limit);
            }
        }
    }

    /// What a site or route says; `None` when it says nothing.
    pub(super) fn chosen(
        &mut self,
        raw: Option<Box<raw::RateLimitChoice>>,
        place: &Place<'_>,
        spot: Spot<'_>,
        report: &mut Report,
    ) -> Option<Vec<RateLimitUse>> {
        match *raw? {
            raw::RateLimitChoice::Name(name) if name == OFF => Some(Vec::new()),
            raw::RateLimitChoice::Name(name) => Some(vec![self.one(name, 1, spot, report)]),
            raw::RateLimitChoice::Own(raw) => {
                let limit = rate_limit(raw, place.name(), false, spot, report);
                let used = limit.as_ref().map(|limit| RateLimitUse { limit: limit.name.clone(), cost: 1 });
                self.compiled.extend(limit.map(|limit| (limit.name.clone(), limit)));
                Some(used.into_iter().collect())
            }
            raw::RateLimitChoice::Several(list) => Some(self.several(list, spot, report)),
        }
    }

    fn several(&mut self, list: Vec<raw::RateLimitUse>, spot: Spot<'_>, report: &mut Report) -> Vec<RateLimitUse> {
        let mut unique = names::Unique::default();
        super::each(list, spot, report, |raw, spot, report| {
            let (name, cost, spot) = match raw {
                raw::RateLimitUse::Name(name) => (name, 1, spot),
                raw::RateLimitUse::Cost(raw::RateLimitCost { limit, cost }) => {
                    (limit?, cost.unwrap_or(1), spot.key("limit"))
                }
            };
            if let Some(first) = unique.first(name.clone(), spot.span()) {
                let problem = format!("the rate limit \"{name}\" stands here twice");
                let finding = report.fault(spot.span(), Code::Duplicate, problem);
                finding.related(first, "the first one is here").hint("keep one of them, and give it a cost");
                return None;
            }
            Some(self.one(name, cost, spot, report))
        })
    }

    fn one(&mut self, name: String, cost: u32, spot: Spot<'_>, report: &mut Report) -> RateLimitUse {
        let known: Vec<&str> = self.named.iter().map(|(name, _)| name.as_str()).collect();
        if name == OFF {
            let problem = "\"off\" stands alone: it switches all limits off";
            report
                .fault(spot.span(), Code::Conflict, problem)
                .hint("write rate_limit: off, or remove it from the list");
        } else if parse_rate(&name).is_ok() {
            let problem = format!("\"{name}\" is a rate, and here stands the name of a limit, or a mapping");
            let hint = format!("write rate_limit: {{ rate: {name} }}");
            report.fault(spot.span(), Code::BadValue, problem).hint(hint);
        } else if !known.contains(&name.as_str()) && !self.damaged {
            names::unknown("rate limit", &name, &known, spot, report);
        }
        self.used.insert(name.clone());
        RateLimitUse { limit: name, cost }
    }

    /// Warns of what is defined and never used.
    pub(super) fn report_unused(&self, report: &mut Report) {
        for (name, span) in self.named.iter().filter(|(name, _)| !self.used.contains(name)) {
            let problem = format!("no site or route uses the rate limit \"{name}\"");
            report.warning(*span, Code::Unused, problem).hint("write rate_limit in a site or route, or remove it");
        }
    }

    /// All of them.
    pub(super) fn take(&mut self) -> BTreeMap<String, RateLimit> {
        std::mem::take(&mut self.compiled)
    }
}

fn rate_limit(
    raw: raw::RateLimit,
    name: String,
    named: bool,
    spot: Spot<'_>,
    report: &mut Report,
) -> Option<RateLimit> {
    let raw::RateLimit { rate, burst, nodelay, delay, key, status, headers, dry_run, allow, entries } = raw;
    let burst = burst.unwrap_or(0);
    let delay = self::delay(nodelay, delay, burst, spot, report);
    let key = match key {
        Some(key) => variables::variables(key, spot.key("key"), report),
        None => Some(vec![Variable::ClientAddress]),
    };
    let allow = allowed(allow, spot.key("allow"), report);
    Some(RateLimit {
        name,
        named,
        rate: rate?.0,
        burst,
        delay,
        key: key?,
        status: status.unwrap_or(STATUS),
        headers: headers.map_or(RateLimitHeaders::Off, RateLimitHeaders::from),
        dry_run: dry_run.unwrap_or(false),
        allow: allow?,
        entries: entries.unwrap_or(ENTRIES) as usize,
    })
}

/// Clients that are never limited.
pub(super) fn allowed(raw: Option<Vec<String>>, spot: Spot<'_>, report: &mut Report) -> Option<Networks> {
    let allow = raw.unwrap_or_default();
    for (index, _) in allow.iter().enumerate().filter(|(_, text)| *text == "unix") {
        let problem = "clients of unix sockets cannot be told apart here: they count as 127.0.0.1";
        report.fault(spot.item(index).span(), Code::BadValue, problem).hint("write loopback");
    }
    listener::networks(allow, spot, report)
}

/// Requests ahead of the rate that are served at once; `None` are all.
fn delay(nodelay: Option<bool>, delay: Option<u32>, burst: u32, spot: Spot<'_>, report: &mut Report) -> Option<u32> {
    let delay_spot = spot.key("delay");
    if let (Some(_), Some(_)) = (nodelay, delay) {
        let problem = "\"nodelay\" and \"delay\" both say which requests wait";
        let finding = report.fault(delay_spot.key_span(), Code::Conflict, problem);
        finding.related(spot.key("nodelay").key_span(), "the other one is here").hint("remove one of both");
    } else if let Some(delay) = delay.filter(|delay| *delay > burst) {
        let problem = format!("no request is ever delayed: {delay} is more than the burst of {burst}");
        let hint = "write nodelay: true for that, or a delay below the burst";
        report.fault(delay_spot.span(), Code::Conflict, problem).hint(hint);
    }
    if nodelay == Some(true) { None } else { Some(delay.unwrap_or(0)) }
}

impl From<raw::RateLimitHeaders> for RateLimitHeaders {
    fn from(raw: raw::RateLimitHeaders) -> Self {
        match raw {
            raw::RateLimitHeaders::Off => Self::Off,
            raw::RateLimitHeaders::Standard => Self::Standard,
            raw::RateLimitHeaders::Legacy => Self::Legacy,
            raw::RateLimitHeaders::All => Self::All,
        }
    }
}
