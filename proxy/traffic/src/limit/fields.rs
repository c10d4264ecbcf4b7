//! What a client is told of its limits.
//!
//! `RateLimit` and `RateLimit-Policy` are those of draft-ietf-httpapi-ratelimit-headers: the quota is what a client may send
//! at once after a pause, the window the time in which it comes back. The older `X-RateLimit-` fields have room for one
//! limit: the one of which least is left.

use std::fmt::Write;
use std::time::Duration;

use tidegate_config::model::RateLimitHeaders;

use super::Asked;
use crate::edits::HeadEdits;

/// Fields of an answer; often none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitFields(Vec<(&'static str, String)>);

impl LimitFields {
    pub(super) fn new<'a>(asked: impl Iterator<Item = &'a Asked<'a>>) -> Self {
        let (mut policies, mut standard) = (String::new(), String::new());
        let mut tightest: Option<&Asked<'_>> = None;
        for asked in asked {
            let headers = asked.limit.headers;
            if matches!(headers, RateLimitHeaders::Standard | RateLimitHeaders::All) {
                asked.describe(&mut policies, &mut standard);
            }
            if matches!(headers, RateLimitHeaders::Legacy | RateLimitHeaders::All) {
                tightest = tightest.filter(|known| known.remaining() <= asked.remaining()).or(Some(asked));
            }
        }
        let mut fields = Vec::new();
        if !policies.is_empty() {
            fields.extend([("ratelimit-policy", policies), ("ratelimit", standard)]);
        }
        if let Some(asked) = tightest {
            fields.extend([
                ("x-ratelimit-limit", asked.limit.policy.quota().to_string()),
                ("x-ratelimit-remaining", asked.remaining().to_string()),
                ("x-ratelimit-reset", asked.reset().to_string()),
            ]);
        }
        Self(fields)
    }

    /// Names in lower case, and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// Says them in an answer, in place of what stands there under the same names.
    pub(crate) fn set(&self, edits: &mut HeadEdits<'static>) {
        for (name, value) in &self.0 {
            edits.set(*name, value.clone());
        }
    }
}

impl Asked<'_> {
    /// Appends to both lists (RFC 9651 section 3.1).
    fn describe(&self, policies: &mut String, standard: &mut String) {
        let between = if policies.is_empty() { "" } else { ", " };
        // What stands in a file without a name tells clients nothing about the file.
        let name = if self.limit.named { &*self.limit.name } else { "default" };
        let (quota, window) = (self.limit.policy.quota(), seconds(self.limit.policy.window()).max(1));
        // Writing to a string does not fail.
        let _ = write!(policies, "{between}\"{name}\";q={quota};w={window}");
        let _ = write!(standard, "{between}\"{name}\";r={};t={}", self.remaining(), self.reset());
    }

    fn remaining(&self) -> u64 {
        self.limit.policy.remaining(self.level_now())
    }

    /// Seconds until the whole quota is back.
    fn reset(&self) -> u64 {
        seconds(Duration::from_nanos(self.level_now()))
    }
}

/// Whole seconds, not less than the time itself.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
