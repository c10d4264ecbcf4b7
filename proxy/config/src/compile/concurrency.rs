//! Limits of requests under way.

use super::named_limits::{self, Limit, Place};
use crate::model::ConcurrencyLimit;
use crate::raw;
use crate::report::Report;
use crate::tree::Spot;

const STATUS: u16 = 503;

impl Limit for ConcurrencyLimit {
    type Raw = raw::ConcurrencyLimit;
    type Listed = String;
    type Use = String;
    const NOUN: &'static str = "concurrency limit";
    const KEY: &'static str = "concurrency";
    const TWICE: &'static str = "remove one of them";

    fn compile(raw: Self::Raw, place: &Place<'_>, spot: Spot<'_>, report: &mut Report) -> Option<Self> {
        let raw::ConcurrencyLimit { max, key, status, dry_run, allow } = raw;
        let key = named_limits::key(key, spot.key("key"), report);
        let allow = named_limits::allowed(allow, spot.key("allow"), report);
        Some(Self {
            name: place.name(),
            max: max?,
            key: key?,
            status: status.unwrap_or(STATUS),
            dry_run: dry_run.unwrap_or(false),
            allow: allow?,
        })
    }

    fn listed(name: String, spot: Spot<'_>) -> Option<(String, Spot<'_>, u32)> {
        Some((name, spot, 1))
    }

    fn used(name: String, _cost: u32) -> String {
        name
    }

    fn part(text: &str) -> Option<(&'static str, &'static str)> {
        text.parse::<u32>().is_ok().then_some(("a number", "max"))
    }
}
