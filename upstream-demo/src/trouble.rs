//! What a bad release does to all its requests, but not when it is asked whether it is well.

use std::{future, time::Duration};

use hyper::{Response, StatusCode};
use tokio::time::sleep;

use crate::{answer, body::Body, options::Options};

/// How bad it is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Trouble {
    /// Of a hundred requests so many are answered with 500.
    pub(crate) fail: u64,
    /// Of a hundred requests so many are never answered.
    pub(crate) hang: u64,
    /// How much longer all others take.
    pub(crate) delay: Duration,
}

impl Trouble {
    /// Makes the request of that number, from 1, wait; an answer in place of its own if it is one of those that fail.
    pub(crate) async fn strike(self, path: &str, number: u64) -> Option<Response<Body>> {
        if path == "/healthz" {
            return None;
        }
        if hits(self.hang, number) {
            future::pending::<()>().await;
        }
        if !self.delay.is_zero() {
            sleep(self.delay).await;
        }
        hits(self.fail, number).then(|| answer::problem(StatusCode::INTERNAL_SERVER_ERROR, "this release is broken"))
    }
}

impl From<&Options> for Trouble {
    fn from(options: &Options) -> Self {
        Self { fail: options.fail, hang: options.hang, delay: options.delay }
    }
}

/// Evenly, so that few requests are enough to see the share.
fn hits(percent: u64, number: u64) -> bool {
    let before = number.saturating_sub(1);
    number * percent / 100 != before * percent / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_spread_evenly() {
        for (percent, first, of_hundred) in [(0, None, 0), (1, Some(100), 1), (30, Some(4), 30), (100, Some(1), 100)] {
            let hit: Vec<u64> = (1..=100).filter(|number| hits(percent, *number)).collect();
            assert_eq!((hit.first().copied(), hit.len()), (first, of_hundred), "{percent}%");
        }
    }
}
