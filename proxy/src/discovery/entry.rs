//! What is known of one name: its addresses, and when it is asked for next. Pure: answers, time and chance are given.
//!
//! Addresses that were good stay good until somebody says otherwise: a name server that fails says nothing, and one that
//! says that there is no such name is believed after `keep_missing`, by default never.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_config::model::{Dns, Families};
use tidegate_traffic::pool::servers::{Resolved, Share};

/// From the first failure to the next question; doubled with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The most that it grows to.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// What one question brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// Addresses, and how long they hold.
    Found(Vec<IpAddr>, Duration),
    /// The name server says that there are none.
    Missing(Lack),
    /// Nobody says anything, for this reason.
    Failed(String),
}

/// What there is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lack {
    /// The name.
    Name,
    /// Addresses of the name.
    Addresses,
    /// SRV records of the name.
    Services,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "no such name",
            Self::Addresses => "the name has no address",
            Self::Services => "the name has no SRV record",
        })
    }
}

/// What the questions for one host brought; `None` was not asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HostAnswer {
    pub(crate) ipv4: Option<Lookup>,
    pub(crate) ipv6: Option<Lookup>,
}

/// One host that a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
    /// What its SRV record says.
    pub(crate) share: Option<Share>,
    pub(crate) answer: HostAnswer,
}

/// What a resolution brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Hosts, and how long they hold, apart from their addresses.
    Targets(Vec<Target>, Duration),
    /// The name server says that there is none.
    Missing(Lack),
    /// Nobody says anything, for this reason.
    Failed(String),
}

/// How the last resolution ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// There was none yet.
    Unknown,
    /// With addresses.
    Resolved,
    /// Without, since then.
    Missing(Lack, Instant),
    /// Nobody said anything.
    Failed(String),
}

impl State {
    /// Why there are no fresh addresses.
    pub(crate) fn trouble(&self) -> Option<String> {
        match self {
            Self::Unknown | Self::Resolved => None,
            Self::Missing(lack, _) => Some(lack.to_string()),
            Self::Failed(reason) => Some(reason.clone()),
        }
    }

    /// A word for it.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Unknown => "resolving",
            Self::Resolved => "resolved",
            Self::Missing(..) => "missing",
            Self::Failed(_) => "failed",
        }
    }
}

/// What the operator should hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// Nothing.
    None,
    /// It does not resolve any more, or for another kind of reason.
    Lost,
    /// It resolves, but for one of its hosts.
    Doubtful,
    /// It resolves again.
    Back,
}

/// What follows from an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Whether the set of addresses is another one.
    pub(crate) changed: bool,
    pub(crate) news: News,
}

/// One name.
#[derive(Debug)]
pub(crate) struct Entry {
    dns: Arc<Dns>,
    /// In an order that does not change with that of the answers.
    set: Vec<Resolved>,
    state: State,
    due: Instant,
    /// Failures in a row.
    failures: u32,
    /// The last good addresses of each host.
    hosts: BTreeMap<Arc<str>, Addresses>,
    /// What one of its hosts lacks, although the name as a whole resolves.
    doubt: Option<String>,
}

/// Why an answer has no addresses.
enum Trouble {
    Missing(Lack),
    Failed(String),
}

/// Addresses by family.
#[derive(Debug, Clone, Default)]
struct Addresses {
    ipv4: Vec<IpAddr>,
    ipv6: Vec<IpAddr>,
}

impl Entry {
    /// A name that is to be asked for at once.
    pub(crate) fn new(dns: Arc<Dns>, now: Instant) -> Self {
        Self { dns, set: Vec::new(), state: State::Unknown, due: now, failures: 0, hosts: BTreeMap::new(), doubt: None }
    }

    /// Takes over settings, and is to be asked for at once: files of the system may have changed too.
    pub(crate) fn renew(&mut self, dns: Arc<Dns>, now: Instant) {
        self.dns = dns;
        self.due = now;
    }

    /// How it is asked for.
    pub(crate) fn dns(&self) -> &Arc<Dns> {
        &self.dns
    }

    /// Its addresses.
    pub(crate) fn set(&self) -> &[Resolved] {
        &self.set
    }

    /// How its last resolution ended.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// What is wrong with it: all of it, or one of its hosts.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.state.trouble().or_else(|| self.doubt.clone())
    }

    /// When it is to be asked for.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// Takes over an answer. `draw` is a random number.
    pub(crate) fn settle(&mut self, answer: Answer, now: Instant, draw: u64) -> Settled {
        let (before, doubted) = (self.state.trouble(), self.doubt.take());
        let fresh = match answer {
            Answer::Targets(targets, ttl) => self.read(&targets, ttl),
            Answer::Missing(lack) => Err(Trouble::Missing(lack)),
            Answer::Failed(reason) => Err(Trouble::Failed(reason)),
        };
        let set = match fresh {
            Ok((set, ttl)) => {
                self.state = State::Resolved;
                self.failures = 0;
                self.due = now + clamp(ttl, &self.dns);
                Some(set)
            }
            Err(Trouble::Missing(lack)) => self.miss(lack, now, draw),
            Err(Trouble::Failed(reason)) => {
                self.state = State::Failed(reason);
                self.due = now + self.pause(draw);
                None
            }
        };
        let changed = set.as_ref().is_some_and(|set| *set != self.set);
        self.set = set.unwrap_or_else(|| std::mem::take(&mut self.set));
        let news = match (before.is_some(), self.state.trouble().is_some()) {
            (false, true) => News::Lost,
            (_, false) if self.doubt.is_some() && doubted.is_none() => News::Doubtful,
            (true, false) => News::Back,
            (false, false) if doubted.is_some() && self.doubt.is_none() => News::Back,
            (false, false) | (true, true) => News::None,
        };
        Settled { changed, news }
    }

    /// There is no such name; the set that follows, where it is another one.
    fn miss(&mut self, lack: Lack, now: Instant, draw: u64) -> Option<Vec<Resolved>> {
        let since = match self.state {
            State::Missing(_, since) => since,
            _ => now,
        };
        self.state = State::Missing(lack, since);
        let pause = self.pause(draw);
        self.due = now + pause;
        let end = since + self.dns.keep_missing?;
        if now < end && !self.set.is_empty() {
            self.due = self.due.min(end);
            return None;
        }
        self.hosts.clear();
        Some(Vec::new())
    }

    /// Until the next question after a failure: a little less than a doubling time, so that not all come at once.
    fn pause(&mut self, draw: u64) -> Duration {
        let doubled = FIRST_RETRY.saturating_mul(1 << self.failures.min(8));
        self.failures = self.failures.saturating_add(1);
        let whole = doubled.min(LAST_RETRY).min(self.dns.max_ttl);
        #[expect(clippy::cast_precision_loss, reason = "chance needs no more than 52 bits")]
        let part = draw as f64 / u64::MAX as f64;
        whole.mul_f64(1.0 - part / 4.0)
    }

    /// The set that hosts make, with how long it holds, or why there is none.
    fn read(&mut self, targets: &[Target], ttl: Duration) -> Result<(Vec<Resolved>, Duration), Trouble> {
        let lookups = || targets.iter().flat_map(|target| [&target.answer.ipv4, &target.answer.ipv6]).flatten();
        let times = lookups().filter_map(|lookup| match lookup {
            Lookup::Found(_, ttl) => Some(*ttl),
            Lookup::Missing(_) | Lookup::Failed(_) => None,
        });
        let Some(shortest) = times.min() else { return Err(why(lookups())) };
        let mut hosts = BTreeMap::new();
        let mut set = Vec::new();
        for target in targets {
            let last = self.hosts.get(&target.host).cloned().unwrap_or_default();
            let good = Addresses {
                ipv4: good(target.answer.ipv4.as_ref(), last.ipv4),
                ipv6: good(target.answer.ipv6.as_ref(), last.ipv6),
            };
            let resolved = |ip: &IpAddr| Resolved {
                address: SocketAddr::new(*ip, target.port),
                host: Arc::clone(&target.host),
                share: target.share,
            };
            set.extend(chosen(&good, self.dns.families).map(resolved));
            self.doubt = self.doubt.take().or_else(|| doubt(target));
            hosts.insert(Arc::clone(&target.host), good);
        }
        self.hosts = hosts;
        set.sort_by_key(|one: &Resolved| (one.share.map(|share| share.tier), one.address));
        set.dedup_by_key(|one| one.address);
        Ok((set, shortest.min(ttl)))
    }
}

/// The time until a name whose records hold for `ttl` is asked for again.
fn clamp(ttl: Duration, dns: &Dns) -> Duration {
    ttl.min(dns.max_ttl).max(dns.min_ttl)
}

/// A failure may hide addresses, so it counts before what is said to be missing.
fn why<'a>(lookups: impl Iterator<Item = &'a Lookup>) -> Trouble {
    let mut trouble = Trouble::Missing(Lack::Addresses);
    for lookup in lookups {
        match lookup {
            Lookup::Failed(reason) => return Trouble::Failed(reason.clone()),
            Lookup::Missing(lack) => trouble = Trouble::Missing(*lack),
            Lookup::Found(..) => {}
        }
    }
    trouble
}

/// What the answer for a host lacks: a failure, or all of it.
fn doubt(target: &Target) -> Option<String> {
    let lookups = || [&target.answer.ipv4, &target.answer.ipv6].into_iter().flatten();
    let found = lookups().any(|lookup| matches!(lookup, Lookup::Found(..)));
    let reason = match why(lookups()) {
        Trouble::Failed(reason) => reason,
        Trouble::Missing(_) if found => return None,
        Trouble::Missing(lack) => lack.to_string(),
    };
    Some(format!("{}: {reason}", target.host))
}

/// What counts for one family: a failure leaves what was good.
fn good(lookup: Option<&Lookup>, last: Vec<IpAddr>) -> Vec<IpAddr> {
    match lookup {
        Some(Lookup::Found(addresses, _)) => addresses.clone(),
        Some(Lookup::Failed(_)) => last,
        Some(Lookup::Missing(_)) | None => Vec::new(),
    }
}

fn chosen(good: &Addresses, families: Families) -> impl Iterator<Item = &IpAddr> {
    let (first, second) = match families {
        Families::Both | Families::Ipv4 | Families::PreferIpv4 => (&good.ipv4, &good.ipv6),
        Families::Ipv6 | Families::PreferIpv6 => (&good.ipv6, &good.ipv4),
    };
    let takes_second = match families {
        Families::Both => true,
        Families::Ipv4 | Families::Ipv6 => false,
        Families::PreferIpv4 | Families::PreferIpv6 => first.is_empty(),
    };
    first.iter().chain(second.iter().filter(move |_| takes_second))
}

#[cfg(test)]
mod tests;
