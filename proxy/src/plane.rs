//! The data plane as the control side sees it: its shards, its listeners, and the one place where a snapshot is
//! swapped in.

use crate::edge::bind::{self, BindError, Bound};
use crate::edge::listener::{Listener, ListenerKey, Settings};
use crate::edge::shard::{self, Order, Shard};
use crate::observe::metrics::Metrics;
use crate::snapshot::Snapshot;
use crate::tls::policy::TlsPolicies;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tidegate_config::model::{Address, Model};
use tidegate_traffic::pool::endpoint::EndpointId;
use tokio::sync::{mpsc, watch};

/// Orders that a shard may have waiting; they are rare.
const ORDERS: usize = 1_024;
/// How long an order waits for room; a shard that takes none for so long hangs.
const ORDER_WAIT: Duration = Duration::from_secs(5);

/// The data plane; see the module's text.
#[derive(Debug)]
pub(crate) struct Plane {
    shards: Vec<Arc<Shard>>,
    orders: Vec<mpsc::Sender<Order>>,
    draining: watch::Sender<bool>,
    listeners: Mutex<Vec<Arc<Listener>>>,
}

/// A listener that a new configuration needs, bound but not yet accepting.
#[derive(Debug)]
pub(crate) struct NewListener {
    listener: Arc<Listener>,
    sockets: Vec<OwnedFd>,
    taken: bool,
}

impl NewListener {
    fn take(mut self) -> (Arc<Listener>, Vec<OwnedFd>) {
        self.taken = true;
        (self.listener.clone(), std::mem::take(&mut self.sockets))
    }
}

impl Drop for NewListener {
    /// A listener of a refused configuration leaves no file behind.
    fn drop(&mut self) {
        if !self.taken {
            remove_socket_file(&self.listener.actual);
        }
    }
}

/// The listeners of a new configuration: those that stay and those that are new, in the model's order.
#[derive(Debug, Default)]
pub(crate) struct ListenerPlan {
    keys: Vec<ListenerKey>,
    kept: Vec<(Arc<Listener>, Settings)>,
    new: Vec<NewListener>,
}

impl ListenerPlan {
    /// Binds what `model` needs beyond `current`. Dropping the plan closes what it has bound.
    ///
    /// # Errors
    ///
    /// Every listener that cannot be bound.
    pub(crate) fn prepare(
        model: &Model,
        current: &[Arc<Listener>],
        policies: &TlsPolicies,
        shards: usize,
        metrics: &Metrics,
        keys: &mut dyn FnMut() -> ListenerKey,
    ) -> Result<Self, Vec<BindError>> {
        let mut plan = Self::default();
        let mut faults = Vec::new();
        for listener in &model.listeners {
            let tls = policies.listener(&listener.name).cloned();
            let settings = Settings::of(listener, tls, metrics.listener(&listener.name));
            if let Some(kept) = current.iter().find(|current| current.is_for(listener)) {
                plan.keys.push(kept.key);
                plan.kept.push((kept.clone(), settings));
                continue;
            }
            let shared = shares_port(&listener.address, current);
            match bind::bind(&listener.name, &listener.address, shards, shared) {
                Ok(Bound { address, sockets }) => {
                    let key = keys();
                    let listener = Listener::new(key, listener.address.clone(), address, settings);
                    plan.keys.push(key);
                    plan.new.push(NewListener { listener: Arc::new(listener), sockets, taken: false });
                }
                Err(fault) => faults.push(fault),
            }
        }
        if faults.is_empty() { Ok(plan) } else { Err(faults) }
    }

    /// Run-time identities in the model's order.
    pub(crate) fn keys(&self) -> Vec<ListenerKey> {
        self.keys.clone()
    }
}

impl Plane {
    /// The shards, not yet running.
    pub(crate) fn new(shards: Vec<Arc<Shard>>, draining: watch::Sender<bool>) -> (Self, Vec<mpsc::Receiver<Order>>) {
        let (orders, receivers) = shards.iter().map(|_| mpsc::channel(ORDERS)).unzip();
        (Self { shards, orders, draining, listeners: Mutex::default() }, receivers)
    }

    /// Starts a thread for each shard.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub(crate) fn start(&self, receivers: Vec<mpsc::Receiver<Order>>) -> std::io::Result<Vec<JoinHandle<()>>> {
        let start = |(shard, orders): (&Arc<Shard>, _)| {
            let shard = shard.clone();
            std::thread::Builder::new().name(format!("shard-{}", shard.index)).spawn(move || {
                if let Err(error) = shard::run(&shard, orders) {
                    tracing::error!(shard = shard.index, %error, "shard cannot run");
                }
            })
        };
        self.shards.iter().zip(receivers).map(start).collect()
    }

    /// Whether it takes nothing new.
    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Its shards.
    pub(crate) fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    /// Listeners that accept now.
    pub(crate) fn listeners(&self) -> Vec<Arc<Listener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Swaps a configuration in: the one place that does. Nothing in here can fail, so a configuration serves whole
    /// or not at all. Order matters: pools first, then the views that route to them, then sockets.
    pub(crate) fn swap(&self, snapshot: &Arc<Snapshot>, plan: ListenerPlan, policies: &TlsPolicies) {
        snapshot.traffic.commit(&snapshot.model);
        policies.activate();
        let mut current = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<_> = current.iter().filter(|listener| !plan.keys.contains(&listener.key)).cloned().collect();
        current.retain(|listener| plan.keys.contains(&listener.key));
        for (listener, settings) in plan.kept {
            listener.replace(settings);
        }
        for shard in &self.shards {
            shard.replace_view(snapshot.clone());
        }
        for listener in gone {
            listener.close();
            self.order_all(|| Order::Unlisten(listener.key));
            remove_socket_file(&listener.actual);
        }
        for (listener, sockets) in plan.new.into_iter().map(NewListener::take) {
            for (orders, socket) in self.orders.iter().zip(sockets) {
                order(orders, Order::Listen(listener.clone(), socket));
            }
            current.push(listener);
        }
    }

    /// Closes idle connections to an endpoint on every shard. Never waits.
    pub(crate) fn forget(&self, endpoint: EndpointId) {
        for orders in &self.orders {
            // A shard that is behind finds out by its sweep.
            let _ = orders.try_send(Order::Forget(endpoint));
        }
    }

    /// Stops accepting; each shard's thread ends when its last connection has gone, or at `deadline`.
    pub(crate) fn drain(&self, deadline: Instant) {
        self.draining.send_replace(true);
        for listener in self.listeners() {
            listener.close();
            remove_socket_file(&listener.actual);
        }
        self.order_all(|| Order::Drain(deadline));
    }

    /// While it drains: whether no request can come any more. `open` counts connections of clients.
    pub(crate) fn is_silent(&self, open: impl Fn() -> usize) -> bool {
        self.shards.first().is_none_or(|shard| shard.shared.ending.is_silent(self.shards.len(), open))
    }

    fn order_all(&self, make: impl Fn() -> Order) {
        for orders in &self.orders {
            order(orders, make());
        }
    }
}

/// Whether a listener of ours holds the port already, on another address: then the test for other programs would meet
/// ourselves.
fn shares_port(address: &Address, current: &[Arc<Listener>]) -> bool {
    let port = |address: &Address| match address {
        Address::Tcp(address) if address.port() != 0 => Some(address.port()),
        Address::Tcp(_) | Address::Unix(_) => None,
    };
    port(address).is_some_and(|wanted| current.iter().any(|listener| port(&listener.actual) == Some(wanted)))
}

/// A shard that takes no orders has ended; then there is nothing left to order.
fn order(orders: &mpsc::Sender<Order>, order: Order) {
    let mut order = order;
    let give_up = Instant::now() + ORDER_WAIT;
    while let Err(mpsc::error::TrySendError::Full(returned)) = orders.try_send(order) {
        if Instant::now() > give_up {
            tracing::error!(?returned, "a shard takes no orders");
            return;
        }
        order = returned;
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A unix socket's file would stay behind and look like a listener.
fn remove_socket_file(address: &Address) {
    if let Address::Unix(path) = address {
        // Somebody may have removed it already.
        let _ = std::fs::remove_file(path);
    }
}
