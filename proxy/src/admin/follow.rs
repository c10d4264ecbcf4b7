//! Answers that go on: what is in a memory already, then, for who follows, each new entry as a line of JSON.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream::unfold;
use tokio::sync::{OwnedSemaphorePermit, watch};

/// A memory of numbered entries.
pub trait Feed: Send + Sync + 'static {
    /// The number after which the last `count` entries come.
    fn before_last(&self, count: usize) -> u64;
    /// What came after that number.
    fn after(&self, number: u64) -> Page;
    /// Changes when entries are added; [`ENDED`] when none will be any more.
    fn news(&self) -> watch::Receiver<u64>;
}

/// Some entries.
#[derive(Debug, Default)]
pub struct Page {
    /// Each as a line of JSON with its line break.
    pub lines: Vec<u8>,
    /// Number of the last one that was looked at.
    pub last: u64,
}

/// No entry has this number.
pub const ENDED: u64 = u64::MAX;

/// A place among those who follow; given back when the answer ends.
pub(super) type Seat = OwnedSemaphorePermit;

struct Reader {
    feed: Arc<dyn Feed>,
    news: watch::Receiver<u64>,
    after: u64,
    /// `None` for who does not follow.
    seat: Option<Seat>,
}

/// All that came after a number, and with a seat all that comes from then on, until the memory or the client ends.
pub(super) fn body(feed: Arc<dyn Feed>, after: u64, seat: Option<Seat>) -> Body {
    let news = feed.news();
    Body::from_stream(unfold(Some(Reader { feed, news, after, seat }), async |reader| reader?.next().await))
}

impl Reader {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Option<Self>)> {
        loop {
            // Before the look: what comes after it makes another one.
            let has_ended = *self.news.borrow_and_update() == ENDED;
            let page = self.feed.after(self.after);
            self.after = page.last;
            let goes_on = self.seat.is_some() && !has_ended;
            if !page.lines.is_empty() {
                return Some((Ok(page.lines.into()), goes_on.then_some(self)));
            }
            if !goes_on || self.news.changed().await.is_err() {
                return None;
            }
        }
    }
}
