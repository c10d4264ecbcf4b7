//! The bodies of our answers. One enum rather than boxed trait objects, because `/tiny` is what the bench asks for.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use crate::{pattern, server::InFlight};

/// The body of an answer. The connection counts as busy until it is dropped.
pub(crate) struct Body {
    source: Source,
    busy: Option<InFlight>,
}

enum Source {
    Whole(Bytes),
    Echo(Incoming),
    Pattern { offset: u64, end: u64 },
    Lines(Lines),
}

/// Lines that come one by one, with a pause before each but the first.
pub(crate) struct Lines {
    next: u64,
    end: u64,
    pause: Duration,
    format: fn(u64) -> String,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Body {
    /// These bytes.
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self { source: Source::Whole(bytes.into()), busy: None }
    }

    /// What the request carries, passed on as it comes, trailers included.
    pub(crate) fn echo(request: Incoming) -> Self {
        Self { source: Source::Echo(request), busy: None }
    }

    /// The first `length` bytes of the pattern.
    pub(crate) fn pattern(length: u64) -> Self {
        Self { source: Source::Pattern { offset: 0, end: length }, busy: None }
    }

    /// `count` lines made by `format`, of unknown length for the receiver.
    pub(crate) fn lines(count: u64, pause: Duration, format: fn(u64) -> String) -> Self {
        let lines = Lines { next: 0, end: count, pause, format, timer: None };
        Self { source: Source::Lines(lines), busy: None }
    }

    /// Keeps the connection busy as long as this body lives.
    pub(crate) fn holding(mut self, busy: InFlight) -> Self {
        self.busy = Some(busy);
        self
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    // An answer never fails by itself; only an echoed request does.
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut self.source {
            Source::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Source::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Source::Echo(request) => Pin::new(request).poll_frame(cx),
            Source::Pattern { offset, end } => {
                Poll::Ready(next_block(offset, *end).map(|block| Ok(Frame::data(block))))
            }
            Source::Lines(lines) => lines.poll_line(cx).map(|line| line.map(|line| Ok(Frame::data(line)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Whole(bytes) => bytes.is_empty(),
            Source::Echo(request) => request.is_end_stream(),
            Source::Pattern { offset, end } => offset == end,
            Source::Lines(lines) => lines.next == lines.end,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Echo(request) => request.size_hint(),
            Source::Pattern { offset, end } => SizeHint::with_exact(end - offset),
            Source::Lines(_) => SizeHint::default(),
        }
    }
}

impl Lines {
    fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.next == self.end {
            return Poll::Ready(None);
        }
        if let Some(timer) = &mut self.timer {
            std::task::ready!(timer.as_mut().poll(cx));
        }
        let line = (self.format)(self.next);
        self.next += 1;
        self.wind_up();
        Poll::Ready(Some(line.into()))
    }

    fn wind_up(&mut self) {
        if self.pause.is_zero() {
            return;
        }
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(Instant::now() + self.pause),
            None => self.timer = Some(Box::pin(sleep(self.pause))),
        }
    }
}

fn next_block(offset: &mut u64, end: u64) -> Option<Bytes> {
    let length = (end - *offset).min(BLOCK) as usize;
    let block = (length > 0).then(|| pattern::block(*offset, length));
    *offset += length as u64;
    block
}

/// What goes to the socket at once.
const BLOCK: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn read(body: Body) -> Bytes {
        body.collect().await.expect("no request is echoed").to_bytes()
    }

    #[tokio::test]
    async fn a_pattern_has_its_length_and_bytes() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5] {
            let body = Body::pattern(length);
            assert_eq!(body.size_hint().exact(), Some(length));
            assert_eq!(read(body).await, pattern::block(0, length as usize), "{length}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lines_pause_between_them() {
        let started = Instant::now();
        let body = Body::lines(3, Duration::from_secs(10), |line| format!("{line};"));
        assert_eq!(body.size_hint().exact(), None);
        assert_eq!(read(body).await, "0;1;2;");
        assert_eq!(started.elapsed(), Duration::from_secs(20));
    }
}
