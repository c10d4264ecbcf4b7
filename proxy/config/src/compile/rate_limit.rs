//! Limits of request rates.

use super::named_limits::{self, Limit, Place};
use crate::fault::Code;
use crate::model::{RateLimit, RateLimitHeaders, RateLimitUse};
use crate::rate::parse_rate;
use crate::raw;
use crate::report::Report;
use crate::tree::Spot;

const ENTRIES: u32 = 262_144;
const STATUS: u16 = 429;

impl Limit for RateLimit {
    type Raw = raw::RateLimit;
    type Listed = raw::RateLimitUse;
    type Use = RateLimitUse;
    const NOUN: &'static str = "rate limit";
    const KEY: &'static str = "rate_limit";
    const TWICE: &'static str = "keep one of them, and give it a cost";

    fn compile(raw: Self::Raw, place: &Place<'_>, spot: Spot<'_>, report: &mut Report) -> Option<Self> {
        let raw::RateLimit { rate, burst, nodelay, delay, key, status, headers, dry_run, allow, entries } = raw;
        let burst = burst.unwrap_or(0);
        let delay = self::delay(nodelay, delay, burst, spot, report);
        let key = named_limits::key(key, spot.key("key"), report);
        let allow = named_limits::allowed(allow, spot.key("allow"), report);
        Some(Self {
            name: place.name(),
            named: matches!(place, Place::Named(_)),
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

    fn listed(raw: raw::RateLimitUse, spot: Spot<'_>) -> Option<(String, Spot<'_>, u32)> {
        match raw {
            raw::RateLimitUse::Name(name) => Some((name, spot, 1)),
            raw::RateLimitUse::Cost(raw::RateLimitCost { limit, cost }) => {
                Some((limit?, spot.key("limit"), cost.unwrap_or(1)))
            }
        }
    }

    fn used(limit: String, cost: u32) -> RateLimitUse {
        RateLimitUse { limit, cost }
    }

    fn part(text: &str) -> Option<(&'static str, &'static str)> {
        parse_rate(text).is_ok().then_some(("a rate", "rate"))
    }
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
