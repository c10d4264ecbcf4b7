//! A version that does not start, shown instead of the one before it: for those who are writing it.
//!
//! The workers of the version before stay as they are, with the WebSockets and requests that they have; nothing new is sent to
//! them, because an answer of old code to a question about new code misleads.

use std::sync::Arc;

use super::{Inner, Pool};
use crate::refusal::{Refusal, RefusalKind};

impl Pool {
    /// From now on every new request is refused with this text, until there is none.
    pub fn show_broken_version(&self, text: Option<Arc<str>>) {
        let mut inner = self.lock();
        inner.broken_version = text;
        self.changed(inner);
    }

    /// Why nobody is sent now, if the newest version does not start.
    pub(super) fn broken_version(&self, inner: &Inner) -> Option<Refusal> {
        let text = inner.broken_version.clone()?;
        let detail = format!("upstream: {}, its newest version failed", self.name);
        Some(Refusal { shown: Some(text), ..Refusal::new(RefusalKind::BrokenVersion, detail) })
    }
}
