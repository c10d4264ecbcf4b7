//! One address able to take requests, and what is known about it at run time.
//!
//! Its counters are atomics that outlive a reload: a pool keeps the endpoint as long as its identity stays. A
//! draining endpoint tells when its last exchange has ended, exactly once, whichever thread ends it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, RwLock};
use std::time::{Duration, Instant};

use tidegate_config::model::{Address, StaticServer};

use super::charges::Charges;
use super::check::CheckStatus;
use super::ejection::Ejected;
use super::faults::Faults;
use super::health::Health;
use super::latency::Latency;
use super::leaving::{Leaving, Left};
use super::lineage::Lineage;
use super::overtaken::Silence;
use super::pulse::Pulse;
use super::served::Served;
use super::starts::{Entry, Starts};
use super::symptom::Symptom;
use super::trial::Trial;
use super::tunnels::Tunnels;
use super::usage::Usage;

/// Most sockets to an endpoint without limits; a safety net far above what pools keep.
const MAX_CONNECTIONS: u32 = 16_384;

/// Names an endpoint within the process: never given twice, so a stale name meets nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(pub u64);

/// Identity of a worker: its slot and which start of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerKey {
    /// Small stable number.
    pub slot: u32,
    /// Start of the slot, never repeated within a pool.
    pub spawn: u64,
}

/// Where an endpoint comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A server of the site file, by its address or by a name.
    Static,
    /// A process that we started.
    Worker {
        /// Its identity.
        key: WorkerKey,
        /// Its process.
        pid: u32,
    },
}

/// Whether an endpoint gets requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndpointState {
    /// Gets requests.
    Ready,
    /// Finishes those it has.
    Draining,
    /// No longer part of its pool.
    Gone,
}

/// Called once when a draining endpoint has nothing left that is waited for.
pub type OnIdle = Box<dyn FnOnce() + Send>;

/// One address able to take requests.
///
/// In this order: what every lease reads and writes comes first, beside the counts of references, on one cache line. Of a
/// thousand endpoints most are not in the nearest cache when they are chosen.
#[repr(C)]
pub struct Endpoint {
    id: EndpointId,
    usage: Usage,
    /// Most exchanges at a time; 0 is no limit.
    max_conns: AtomicU32,
    state: AtomicU8,
    /// Taken out of service by the file.
    down: AtomicBool,
    /// What its health comes to, for picks.
    unwell: AtomicBool,
    /// Its requests are counted for a trial.
    on_trial: AtomicBool,
    /// Where its tier lists it.
    place: AtomicUsize,
    lineage: Arc<Lineage>,
    address: Address,
    host: Option<Arc<str>>,
    origin: Origin,
    weight: AtomicU32,
    priority: AtomicU32,
    latency: Latency,
    health: Health,
    tunnels: Tunnels,
    /// Exchanges in flight whose answers stream.
    streams: AtomicU32,
    connections: AtomicU32,
    failures: AtomicU64,
    faults: Faults,
    abandoned: AtomicU64,
    cancelled: AtomicU64,
    overtaken: AtomicU64,
    silence: Silence,
    leaving: Leaving,
    pulse: Pulse,
    /// Places in flight whose leases have ended.
    kept: AtomicU32,
    /// Guards the pointer, for as long as it takes to copy or replace it.
    trial: RwLock<Option<Arc<Trial>>>,
    /// Of a worker: nobody asks how old requests at servers are.
    starts: Option<Starts>,
    /// Made for the first exchange that is charged.
    charges: OnceLock<Box<Charges>>,
}

impl Endpoint {
    /// A worker's: weight 1, without any limit.
    pub(super) fn new(
        id: EndpointId,
        address: Address,
        host: Option<Arc<str>>,
        origin: Origin,
        lineage: Arc<Lineage>,
    ) -> Self {
        Self {
            id,
            address,
            host,
            origin,
            weight: AtomicU32::new(1),
            priority: AtomicU32::new(0),
            max_conns: AtomicU32::new(0),
            down: AtomicBool::new(false),
            unwell: AtomicBool::new(false),
            on_trial: AtomicBool::new(false),
            place: AtomicUsize::new(0),
            lineage,
            latency: Latency::default(),
            health: Health::default(),
            state: AtomicU8::new(EndpointState::Ready as u8),
            usage: Usage::default(),
            tunnels: Tunnels::default(),
            streams: AtomicU32::new(0),
            connections: AtomicU32::new(0),
            failures: AtomicU64::new(0),
            faults: Faults::default(),
            abandoned: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            overtaken: AtomicU64::new(0),
            silence: Silence::default(),
            leaving: Leaving::default(),
            pulse: Pulse::default(),
            kept: AtomicU32::new(0),
            trial: RwLock::default(),
            starts: matches!(origin, Origin::Worker { .. }).then(Starts::default),
            charges: OnceLock::new(),
        }
    }

    /// Its name within the process.
    #[must_use]
    pub fn id(&self) -> EndpointId {
        self.id
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The name that was resolved to its address: what its certificate is asked for.
    #[must_use]
    pub fn host(&self) -> Option<&Arc<str>> {
        self.host.as_ref()
    }

    /// Where it comes from.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Share of the requests it gets; at least 1.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// Its tier: those of a lower number come first.
    #[must_use]
    pub fn priority(&self) -> u32 {
        self.priority.load(Ordering::Relaxed)
    }

    /// Whether the file takes it out of service.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// Most exchanges at a time, if there is a limit.
    #[must_use]
    pub fn max_conns(&self) -> Option<u32> {
        Some(self.max_conns.load(Ordering::Relaxed)).filter(|most| *most > 0)
    }

    /// Whether it gets requests as far as file, drain and its health are concerned, however busy it is.
    pub(super) fn is_in_service(&self) -> bool {
        self.is_ready() && !self.is_down() && !self.unwell.load(Ordering::Relaxed)
    }

    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// To be called under the pool's lock whenever its health has changed, before the balance hears of it.
    pub(super) fn note_health(&self) {
        self.unwell.store(!self.health.is_good(), Ordering::Relaxed);
    }

    /// Whether it is below its limit of exchanges.
    pub(super) fn has_room(&self) -> bool {
        self.max_conns().is_none_or(|most| self.in_flight() < most)
    }

    /// An answer's head arrived so long after its attempt began.
    pub(crate) fn observe(&self, latency: Duration, now: Instant) {
        self.latency.observe(latency, now);
    }

    /// No answer's head arrived within so long after its attempt began, and none is waited for any more.
    pub(crate) fn observe_at_least(&self, latency: Duration, now: Instant) {
        self.latency.observe_at_least(latency, now);
    }

    /// What a request costs here: the recent time to an answer, for each that is under way and one more. Unit: ns.
    pub(super) fn cost(&self, now: Instant) -> f64 {
        self.latency.at(now) * (f64::from(self.in_flight()) + 1.0)
    }

    pub(super) fn charges(&self) -> &OnceLock<Box<Charges>> {
        &self.charges
    }

    /// Whether it gets requests. A connection to an endpoint that is not ready is not worth keeping.
    #[must_use]
    pub fn state(&self) -> EndpointState {
        match self.state.load(Ordering::SeqCst) {
            0 => EndpointState::Ready,
            1 => EndpointState::Draining,
            _ => EndpointState::Gone,
        }
    }

    /// Whether it gets requests.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state() == EndpointState::Ready
    }

    /// Exchanges that hold a lease on it now.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.usage.under_way()
    }

    /// Exchanges that hold a lease on it now, and leases ever given.
    pub(super) fn usage(&self) -> (u32, u64) {
        self.usage.both()
    }

    /// All figures, for people.
    #[must_use]
    pub fn status(&self) -> EndpointStatus {
        let (in_flight, requests) = self.usage.both();
        EndpointStatus {
            id: self.id,
            address: self.address.clone(),
            host: self.host.clone(),
            origin: self.origin,
            weight: self.weight(),
            priority: self.priority(),
            down: self.is_down(),
            max_conns: self.max_conns(),
            state: self.state(),
            ejected: self.health.out(),
            check: self.health.check(),
            in_flight,
            kept: self.kept.load(Ordering::Relaxed),
            oldest: self.starts.as_ref().and_then(Starts::oldest),
            tunnels: self.tunnels.count(),
            max_tunnels: self.tunnels.most(),
            connections: self.connections.load(Ordering::Relaxed),
            requests,
            failures: self.failures.load(Ordering::Relaxed),
            abandoned: self.abandoned.load(Ordering::Relaxed),
            overtaken: self.overtaken.load(Ordering::Relaxed),
        }
    }

    /// Takes over what the file says of it; `max_conns` holds where it says nothing of its own.
    pub(super) fn configure(&self, server: &StaticServer, default_max_conns: Option<u32>) {
        let StaticServer { address: _, weight, priority, max_conns, down, max_fails, fail_timeout } = server;
        self.limit(max_conns.or(default_max_conns));
        self.weight.store((*weight).max(1), Ordering::Relaxed);
        self.priority.store(*priority, Ordering::Relaxed);
        self.down.store(*down, Ordering::Relaxed);
        self.health.configure(*max_fails, *fail_timeout);
    }

    /// Its share and tier, where a record of its name says so.
    pub(super) fn configure_share(&self, weight: u32, priority: u32) {
        self.weight.store(weight.max(1), Ordering::Relaxed);
        self.priority.store(priority, Ordering::Relaxed);
    }

    /// Most exchanges at a time from now on. Those beyond it that are under way go on.
    pub(super) fn limit(&self, max_conns: Option<u32>) {
        self.max_conns.store(max_conns.unwrap_or(0), Ordering::Relaxed);
    }

    /// What its pool shares with others.
    pub(super) fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// Its place in its tier. Called under the pool's lock, before the tier looks at its load.
    pub(super) fn set_place(&self, place: usize) {
        self.place.store(place, Ordering::SeqCst);
    }

    /// Ends the service of this endpoint. Called under the pool's lock, so that no lease begins after it.
    pub(super) fn mark(&self, state: EndpointState) {
        self.state.store(state as u8, Ordering::SeqCst);
    }

    /// Runs the callback when no request is left, at once if there is none. Tunnels and answers that stream do not hold it
    /// up: they may last for days. To be called after `mark` and outside the pool's lock.
    pub(super) fn when_idle(&self, on_idle: OnIdle) {
        self.leaving.wait(Left::Lasting, on_idle);
        // Sequentially consistent, like `mark` and `end_exchange`: of a drain and a last exchange that meet, at least
        // one sees the other.
        self.settle();
    }

    /// Runs the callback when nothing at all is left, tunnels included; for an endpoint that drains already.
    pub fn when_empty(&self, on_empty: OnIdle) {
        self.leaving.wait(Left::Nothing, on_empty);
        self.settle();
    }

    /// After `mark` and outside the pool's lock: runs callbacks of an earlier drain that nothing holds up any more.
    pub(super) fn settle(&self) {
        self.leaving.see(self.left());
    }

    /// What is left, nothing new beginning. An exchange counts as a stream only while it is in flight, and as a tunnel before
    /// it ceases to be: whoever looks in this order sees too much for a moment, never too little.
    fn left(&self) -> Left {
        let in_flight = self.in_flight();
        if in_flight > self.streams.load(Ordering::SeqCst) {
            Left::Requests
        } else if in_flight > 0 || self.tunnels.count() > 0 {
            Left::Lasting
        } else {
            Left::Nothing
        }
    }

    /// Takes a place, unless all are taken.
    pub(super) fn begin_exchange(&self) -> bool {
        let begins = self.usage.begin(self.max_conns());
        if begins {
            self.mark_load();
        }
        begins
    }

    /// Notes when a lease began, for a worker.
    pub(super) fn note_start(&self, now: Instant) -> Option<Entry> {
        self.starts.as_ref()?.begin(self.usage.both().1, now)
    }

    /// That lease is not under way any more.
    pub(super) fn forget_start(&self, entry: Entry) {
        if let Some(starts) = &self.starts {
            starts.end(entry);
        }
    }

    /// A lease was given to nobody.
    pub(super) fn discount_request(&self) {
        self.usage.discount();
    }

    pub(super) fn end_exchange(&self) {
        self.usage.end();
        self.mark_load();
        self.settle_leaving();
    }

    /// The answer of an exchange in flight streams from now on.
    pub(super) fn begin_stream(&self) {
        self.streams.fetch_add(1, Ordering::SeqCst);
        self.settle_leaving();
    }

    /// It has ended; its exchange has not yet.
    pub(super) fn end_stream(&self) {
        self.streams.fetch_sub(1, Ordering::SeqCst);
    }

    fn settle_leaving(&self) {
        if !self.is_ready() {
            self.settle();
        }
    }

    fn mark_load(&self) {
        self.lineage.marks.mark(self.place.load(Ordering::SeqCst));
    }

    pub(super) fn count_failure(&self, symptom: Symptom) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        // A status is an answer all the same, whatever it says of the endpoint.
        if !matches!(symptom, Symptom::Status(_)) {
            self.faults.count(symptom);
        }
    }

    /// It answered with a status of 500 or more.
    pub(super) fn count_server_error(&self) {
        self.faults.count_server_error();
    }

    /// The request of an exchange that it failed was sent again.
    pub(crate) fn count_retried(&self) {
        self.faults.count_retried();
    }

    /// Its answer or connection gave way to another try. That alone says nothing against it.
    pub(super) fn count_given_way(&self, symptom: Symptom) {
        self.faults.count(symptom);
        self.faults.count_retried();
    }

    /// We ended an exchange for a reason of our own.
    pub(super) fn count_cancelled(&self) {
        self.cancelled.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_abandoned(&self) {
        self.abandoned.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_overtaken(&self) {
        self.overtaken.fetch_add(1, Ordering::Relaxed);
    }

    /// Leases that ended in an answer, or by a reason of ours. Read while others end, it may be too low, never too high by those
    /// that did not.
    pub(super) fn answered(&self) -> u64 {
        let (under_way, given) = self.leases();
        let lost = [&self.failures, &self.abandoned, &self.overtaken].map(|count| count.load(Ordering::Relaxed));
        given.saturating_sub(u64::from(under_way) + lost.iter().sum::<u64>())
    }

    /// What became of the requests that it was given.
    #[must_use]
    pub fn served(&self) -> Served {
        let (under_way, given) = self.leases();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (abandoned, cancelled, overtaken) =
            (count(&self.abandoned), count(&self.cancelled), count(&self.overtaken));
        let faults = self.faults.counts();
        let lost = u64::from(under_way) + abandoned + cancelled + overtaken + faults.total();
        Served { answered: given.saturating_sub(lost), faults, abandoned, cancelled, overtaken }
    }

    pub(super) fn silence(&self) -> &Silence {
        &self.silence
    }

    /// Leases under way, and leases ever given.
    fn leases(&self) -> (u32, u64) {
        let kept = self.kept.load(Ordering::Relaxed);
        let (under_way, given) = self.usage.both();
        (under_way.saturating_sub(kept), given)
    }

    /// Takes a place in any case, without a lease.
    pub(super) fn keep_place(&self) {
        self.usage.begin(None);
        self.usage.discount();
        self.kept.fetch_add(1, Ordering::Relaxed);
        self.lineage.begin_exchange(None);
        self.mark_load();
    }

    /// Gives it back.
    pub(super) fn give_place_up(&self) {
        self.kept.fetch_sub(1, Ordering::Relaxed);
        self.end_exchange();
        self.lineage.end_exchange(None);
    }

    pub(super) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Exchanges in flight whose answers stream.
    pub(super) fn streams(&self) -> u32 {
        self.streams.load(Ordering::Relaxed)
    }

    pub(super) fn trial(&self) -> &RwLock<Option<Arc<Trial>>> {
        &self.trial
    }

    pub(super) fn mark_trial(&self, is_on: bool) {
        self.on_trial.store(is_on, Ordering::Relaxed);
    }

    pub(super) fn is_on_trial(&self) -> bool {
        self.on_trial.load(Ordering::Relaxed)
    }

    pub(super) fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// Leases that ended because the client went away or the exchange was dropped.
    pub(super) fn abandoned(&self) -> u64 {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// Whether it may have one more tunnel.
    pub(super) fn has_room_for_tunnel(&self) -> bool {
        self.tunnels.most().is_none_or(|most| self.tunnels.count() < most)
    }

    /// Takes a tunnel's place, unless all are taken.
    #[must_use]
    pub(super) fn begin_tunnel(&self) -> bool {
        self.tunnels.begin()
    }

    /// Takes a tunnel's place in any case.
    pub(super) fn force_tunnel(&self) {
        self.tunnels.force();
    }

    /// Gives back what was taken in vain, and tells nobody yet.
    pub(super) fn forgo_tunnel(&self) {
        self.tunnels.end();
    }

    /// Gives it back; another one may have waited for it.
    pub(super) fn end_tunnel(&self) {
        self.tunnels.end();
        self.settle_leaving();
        self.lineage.call(None);
    }

    /// Most tunnels from now on.
    pub(super) fn limit_tunnels(&self, most: Option<u32>) {
        self.tunnels.limit(most);
    }

    /// Most sockets to it: one for each exchange and each tunnel, and one that is closing meanwhile.
    #[must_use]
    pub fn max_connections(&self) -> u32 {
        let limits = self.max_conns().zip(self.tunnels.most());
        limits.map_or(MAX_CONNECTIONS, |(exchanges, tunnels)| exchanges.saturating_add(tunnels).saturating_add(1))
    }

    /// Takes a connection's place unless `max` are taken.
    pub(super) fn take_connection(&self, max: u32) -> bool {
        self.connections
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |count| (count < max).then_some(count + 1))
            .is_ok()
    }

    pub(super) fn return_connection(&self) {
        self.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.status().fmt(f)
    }
}

impl EndpointStatus {
    /// Whether its checks fail.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.check.as_ref().is_some_and(|check| !check.passing)
    }

    /// Whether it gets requests, however busy it is.
    #[must_use]
    pub fn is_in_service(&self) -> bool {
        self.state == EndpointState::Ready && !self.down && self.ejected.is_none() && !self.is_failing()
    }
}

/// Figures of an endpoint at one moment; they are read one after another, so they may not add up exactly.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointStatus {
    /// Its name within the process.
    pub id: EndpointId,
    /// Where it listens.
    pub address: Address,
    /// The name that was resolved to it.
    pub host: Option<Arc<str>>,
    /// Where it comes from.
    pub origin: Origin,
    /// Share of the requests it gets.
    pub weight: u32,
    /// Its tier: those of a lower number come first.
    pub priority: u32,
    /// Whether the file takes it out of service.
    pub down: bool,
    /// Most exchanges at a time, if there is a limit.
    pub max_conns: Option<u32>,
    /// Whether it gets requests.
    pub state: EndpointState,
    /// Its time out of service, while it is.
    pub ejected: Option<Ejected>,
    /// How its checks go, where there are some and one has ended.
    pub check: Option<CheckStatus>,
    /// Exchanges that hold a lease on it, and places of those that were given up.
    pub in_flight: u32,
    /// Places among them whose requests were given up while a handler may still be at them.
    pub kept: u32,
    /// Of a worker: when the oldest of the others began.
    pub oldest: Option<Instant>,
    /// Upgraded connections and long streams through it.
    pub tunnels: u32,
    /// Most of these, if there is a limit.
    pub max_tunnels: Option<u32>,
    /// Sockets open to it.
    pub connections: u32,
    /// Leases ever given.
    pub requests: u64,
    /// Leases that ended in a fault of the endpoint.
    pub failures: u64,
    /// Leases that ended because the client went away or the exchange was dropped.
    pub abandoned: u64,
    /// Leases that ended because another endpoint answered the same request first.
    pub overtaken: u64,
}
