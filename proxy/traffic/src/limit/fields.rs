//! What a client is told of its limits.
//!
//! `RateLimit` and `RateLimit-Policy` are those of draft-ietf-httpapi-ratelimit-headers: the quota is what a client may send
//! at once after a pause, the window the time in which it comes back. The older `X-RateLimit-` fields have room for one
//! limit: the one of which least is left.
//!
//! A decision keeps numbers; their text is made when an answer is.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tidegate_config::model::RateLimitHeaders;

use super::Asked;
use super::policy::Policy;
use crate::edits::HeadEdits;

/// Fields of an answer; often none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitFields(SmallVec<[State; 2]>);

/// What there is to tell of a limit, whoever asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Notice {
    headers: RateLimitHeaders,
    /// As a string (RFC 9651 section 3.3.3), with its quotation marks.
    name: String,
    /// Its member of `RateLimit-Policy`.
    standard: String,
    policy: Policy,
}

/// A limit and how far a client is ahead of its rate, its request included if it was charged.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    notice: Arc<Notice>,
    level: u64,
}

impl LimitFields {
    pub(super) fn new(asked: &[Asked<'_>]) -> Self {
        let states = asked.iter().filter_map(|asked| {
            Some(State { notice: Arc::clone(asked.limit.notice.as_ref()?), level: asked.level_now() })
        });
        Self(states.collect())
    }

    /// Names in lower case, and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, String)> {
        let tightest = self.0.iter().filter(|state| state.notice.is_legacy()).min_by_key(|state| state.remaining());
        self.standard().into_iter().flatten().chain(tightest.map(State::legacy).into_iter().flatten())
    }

    fn standard(&self) -> Option<[(&'static str, String); 2]> {
        let mut all = self.0.iter().filter(|state| state.notice.is_standard());
        let first = all.next()?;
        let mut policies = first.notice.standard.clone();
        let mut standard = String::with_capacity(64);
        first.describe(&mut standard);
        for state in all {
            policies.push_str(", ");
            policies.push_str(&state.notice.standard);
            standard.push_str(", ");
            state.describe(&mut standard);
        }
        Some([("ratelimit-policy", policies), ("ratelimit", standard)])
    }

    /// Says them in an answer, in place of what stands there under the same names.
    pub(crate) fn set(&self, edits: &mut HeadEdits<'static>) {
        self.iter().for_each(|(name, value)| edits.set(name, value));
    }
}

impl Notice {
    /// `None` where clients are told nothing.
    pub(super) fn new(headers: RateLimitHeaders, name: &str, named: bool, policy: Policy) -> Option<Self> {
        if headers == RateLimitHeaders::Off {
            return None;
        }
        // What stands in a file without a name tells clients nothing about the file.
        let name = format!("\"{}\"", if named { name } else { "default" });
        let window = seconds(policy.window()).max(1);
        Some(Self { headers, standard: format!("{name};q={};w={window}", policy.quota()), name, policy })
    }

    fn is_standard(&self) -> bool {
        matches!(self.headers, RateLimitHeaders::Standard | RateLimitHeaders::All)
    }

    fn is_legacy(&self) -> bool {
        matches!(self.headers, RateLimitHeaders::Legacy | RateLimitHeaders::All)
    }
}

impl State {
    /// Appends its member of `RateLimit`.
    fn describe(&self, standard: &mut String) {
        // Writing to a string does not fail.
        let _ = write!(standard, "{};r={};t={}", self.notice.name, self.remaining(), self.reset());
    }

    fn legacy(&self) -> [(&'static str, String); 3] {
        [
            ("x-ratelimit-limit", self.notice.policy.quota().to_string()),
            ("x-ratelimit-remaining", self.remaining().to_string()),
            ("x-ratelimit-reset", self.reset().to_string()),
        ]
    }

    fn remaining(&self) -> u64 {
        self.notice.policy.remaining(self.level)
    }

    /// Seconds until the whole quota is back.
    fn reset(&self) -> u64 {
        seconds(Duration::from_nanos(self.level))
    }
}

/// Whole seconds, not less than the time itself.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
