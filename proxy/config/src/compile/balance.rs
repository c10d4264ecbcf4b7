//! How endpoints are chosen.

use std::time::Duration;

use super::variables;
use crate::fault::Code;
use crate::model::{Balance, Sticky, Variable};
use crate::raw;
use crate::report::Report;
use crate::tree::Spot;

/// Compiles `balance`: how an endpoint is chosen, and whether clients stay with theirs.
pub(super) fn balance(raw: raw::Balance, spot: Spot<'_>, report: &mut Report) -> Option<(Balance, Option<Sticky>)> {
    match raw {
        raw::Balance::Word(word) => Some((word.into(), None)),
        raw::Balance::Key(raw) => by_key(raw, spot, report),
    }
}

fn by_key(raw: raw::BalanceKey, spot: Spot<'_>, report: &mut Report) -> Option<(Balance, Option<Sticky>)> {
    let raw::BalanceKey { hash, consistent, maglev, sticky } = raw;
    let mut given = Vec::new();
    let mut add = |key: &'static str, raw: Option<raw::Variables>, make: fn(Vec<Variable>) -> Balance| {
        if let Some(raw) = raw {
            let balance = variables::variables(raw, spot.key(key), report).map(make);
            given.push((key, balance.map(|balance| (balance, None))));
        }
    };
    add("hash", hash, Balance::Hash);
    add("consistent", consistent, Balance::Consistent);
    add("maglev", maglev, Balance::Maglev);
    if let Some(raw) = sticky {
        let both = super::sticky::sticky(*raw, spot.key("sticky"), report);
        given.push(("sticky", both.map(|(balance, sticky)| (balance, Some(sticky)))));
    }
    if let [(first, _), (second, _), ..] = given.as_slice() {
        let finding = report.fault(spot.key(second).key_span(), Code::Conflict, "an endpoint is chosen in one way");
        finding.related(spot.key(first).key_span(), "the other one is here").hint("remove one of both");
        return None;
    }
    if given.is_empty() && !spot.is_damaged() {
        let problem = "this balance needs one of the keys \"hash\", \"consistent\", \"maglev\" and \"sticky\"";
        report
            .fault(spot.span(), Code::MissingKey, problem)
            .hint("for example balance: { consistent: client_address }");
    }
    given.pop()?.1
}

/// `backup` is a word for the second tier.
pub(super) fn priority(backup: Option<bool>, priority: Option<u32>, spot: Spot<'_>, report: &mut Report) -> u32 {
    if let (Some(_), Some(_)) = (backup, priority) {
        let problem = "\"backup\" and \"priority\" both say when this server gets requests";
        let finding = report.fault(spot.key("backup").key_span(), Code::Conflict, problem);
        finding.related(spot.key("priority").key_span(), "the priority is here").hint("remove one of both");
    }
    priority.unwrap_or_else(|| u32::from(backup.unwrap_or(false)))
}

/// Shares that grow would move keys at every step, and everybody's.
pub(super) fn check_slow_start(balance: &Balance, slow_start: Duration, upstream: Spot<'_>, report: &mut Report) {
    if balance.key().is_some() && !slow_start.is_zero() {
        let problem = "keys would move at each step of a slow start";
        let finding = report.fault(upstream.key("slow_start").key_span(), Code::Conflict, problem);
        let related = finding.related(upstream.key("balance").span(), "endpoints are chosen by key here");
        related.hint("remove slow_start, or choose another balance");
    }
}

impl From<raw::BalanceWord> for Balance {
    fn from(word: raw::BalanceWord) -> Self {
        match word {
            raw::BalanceWord::RoundRobin => Self::RoundRobin,
            raw::BalanceWord::LeastConn => Self::LeastConn,
            raw::BalanceWord::IpHash => Self::IpHash,
            raw::BalanceWord::Random => Self::Random,
            raw::BalanceWord::RandomTwo => Self::RandomTwo,
            raw::BalanceWord::Ewma => Self::Ewma,
        }
    }
}
