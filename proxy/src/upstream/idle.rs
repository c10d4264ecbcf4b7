//! Idle connections of one shard, by endpoint and transport, the most recently used first.
//!
//! A request takes only what was made in the way its own snapshot speaks to the endpoint: after a reload that changes a
//! CA, name or certificate, what was verified by the old one serves nobody any more.
//!
//! An endpoint that answers without reading the whole request closes the connection behind its answer, as a rule without
//! having said so: what is left of the request would be taken for the next one. So a connection whose request may have been
//! left unread carries nothing that must not be lost until it has stayed open for a moment.
//!
//! The newest is taken first, so that a burst's extra connections age and leave. The pool belongs to one shard;
//! its lock is contended by the shard's own sweep, and by another shard that lacks a permit or a descriptor.

use super::connection::Connection;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tidegate_traffic::TransportId;
use tidegate_traffic::pool::endpoint::EndpointId;
use tokio::time::Instant;

/// What a request may need from the pool to the endpoint, with room to spare.
const MARGIN: Duration = Duration::from_secs(1);

/// Time in which an endpoint closes a connection behind an answer, on a very busy machine. Long, for what is lost by a new
/// connection in its place is little beside an upload.
const SETTLE: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Idle {
    connection: Connection,
    /// When it is known to stay open behind its last answer.
    settled: Instant,
    until: Instant,
}

/// Where an idle connection leads, and how it was made.
pub(crate) type Key = (EndpointId, TransportId);

/// The idle connections of a shard.
#[derive(Debug, Default)]
pub(crate) struct IdlePool {
    by_endpoint: Mutex<HashMap<Key, VecDeque<Idle>>>,
}

impl IdlePool {
    /// Takes a connection that is still usable at `now`. `careful`, for what cannot be sent again, takes none that is
    /// unsettled, and asks the kernel itself, for one system call more.
    pub(crate) fn take(&self, key: Key, now: Instant, careful: bool) -> Option<Connection> {
        let mut by_endpoint = self.by_endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = by_endpoint.get_mut(&key)?;
        while let Some(newest) = queue.iter().rposition(|idle| !careful || idle.settled <= now) {
            let mut idle = queue.remove(newest)?;
            if idle.until > now && idle.connection.is_quiet() && (!careful || idle.connection.is_open()) {
                let mut connection = idle.connection;
                connection.reused = true;
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for `keep` at the most, and no more than `cap` for its endpoint: the oldest gives way.
    pub(crate) fn put(&self, key: Key, mut connection: Connection, cap: usize, keep: Duration, now: Instant) {
        if cap == 0 || !connection.is_quiet() {
            return;
        }
        // A connection that the endpoint is about to close loses the request that is sent on it.
        let announced = connection.announced_idle.map(|time| time.saturating_sub(MARGIN));
        let keep = announced.map_or(keep, |announced| keep.min(announced));
        if keep.is_zero() {
            return;
        }
        connection.shrink();
        let mut by_endpoint = self.by_endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = by_endpoint.entry(key).or_default();
        let settled = if connection.unsettled { now + SETTLE } else { now };
        queue.push_back(Idle { connection, settled, until: now + keep });
        if queue.len() > cap {
            queue.pop_front();
        }
    }

    /// Closes what is overdue or closed by the other side, and everything that `keeps` denies.
    pub(crate) fn sweep(&self, now: Instant, keeps: impl Fn(Key) -> bool) {
        let mut by_endpoint = self.by_endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        by_endpoint.retain(|key, queue| {
            if !keeps(*key) {
                return false;
            }
            queue.retain_mut(|idle| idle.until > now && idle.connection.is_quiet());
            !queue.is_empty()
        });
    }

    /// Closes the connection to `endpoint` that has been idle for longest, which gives its permit to another shard.
    /// Whether there was one.
    pub(crate) fn give_one_back(&self, endpoint: EndpointId) -> bool {
        let mut by_endpoint = self.by_endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        let mut queues = by_endpoint.iter_mut().filter(|((known, _), _)| *known == endpoint);
        queues.find_map(|(_, queue)| queue.pop_front()).is_some()
    }

    /// Closes the connection that would be closed first, whose descriptor somebody else needs. Whether there was one.
    pub(crate) fn give_any_back(&self) -> bool {
        let mut by_endpoint = self.by_endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        // The oldest of each stands in front.
        let waiting = by_endpoint.values_mut().filter(|queue| !queue.is_empty());
        let first = waiting.min_by_key(|queue| queue.front().map(|idle| idle.until));
        first.and_then(VecDeque::pop_front).is_some()
    }

    /// Closes every idle connection to `endpoint`.
    pub(crate) fn forget(&self, endpoint: EndpointId) {
        let mut by_endpoint = self.by_endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        by_endpoint.retain(|(known, _), _| *known != endpoint);
    }
}

/// The time in a `Keep-Alive: timeout=5, max=100` field, in seconds there (RFC 2068 section 19.7.1.1).
pub(crate) fn announced_idle(field: &[u8]) -> Option<Duration> {
    let parameters = field.split(|byte| *byte == b',');
    let timeout = parameters.filter_map(|parameter| {
        let (name, value) = std::str::from_utf8(parameter).ok()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case("timeout").then(|| value.trim().trim_matches('"').parse().ok())?
    });
    timeout.min().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::admission::{Admission, Caps};
    use crate::edge::socket::Socket;
    use crate::upstream::link::Link;
    use std::sync::Arc;
    use tidegate_config::model::{Address, Capacity, Parsing, Upstream, UpstreamProtocol, UpstreamTimeouts};
    use tidegate_config::model::{Balance, EndpointSource, StaticServer};
    use tidegate_traffic::pool::endpoint::Endpoint;
    use tidegate_traffic::pool::lease::ConnPermit;
    use tidegate_traffic::pool::{EndpointIds, Pool};
    use tokio::net::UnixStream;

    fn endpoint() -> Arc<Endpoint> {
        let time = Duration::from_secs(1);
        let timeouts = UpstreamTimeouts {
            connect: time,
            total_connect: time,
            head: time,
            read: time,
            write: time,
            idle: time,
            request: None,
            abandoned_hold: time,
        };
        let server = StaticServer {
            address: Address::Unix("/x".into()).into(),
            weight: 1,
            priority: 0,
            max_conns: None,
            down: false,
            max_fails: None,
            fail_timeout: None,
        };
        let upstream = Upstream {
            name: "app".to_owned(),
            protocol: UpstreamProtocol::Http1,
            tls: None,
            proxy_protocol: None,
            parsing: Parsing::Strict,
            balance: Balance::RoundRobin,
            sticky: None,
            slow_start: Duration::ZERO,
            capacity: Capacity::default(),
            source: EndpointSource::Servers(vec![server]),
            dns: None,
            timeouts,
            idle_connections: 32,
            ejection: None,
            health_check: None,
            retry_budget: None,
            breaker: None,
            required: true,
            timing: tidegate_config::model::Timing::default(),
            worker_log: None,
            watch: Vec::new(),
            cost: false,
        };
        Pool::new(EndpointIds::default(), &upstream).endpoints().remove(0)
    }

    fn connection(endpoint: &Arc<Endpoint>, most: u32) -> Option<(Connection, UnixStream)> {
        let permit = ConnPermit::try_new(endpoint, most)?;
        let (near, far) = UnixStream::pair().unwrap();
        let admission = Arc::new(Admission::default());
        admission.set_caps(Caps { total: None, per_address: 1, handshakes: 1, room: 1 });
        Some((Connection::new(Link::Plain(Socket::Unix(near)), permit, admission.descriptor()?), far))
    }

    #[tokio::test]
    async fn a_shard_gives_back_what_another_one_needs() {
        let endpoint = endpoint();
        let (one, now) = (IdlePool::default(), Instant::now());
        let (held, _far) = connection(&endpoint, 1).unwrap();
        assert!(!one.give_one_back(endpoint.id()), "it is in use");
        one.put((endpoint.id(), TransportId::PLAIN), held, 8, Duration::from_secs(9), now);
        assert!(connection(&endpoint, 1).is_none(), "the only permit is idle elsewhere");
        assert!(one.give_one_back(endpoint.id()));
        assert!(connection(&endpoint, 1).is_some());
        assert!(!one.give_one_back(endpoint.id()));
    }

    #[tokio::test]
    async fn what_would_be_closed_first_is_given_back_first() {
        let (pool, now) = (IdlePool::default(), Instant::now());
        let endpoint = endpoint();
        assert!(!pool.give_any_back());
        let mut far = Vec::new();
        for (key, seconds) in [(0, 5), (1, 3), (0, 9)] {
            let (held, other) = connection(&endpoint, 8).unwrap();
            pool.put((endpoint.id(), TransportId(key)), held, 8, Duration::from_secs(seconds), now);
            far.push(Socket::Unix(other));
        }
        let open = |far: &[Socket]| far.iter().map(Socket::is_open).collect::<Vec<_>>();
        for expected in [[true, false, true], [false, false, true], [false; 3]] {
            assert!(pool.give_any_back());
            assert_eq!(open(&far), expected);
        }
        assert!(!pool.give_any_back());
    }

    #[tokio::test]
    async fn a_connection_is_not_kept_until_its_endpoint_closes_it() {
        let endpoint = endpoint();
        for (announced, after, kept) in
            [(None, 8, true), (Some(5), 3, true), (Some(5), 5, false), (Some(1), 0, false), (Some(60), 9, false)]
        {
            let (pool, now) = (IdlePool::default(), Instant::now());
            let (mut held, _far) = connection(&endpoint, 1).unwrap();
            held.announced_idle = announced.map(Duration::from_secs);
            pool.put((endpoint.id(), TransportId::PLAIN), held, 8, Duration::from_secs(9), now);
            let taken = pool.take((endpoint.id(), TransportId::PLAIN), now + Duration::from_secs(after), false);
            assert_eq!(taken.is_some(), kept, "{announced:?} after {after}");
        }
    }

    #[tokio::test]
    async fn a_connection_serves_the_transport_it_was_made_for() {
        let endpoint = endpoint();
        let (pool, now) = (IdlePool::default(), Instant::now());
        let key = |transport| (endpoint.id(), TransportId(transport));
        let (held, _far) = connection(&endpoint, 1).unwrap();
        pool.put(key(1), held, 8, Duration::from_secs(9), now);
        for other in [0, 2] {
            assert!(pool.take(key(other), now, false).is_none(), "transport {other}");
        }
        let held = pool.take(key(1), now, false).unwrap();
        pool.put(key(1), held, 8, Duration::from_secs(9), now);
        pool.sweep(now, |known| known == key(2));
        assert!(pool.take(key(1), now, false).is_none(), "swept with its transport");
    }

    #[tokio::test]
    async fn what_cannot_be_sent_again_waits_for_nobody_to_close() {
        let endpoint = endpoint();
        let (pool, now) = (IdlePool::default(), Instant::now());
        let key = (endpoint.id(), TransportId::PLAIN);
        let keep = Duration::from_secs(9);
        let mut far_ends = Vec::new();
        for unsettled in [false, true, true] {
            let (mut held, far) = connection(&endpoint, 9).unwrap();
            held.unsettled = unsettled;
            pool.put(key, held, 8, keep, now);
            far_ends.push(far);
        }
        assert!(!pool.take(key, now, true).unwrap().unsettled, "the settled one, though it is older");
        assert!(pool.take(key, now, true).is_none());
        assert!(pool.take(key, now, false).unwrap().unsettled, "what can be sent again takes any");
        assert!(pool.take(key, now + SETTLE - Duration::from_millis(1), true).is_none());
        assert!(pool.take(key, now + SETTLE, true).is_some());
    }

    #[test]
    fn announcements() {
        for (field, expected) in [
            ("timeout=5", Some(5)),
            ("timeout=5, max=100", Some(5)),
            ("max=100,Timeout = \"7\"", Some(7)),
            ("timeout=9, timeout=3", Some(3)),
            ("max=100", None),
            ("timeout=x", None),
            ("", None),
        ] {
            assert_eq!(announced_idle(field.as_bytes()), expected.map(Duration::from_secs), "{field}");
        }
    }
}
