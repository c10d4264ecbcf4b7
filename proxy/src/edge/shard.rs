//! One thread of the data plane: its runtime, its sockets, its idle upstream connections, its view of the snapshot.

use super::accept::{self, Acceptor};
use super::admission::{Admission, Descriptor};
use super::ending::Ending;
use super::listener::{Listener, ListenerKey};
use super::request_ids::RequestIds;
use crate::exchange::engine::Engine;
use crate::exchange::spool::Spool;
use crate::observe::access_log::ShardLog;
use crate::observe::metrics::Metrics;
use crate::snapshot::Snapshot;
use crate::upstream::idle::{IdlePool, Key};
use arc_swap::ArcSwap;
use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tidegate_traffic::PoolId;
use tidegate_traffic::pool::endpoint::{EndpointId, EndpointState};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How often idle upstream connections are looked through.
const SWEEP: Duration = Duration::from_secs(1);
/// How often buffered access log lines leave at the latest.
const LOG_FLUSH: Duration = Duration::from_millis(200);

/// How long the last access log lines wait for their writer.
const LOG_DRAIN: Duration = Duration::from_secs(1);

/// What all shards share.
pub(crate) struct Shared {
    /// Caps on connections.
    pub(crate) admission: Arc<Admission>,
    /// How far the end is.
    pub(crate) ending: Arc<Ending>,
    /// Counters.
    pub(crate) metrics: Arc<Metrics>,
    /// Temporary files of bodies.
    pub(crate) spool: Arc<Spool>,
    /// Idle upstream connections of each shard: one that lacks a permit may close another's.
    pub(crate) idle: Vec<Arc<IdlePool>>,
}

impl Shared {
    /// A descriptor for a connection to an endpoint. Idle ones are closed for it.
    pub(crate) fn descriptor(&self) -> Option<Descriptor> {
        loop {
            match self.admission.descriptor() {
                None if self.give_any_back() => {}
                descriptor => return descriptor,
            }
        }
    }

    /// Closes an idle connection to an endpoint, of whichever shard, so that somebody else has its descriptor: it is worth
    /// less than a client or a request. Whether there was one.
    pub(crate) fn give_any_back(&self) -> bool {
        self.idle.iter().any(|pool| pool.give_any_back())
    }
}

/// A shard's own reference to the snapshot, so that its requests do not count on a line that other shards write.
#[derive(Debug)]
pub(crate) struct View(Arc<Snapshot>);

impl Deref for View {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

/// Data of one shard; its tasks share it.
pub(crate) struct Shard {
    /// 0 to n-1.
    pub(crate) index: usize,
    /// What all shards share.
    pub(crate) shared: Arc<Shared>,
    /// Idle upstream connections.
    pub(crate) idle: Arc<IdlePool>,
    /// Access log lines.
    pub(crate) log: ShardLog,
    /// Numbers of its requests.
    pub(crate) ids: RequestIds,
    /// Serves HTTP/2 endpoints.
    pub(crate) engine: Engine,
    /// Turns true when the process drains.
    pub(crate) draining: watch::Receiver<bool>,
    view: ArcSwap<View>,
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Shard {
    /// A shard that has not started.
    pub(crate) fn new(
        index: usize,
        shared: Arc<Shared>,
        snapshot: Arc<Snapshot>,
        ids: RequestIds,
        draining: watch::Receiver<bool>,
    ) -> Self {
        Self {
            index,
            idle: shared.idle.get(index).cloned().unwrap_or_default(),
            shared,
            log: ShardLog::default(),
            ids,
            engine: Engine::default(),
            draining,
            view: ArcSwap::from_pointee(View(snapshot)),
        }
    }

    /// The view for one request; taken once.
    pub(crate) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Requests that begin from now on see `snapshot`.
    pub(crate) fn replace_view(&self, snapshot: Arc<Snapshot>) {
        self.view.store(Arc::new(View(snapshot)));
    }

    /// Whether the process drains.
    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }
}

/// What the control side asks of a shard.
#[derive(Debug)]
pub(crate) enum Order {
    /// Begin to accept on a socket.
    Listen(Arc<Listener>, OwnedFd),
    /// Stop accepting; connections stay.
    Unlisten(ListenerKey),
    /// Close idle connections to an endpoint that leaves.
    Forget(EndpointId),
    /// Stop accepting anywhere and return when the last connection has gone, or at the time given.
    Drain(std::time::Instant),
}

/// Runs a shard on the current thread until it is drained.
///
/// # Errors
///
/// When the thread's runtime cannot be made.
pub(crate) fn run(shard: &Arc<Shard>, orders: mpsc::Receiver<Order>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(shard, orders));
    shard.log.drain(LOG_DRAIN);
    Ok(())
}

async fn serve(shard: &Arc<Shard>, mut orders: mpsc::Receiver<Order>) {
    let mut accepting: HashMap<ListenerKey, Accepting> = HashMap::new();
    let mut sweep = tokio::time::interval(SWEEP);
    let mut log_flush = tokio::time::interval(LOG_FLUSH);
    let deadline = loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Listen(listener, socket)) => listen(shard, &listener, socket, &mut accepting),
                Some(Order::Unlisten(key)) => drop(accepting.remove(&key).map(Accepting::stop)),
                Some(Order::Forget(endpoint)) => shard.idle.forget(endpoint),
                Some(Order::Drain(deadline)) => break deadline,
                None => break std::time::Instant::now(),
            },
            _ = sweep.tick() => sweep_idle(shard),
            _ = log_flush.tick() => shard.log.flush(),
        }
    };
    let ended: Vec<_> = accepting.drain().map(|(_, accepting)| accepting.stop()).collect();
    for accepting in ended {
        // What waited in the queues is taken before anybody counts connections.
        let _ = accepting.await;
    }
    shard.shared.ending.shard_closed();
    drain(shard, deadline.into()).await;
}

fn listen(
    shard: &Arc<Shard>,
    listener: &Arc<Listener>,
    socket: OwnedFd,
    accepting: &mut HashMap<ListenerKey, Accepting>,
) {
    match Acceptor::register(&listener.actual, socket) {
        Ok(acceptor) => {
            let (stop, stopped) = watch::channel(false);
            let task = tokio::spawn(accept::run(shard.clone(), listener.clone(), acceptor, stopped));
            accepting.insert(listener.key, Accepting { stop, task });
        }
        Err(error) => tracing::error!(listener = %listener.settings().name, %error, "cannot listen"),
    }
}

/// An accept loop.
struct Accepting {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Accepting {
    /// Tells it to end; the task does after it has taken what waits.
    fn stop(self) -> JoinHandle<()> {
        // It may have ended by itself.
        let _ = self.stop.send(true);
        self.task
    }
}

fn sweep_idle(shard: &Shard) {
    let view = shard.view();
    let upstreams =
        (0..view.traffic.pools.len()).filter_map(|place| view.traffic.upstream(PoolId(u32::try_from(place).ok()?)));
    let ready: HashSet<Key> = upstreams
        .flat_map(|(pool, settings)| pool.endpoints().into_iter().map(|endpoint| (endpoint, settings.transport)))
        .filter(|(endpoint, _)| endpoint.state() == EndpointState::Ready)
        .map(|(endpoint, transport)| (endpoint.id(), transport))
        .collect();
    shard.idle.sweep(Instant::now(), |key| ready.contains(&key));
}

/// Waits for the last connection.
async fn drain(shard: &Arc<Shard>, deadline: Instant) {
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    // Tasks of connections hold the shard; this function's caller and the control side hold it too.
    while shard.shared.admission.open() > 0 && Instant::now() < deadline {
        tick.tick().await;
        shard.log.flush();
    }
}
