//! Who may connect: caps on all connections together and on those of one client address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts connections and holds them to their caps; shared by all shards.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    open: AtomicUsize,
    total: AtomicUsize,
    per_address: AtomicUsize,
    /// Connections by client; only addresses with at least one are in it.
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// Why a connection was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// The cap on all connections.
    Total,
    /// The cap on one client address.
    PerAddress,
}

impl Denied {
    /// Word for metrics.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Total => "connections_total",
            Self::PerAddress => "connections_per_address",
        }
    }
}

/// One admitted connection; counts until it is dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    admission: Arc<Admission>,
    key: Option<IpAddr>,
}

impl Admission {
    /// Sets the caps; connections that are open already stay.
    pub(crate) fn set_limits(&self, total: usize, per_address: usize) {
        self.total.store(total, Ordering::Relaxed);
        self.per_address.store(per_address, Ordering::Relaxed);
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Counts a connection in. Unix socket clients have no address and count only in all.
    pub(crate) fn admit(self: &Arc<Self>, peer: Option<IpAddr>) -> Result<Admitted, Denied> {
        let total = self.total.load(Ordering::Relaxed);
        if self.open.fetch_add(1, Ordering::Relaxed) >= total {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Denied::Total);
        }
        // From here on dropping `admitted` gives the place back.
        let mut admitted = Admitted { admission: self.clone(), key: None };
        if let Some(peer) = peer {
            let key = address_key(peer);
            let cap = self.per_address.load(Ordering::Relaxed);
            let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
            let count = by_address.entry(key).or_insert(0);
            if *count >= cap {
                return Err(Denied::PerAddress);
            }
            *count += 1;
            admitted.key = Some(key);
        }
        Ok(admitted)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.open.fetch_sub(1, Ordering::Relaxed);
        let Some(key) = self.key else { return };
        let mut by_address = self.admission.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_address.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&key);
            }
        }
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
    use super::{Admission, Denied};
    use std::net::IpAddr;
    use std::sync::Arc;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn a_refused_connection_leaves_no_trace() {
        let admission = Arc::new(Admission::default());
        admission.set_limits(3, 2);
        let first = admission.admit(ip("127.0.0.1")).expect("room");
        let _second = admission.admit(ip("::ffff:127.0.0.1")).expect("room");
        assert_eq!(admission.admit(ip("127.0.0.1")).err(), Some(Denied::PerAddress));
        let _third = admission.admit(ip("127.0.0.2")).expect("room for another client");
        assert_eq!(admission.admit(ip("127.0.0.3")).err(), Some(Denied::Total));
        assert_eq!(admission.open(), 3);
        drop(first);
        assert!(admission.admit(ip("127.0.0.1")).is_ok());
        assert_eq!(admission.open(), 2);
    }

    #[test]
    fn a_v6_subscriber_counts_as_one_client() {
        let admission = Arc::new(Admission::default());
        admission.set_limits(10, 1);
        let _one = admission.admit(ip("2001:db8:1:2::1")).expect("room");
        assert_eq!(admission.admit(ip("2001:db8:1:2:ffff::9")).err(), Some(Denied::PerAddress));
        assert!(admission.admit(ip("2001:db8:1:3::1")).is_ok());
    }
}
