//! Who may connect: caps on connections together, of one listener and of one client address, and on descriptors.
//!
//! Connections of clients and to endpoints share one budget of descriptors, so that neither meets the system's limit: a
//! request that needs a connection over it is refused with a reason, where the system would refuse to accept anybody.
//! Clients leave a part of it to endpoints, because a request with nowhere to go is worth less than one fewer client.

use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Part of the descriptors that clients leave to connections to endpoints, and the most that they leave.
const UPSTREAM_SHARE: usize = 4;
const MOST_UPSTREAM: usize = 1_024;

/// Counts connections and holds them to their caps; shared by all shards.
#[derive(Debug)]
pub(crate) struct Admission {
    open: AtomicUsize,
    total: AtomicUsize,
    per_address: AtomicUsize,
    /// Sockets in use, of clients and to endpoints, and how many there may be.
    descriptors: AtomicUsize,
    room: AtomicUsize,
    /// Connections by client; only addresses with at least one are in it.
    by_address: Mutex<HashMap<IpAddr, usize>>,
    /// Turns of TLS handshakes. Another number is another set of turns: those taken before run out by themselves.
    handshakes: ArcSwap<Turns>,
}

#[derive(Debug)]
struct Turns {
    most: usize,
    free: Arc<Semaphore>,
}

impl Turns {
    fn new(most: usize) -> Self {
        Self { most, free: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))) }
    }
}

/// What connections are held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caps {
    /// Clients together, as configured.
    pub(crate) total: Option<usize>,
    /// Clients of one address.
    pub(crate) per_address: usize,
    /// TLS handshakes at a time.
    pub(crate) handshakes: usize,
    /// Descriptors for connections of both kinds.
    pub(crate) room: usize,
}

/// Connections of one listener.
#[derive(Debug, Default)]
pub(crate) struct Seats(AtomicUsize);

/// Why a connection was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// The cap on all connections.
    Total,
    /// The cap on the listener's connections.
    Listener,
    /// The cap on one client address.
    PerAddress,
    /// Connections to endpoints have taken the rest of the descriptors. Some of them may be idle.
    Descriptors,
}

impl Denied {
    /// Word for metrics.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Total => "connections_total",
            Self::Listener => "connections_listener",
            Self::PerAddress => "connections_per_address",
            Self::Descriptors => "descriptors",
        }
    }
}

/// One admitted connection; counts until it is dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    admission: Arc<Admission>,
    /// Set once the listener has counted it.
    seats: Option<Arc<Seats>>,
    _descriptor: Descriptor,
    key: Option<IpAddr>,
}

/// The right to one descriptor for a connection; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Descriptor(Arc<Admission>);

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.0.descriptors.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Admission {
    /// Nobody is admitted before there are caps.
    fn default() -> Self {
        Self {
            open: AtomicUsize::new(0),
            total: AtomicUsize::new(0),
            per_address: AtomicUsize::new(0),
            descriptors: AtomicUsize::new(0),
            room: AtomicUsize::new(0),
            by_address: Mutex::default(),
            handshakes: ArcSwap::from_pointee(Turns::new(0)),
        }
    }
}

impl Admission {
    /// Sets the caps; connections that are open already stay.
    pub(crate) fn set_caps(&self, caps: Caps) {
        let Caps { total, per_address, handshakes, room } = caps;
        let spare = (room / UPSTREAM_SHARE).min(MOST_UPSTREAM);
        let most = room - spare;
        self.room.store(room, Ordering::Relaxed);
        self.total.store(total.unwrap_or(most).min(most), Ordering::Relaxed);
        self.per_address.store(per_address, Ordering::Relaxed);
        if self.handshakes.load().most != handshakes {
            self.handshakes.store(Arc::new(Turns::new(handshakes)));
        }
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Counts a connection in. `peer` is whom it counts for; `None` for somebody without an address, or one that is
    /// not known yet ([`Admitted::claim`]).
    pub(crate) fn admit(
        self: &Arc<Self>,
        peer: Option<IpAddr>,
        seats: &Arc<Seats>,
        most: Option<usize>,
    ) -> Result<Admitted, Denied> {
        let total = self.total.load(Ordering::Relaxed);
        if self.open.fetch_add(1, Ordering::Relaxed) >= total {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Denied::Total);
        }
        let Some(descriptor) = self.descriptor() else {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Denied::Descriptors);
        };
        // From here on dropping `admitted` gives the place back.
        let mut admitted = Admitted { admission: self.clone(), seats: None, _descriptor: descriptor, key: None };
        let taken = seats.0.fetch_add(1, Ordering::Relaxed);
        admitted.seats = Some(seats.clone());
        if most.is_some_and(|most| taken >= most) {
            return Err(Denied::Listener);
        }
        if let Some(peer) = peer {
            admitted.claim(peer)?;
        }
        Ok(admitted)
    }

    /// A descriptor for a connection, if there is one left.
    pub(crate) fn descriptor(self: &Arc<Self>) -> Option<Descriptor> {
        let used = self.descriptors.fetch_add(1, Ordering::Relaxed);
        // Made first, so that dropping it takes the count back.
        let descriptor = Descriptor(self.clone());
        (used < self.room.load(Ordering::Relaxed)).then_some(descriptor)
    }

    /// Waits for the turn to do a TLS handshake; it lasts until it is dropped.
    pub(crate) async fn handshake_turn(&self) -> Option<OwnedSemaphorePermit> {
        let free = self.handshakes.load().free.clone();
        // Nobody closes it.
        free.acquire_owned().await.ok()
    }
}

impl Admitted {
    /// Counts the connection for a client's address, now that it is known.
    ///
    /// # Errors
    ///
    /// When the address has as many as it may have.
    pub(crate) fn claim(&mut self, peer: IpAddr) -> Result<(), Denied> {
        self.release();
        let key = address_key(peer);
        let cap = self.admission.per_address.load(Ordering::Relaxed);
        let mut by_address = self.admission.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_address.entry(key).or_insert(0);
        if *count >= cap {
            if *count == 0 {
                by_address.remove(&key);
            }
            return Err(Denied::PerAddress);
        }
        *count += 1;
        self.key = Some(key);
        Ok(())
    }

    /// Counts it for no address any more.
    fn release(&mut self) {
        let Some(key) = self.key.take() else { return };
        let mut by_address = self.admission.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_address.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&key);
            }
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(seats) = &self.seats {
            seats.0.fetch_sub(1, Ordering::Relaxed);
        }
        self.release();
    }
}

/// IPv4 whole (mapped addresses too), IPv6 by /64: one subscriber usually holds a whole /64.
fn address_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Admission, Admitted, Caps, Denied, Seats};
    use std::net::IpAddr;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    fn admission(total: usize, per_address: usize) -> Arc<Admission> {
        let admission = Arc::new(Admission::default());
        admission.set_caps(Caps { total: Some(total), per_address, handshakes: 2, room: 1_000 });
        admission
    }

    fn admit(admission: &Arc<Admission>, peer: Option<IpAddr>) -> Result<Admitted, Denied> {
        admission.admit(peer, &Arc::default(), None)
    }

    #[test]
    fn a_refused_connection_leaves_no_trace() {
        let admission = admission(3, 2);
        let first = admit(&admission, ip("127.0.0.1")).expect("room");
        let _second = admit(&admission, ip("::ffff:127.0.0.1")).expect("room");
        assert_eq!(admit(&admission, ip("127.0.0.1")).err(), Some(Denied::PerAddress));
        let _third = admit(&admission, ip("127.0.0.2")).expect("room for another client");
        assert_eq!(admit(&admission, ip("127.0.0.3")).err(), Some(Denied::Total));
        assert_eq!((admission.open(), admission.descriptors.load(Ordering::Relaxed)), (3, 3));
        drop(first);
        assert!(admit(&admission, ip("127.0.0.1")).is_ok());
        assert_eq!((admission.open(), admission.descriptors.load(Ordering::Relaxed)), (2, 2));
    }

    #[test]
    fn a_v6_subscriber_counts_as_one_client() {
        let admission = admission(10, 1);
        let _one = admit(&admission, ip("2001:db8:1:2::1")).expect("room");
        assert_eq!(admit(&admission, ip("2001:db8:1:2:ffff::9")).err(), Some(Denied::PerAddress));
        assert!(admit(&admission, ip("2001:db8:1:3::1")).is_ok());
    }

    #[test]
    fn a_listener_has_its_own_cap() {
        let admission = admission(10, 10);
        let (small, other) = (Arc::new(Seats::default()), Arc::new(Seats::default()));
        let one = admission.admit(None, &small, Some(1)).expect("room");
        assert_eq!(admission.admit(None, &small, Some(1)).err(), Some(Denied::Listener));
        assert!(admission.admit(None, &other, Some(1)).is_ok());
        drop(one);
        assert!(admission.admit(None, &small, Some(1)).is_ok());
        assert_eq!(admission.open(), 0);
    }

    #[test]
    fn an_address_may_be_claimed_later() {
        let admission = admission(10, 1);
        let mut first = admit(&admission, None).expect("room");
        let mut second = admit(&admission, None).expect("room");
        assert_eq!(first.claim(ip("192.0.2.7").expect("one")), Ok(()));
        assert_eq!(second.claim(ip("192.0.2.7").expect("one")), Err(Denied::PerAddress));
        drop(first);
        assert_eq!(second.claim(ip("192.0.2.7").expect("one")), Ok(()));
    }

    #[test]
    fn a_connection_counts_for_one_address_at_a_time() {
        let admission = admission(10, 1);
        let mut named = admit(&admission, ip("192.0.2.1")).expect("room");
        assert_eq!(named.claim(ip("192.0.2.7").expect("one")), Ok(()));
        assert!(admit(&admission, ip("192.0.2.1")).is_ok(), "the balancer's own place is free again");
        drop(named);
        assert!(admission.by_address.lock().expect("whole").is_empty());
    }

    #[test]
    fn clients_and_endpoints_share_the_descriptors() {
        let admission = Arc::new(Admission::default());
        admission.set_caps(Caps { total: None, per_address: 100, handshakes: 2, room: 8 });
        let clients: Vec<_> = std::iter::from_fn(|| admit(&admission, None).ok()).collect();
        assert_eq!(clients.len(), 6, "a quarter is left to endpoints");
        let connections: Vec<_> = std::iter::from_fn(|| admission.descriptor()).collect();
        assert_eq!(connections.len(), 2);
        drop(clients);
        let more: Vec<_> = std::iter::from_fn(|| admission.descriptor()).collect();
        assert_eq!(more.len(), 6);
        assert_eq!(admit(&admission, None).err(), Some(Denied::Descriptors));
        drop((connections, more));
        assert_eq!(admission.descriptors.load(Ordering::Relaxed), 0);
        admission.set_caps(Caps { total: Some(100), per_address: 100, handshakes: 2, room: 1 });
        assert!(admit(&admission, None).is_ok(), "somebody can always connect");
    }

    #[tokio::test]
    async fn handshakes_take_turns() {
        let admission = admission(10, 10);
        let first = admission.handshake_turn().await;
        let _second = admission.handshake_turn().await;
        let third = admission.handshake_turn();
        tokio::pin!(third);
        assert!(glance(third.as_mut()).await.is_none());
        drop(first);
        assert!(third.await.is_some());
    }

    /// One look at a future.
    async fn glance<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
        use std::task::Poll;
        std::future::poll_fn(|cx| match std::pin::Pin::new(&mut future).poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }
}
