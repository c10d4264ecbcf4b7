//! Tries: what upstream, site and routes say together, settled once the kind of endpoint is known.

use std::collections::HashMap;
use std::time::Duration;

use super::hedge::{self, Hedge};
use super::names::EndpointKind;
use super::{each, keep};
use crate::fault::Code;
use crate::model::{Backoff, GrpcCodes, Rate, Retry, RetryBudget, RetryOn, Statuses};
use crate::raw::{self, OffWord};
use crate::report::Report;
use crate::source::Span;
use crate::suggest::did_you_mean;
use crate::tree::Spot;
use crate::units::{Reason, format_duration, parse_duration};

const TRIES: u32 = 2;
/// What `auto` means for servers: longer than a connect may take, shorter than a person waits.
const AUTO: Duration = Duration::from_secs(2);
const BASE: Duration = Duration::from_millis(25);
const MAX: Duration = Duration::from_millis(250);
const SHARE: u32 = 20;
const FLOOR: Rate = Rate { requests: 10, per: Duration::from_secs(1) };

/// What has been said so far, from the outside in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wishes {
    off: bool,
    /// A mapping stands somewhere; it may be empty.
    said: bool,
    tries: Option<u32>,
    on: Option<RetryOn>,
    grpc: Option<GrpcCodes>,
    try_timeout: Option<(TryTimeout, Span)>,
    hedge: Option<Hedge>,
    /// `backoff` stands somewhere.
    waits: bool,
    base: Option<Duration>,
    max: Option<Duration>,
    retry_after: Option<Option<Duration>>,
}

#[derive(Debug, Clone, Copy)]
enum TryTimeout {
    Auto,
    Off,
    Time(Duration),
}

/// What the upstreams say, by name.
pub(crate) fn of_upstreams(
    upstreams: &raw::Named<raw::Upstream>,
    spot: Spot<'_>,
    report: &mut Report,
) -> HashMap<String, Wishes> {
    let wishes = |(name, raw): &(String, raw::Upstream)| {
        let spot = spot.key(name).key("retry");
        (name.clone(), Wishes::default().with(raw.retry.clone(), spot, report))
    };
    upstreams.0.iter().map(wishes).collect()
}

impl Wishes {
    /// These, but for what a mapping further in says; `off` wipes all of them out.
    pub(crate) fn with(&self, raw: Option<Box<raw::RetryChoice>>, spot: Spot<'_>, report: &mut Report) -> Self {
        let raw = match raw.map(|raw| *raw) {
            None => return self.clone(),
            Some(raw::RetryChoice::Word(OffWord::Off)) => return Self { off: true, ..Self::default() },
            Some(raw::RetryChoice::Policy(raw)) => raw,
        };
        let raw::Retry { tries, on, grpc, try_timeout, hedge, backoff, respect_retry_after } = raw;
        let waits = backoff.is_some();
        let (base, max) = match backoff {
            Some(raw::Backoff { base, max }) => (base.map(|time| time.0), max.map(|time| time.0)),
            None => (None, None),
        };
        let place = spot.key("try_timeout");
        let try_timeout = try_timeout.and_then(|raw::Text(text)| {
            keep(parse_try_timeout(&text), &text, place, report).map(|time| (time, place.span()))
        });
        let retry_after = respect_retry_after
            .and_then(|raw::Text(text)| keep(parse_time_or_off(&text), &text, spot.key("respect_retry_after"), report));
        let wishes = Self {
            off: false,
            said: true,
            tries: tries.or(self.tries),
            on: on.map(|words| parse_on(words, spot.key("on"), report)).or(self.on),
            grpc: grpc.map(|codes| codes.into_iter().collect()).or(self.grpc),
            try_timeout: try_timeout.or(self.try_timeout),
            hedge: hedge::wish(hedge, spot.key("hedge"), report).or(self.hedge),
            waits: waits || self.waits,
            base: base.or(self.base),
            max: max.or(self.max),
            retry_after: retry_after.or(self.retry_after),
        };
        wishes.check_backoff(base.is_some(), spot, report);
        wishes
    }

    fn check_backoff(&self, is_base: bool, spot: Spot<'_>, report: &mut Report) {
        let (base, max) = self.backoff();
        if base <= max {
            return;
        }
        let problem = format!(
            "the first wait is at most {}, and all are at most {}",
            format_duration(base),
            format_duration(max)
        );
        let key = if is_base { "base" } else { "max" };
        report.fault(spot.key("backoff").key(key).span(), Code::Conflict, problem).hint("raise max, or lower base");
    }

    /// What is said of one of both moves the other one's default.
    fn backoff(&self) -> (Duration, Duration) {
        match (self.base, self.max) {
            (Some(base), max) => (base, max.unwrap_or(MAX.max(base))),
            (None, max) => (max.map_or(BASE, |max| BASE.min(max)), max.unwrap_or(MAX)),
        }
    }

    /// These over those of the upstream, for endpoints of this kind; `spot` is the route's.
    pub(crate) fn settle(
        &self,
        upstream: Option<&Self>,
        kind: Option<EndpointKind>,
        spot: Spot<'_>,
        report: &mut Report,
    ) -> Retry {
        let all = upstream.map_or_else(|| self.clone(), |upstream| self.over(upstream));
        if all.off {
            return Retry::OFF;
        }
        let (base, max) = all.backoff();
        let tries = all.tries.unwrap_or(TRIES);
        let try_timeout = settle_try_timeout(all.try_timeout, kind, spot, report);
        Retry {
            tries,
            on: all.on.unwrap_or(DEFAULT_ON),
            grpc: all.grpc.unwrap_or_default(),
            try_timeout,
            hedge: all.hedge.and_then(|wish| wish.settle(kind, tries, try_timeout, spot, report)),
            backoff: Backoff { base, max },
            start_over: all.waits,
            retry_after: all.retry_after.flatten(),
        }
    }

    fn over(&self, outer: &Self) -> Self {
        if self.off {
            return self.clone();
        }
        Self {
            off: outer.off && !self.said,
            said: self.said || outer.said,
            tries: self.tries.or(outer.tries),
            on: self.on.or(outer.on),
            grpc: self.grpc.or(outer.grpc),
            try_timeout: self.try_timeout.or(outer.try_timeout),
            hedge: self.hedge.or(outer.hedge),
            waits: self.waits || outer.waits,
            base: self.base.or(outer.base),
            max: self.max.or(outer.max),
            retry_after: self.retry_after.or(outer.retry_after),
        }
    }
}

const DEFAULT_ON: RetryOn =
    RetryOn { connect: true, closed: true, timeout: true, invalid: false, statuses: Statuses::NONE };

fn settle_try_timeout(
    wish: Option<(TryTimeout, Span)>,
    kind: Option<EndpointKind>,
    spot: Spot<'_>,
    report: &mut Report,
) -> Option<Duration> {
    match (wish, kind) {
        (Some((TryTimeout::Off, _)), _) => None,
        (Some((TryTimeout::Time(_), span)), Some(EndpointKind::H2)) => {
            let problem = "one try at an HTTP/2 endpoint cannot have a time of its own in this version";
            let finding = report.fault(span, Code::NotAvailable, problem);
            finding
                .related(spot.key("proxy").span(), "this route's upstream has protocol: h2")
                .hint("write try_timeout: off, or lower the upstream's timeouts (head and read)");
            None
        }
        (Some((TryTimeout::Time(time), _)), _) => Some(time),
        (Some((TryTimeout::Auto, _)) | None, Some(EndpointKind::Server)) => Some(AUTO),
        (Some((TryTimeout::Auto, _)) | None, _) => None,
    }
}

fn parse_try_timeout(text: &str) -> Result<TryTimeout, Reason> {
    match text {
        "auto" => Ok(TryTimeout::Auto),
        text => parse_time_or_off(text).map(|time| time.map_or(TryTimeout::Off, TryTimeout::Time)),
    }
}

pub(super) fn parse_time_or_off(text: &str) -> Result<Option<Duration>, Reason> {
    match text {
        "off" => Ok(None),
        text => match parse_duration(text)? {
            Duration::ZERO => Err(Reason::new("must not be zero", "write off")),
            time => Ok(Some(time)),
        },
    }
}

fn parse_on(words: Vec<raw::Text>, spot: Spot<'_>, report: &mut Report) -> RetryOn {
    let mut on = RetryOn::NOTHING;
    each(words, spot, report, |raw::Text(word), spot, report| {
        let known = match word.as_str() {
            "connect" => &mut on.connect,
            "closed" => &mut on.closed,
            "timeout" => &mut on.timeout,
            "invalid" => &mut on.invalid,
            status => {
                let taken = status.parse().is_ok_and(|status| on.statuses.insert(status));
                return if taken { Some(()) } else { keep(Err(no_trigger(status)), status, spot, report) };
            }
        };
        *known = true;
        Some(())
    });
    on
}

impl FromIterator<raw::GrpcCode> for GrpcCodes {
    fn from_iter<I: IntoIterator<Item = raw::GrpcCode>>(codes: I) -> Self {
        codes.into_iter().fold(Self::NONE, |all, code| {
            all.with(match code {
                raw::GrpcCode::Cancelled => Self::CANCELLED,
                raw::GrpcCode::DeadlineExceeded => Self::DEADLINE_EXCEEDED,
                raw::GrpcCode::ResourceExhausted => Self::RESOURCE_EXHAUSTED,
                raw::GrpcCode::Internal => Self::INTERNAL,
                raw::GrpcCode::Unavailable => Self::UNAVAILABLE,
            })
        })
    }
}

fn no_trigger(word: &str) -> Reason {
    let words = ["connect", "closed", "timeout", "invalid"];
    let hint = match word {
        "error" => "write connect, closed".to_owned(),
        "invalid_header" => "write invalid".to_owned(),
        "non_idempotent" => "a request that may have had an effect is never sent twice: remove it".to_owned(),
        "off" => "write retry: off".to_owned(),
        word if word.starts_with("http_") => "write the status alone, such as 503".to_owned(),
        word => did_you_mean(word, words)
            .unwrap_or_else(|| "write connect, closed, timeout, invalid or a status from 400 to 599".to_owned()),
    };
    Reason::new("is nothing that is tried again", hint)
}

/// What an upstream's retries may come to; `None` is no limit.
pub(crate) fn budget(raw: Option<raw::RetryBudgetChoice>, spot: Spot<'_>, report: &mut Report) -> Option<RetryBudget> {
    let (share, floor) = match raw {
        Some(raw::RetryBudgetChoice::Word(OffWord::Off)) => return None,
        Some(raw::RetryBudgetChoice::Budget(raw::RetryBudget { share, floor })) => (share, floor),
        None => (None, None),
    };
    let share = share.and_then(|raw::Text(text)| keep(parse_share(&text), &text, spot.key("share"), report));
    Some(RetryBudget { share: share.unwrap_or(SHARE), floor: floor.map_or(FLOOR, |rate| rate.0) })
}

fn parse_share(text: &str) -> Result<u32, Reason> {
    let number = text.strip_suffix('%').ok_or_else(|| Reason::new("is not a share", "shares are written like 20%"))?;
    match number.parse() {
        Ok(share) if share <= 1_000 => Ok(share),
        _ => Err(Reason::new("is out of range", "shares go from 0% to 1000%, in whole numbers")),
    }
}

/// What a site or route says of its deadline, or what it inherits.
pub(crate) fn deadline(
    raw: Option<raw::Text>,
    inherited: Option<Duration>,
    spot: Spot<'_>,
    report: &mut Report,
) -> Option<Duration> {
    let Some(raw::Text(text)) = raw else { return inherited };
    keep(parse_time_or_off(&text), &text, spot, report).flatten()
}

/// An answer of our own needs no tries and no deadline.
pub(crate) fn check_use(route: Spot<'_>, report: &mut Report) {
    for key in ["retry", "deadline"].into_iter().filter(|key| route.has("respond") && route.has(key)) {
        let problem = format!("\"{key}\" is about answers of an upstream, and this route answers by itself");
        let finding = report.fault(route.key(key).key_span(), Code::Conflict, problem);
        finding.related(route.key("respond").key_span(), "the answer is here").hint("remove it");
    }
}
