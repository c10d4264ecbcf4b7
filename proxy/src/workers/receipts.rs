//! What became of requests while a deploy went on, by the generation whose workers were given them.
//!
//! A receipt looks at its workers' endpoints itself: what these counted before it began is left out, and those that are
//! gone are kept for as long as it is, since a request may learn a moment later than the supervisor that its worker died.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use tidegate_traffic::pool::QueueCounts;
use tidegate_traffic::pool::QueueStatus;
use tidegate_traffic::pool::endpoint::Endpoint;
use tidegate_traffic::pool::served::Served;

/// Receipts of the last deploys of all pools.
#[derive(Default)]
pub(super) struct Receipts {
    pools: HashMap<Arc<str>, Group>,
}

/// Those of one pool.
#[derive(Default)]
struct Group {
    /// Workers that may have requests, by spawn number, with their generation.
    living: BTreeMap<u64, (u64, Arc<Endpoint>)>,
    /// Oldest first; only the last one can be open.
    receipts: VecDeque<Receipt>,
}

/// What came of one deploy.
#[derive(Default)]
struct Receipt {
    generation: u64,
    rows: Vec<Row>,
    /// Of endpoints that are not looked at any more.
    closed: BTreeMap<u64, Served>,
    queue: QueueMark,
    is_over: bool,
}

/// A worker of a receipt.
struct Row {
    generation: u64,
    endpoint: Arc<Endpoint>,
    /// What it had served when the receipt began.
    before: Served,
}

/// What a receipt tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// By generation.
    pub(super) served: BTreeMap<u64, Served>,
    /// Most requests that waited at a time.
    pub(super) waited: u64,
    /// Those that waited in vain, or could not.
    pub(super) refused: QueueCounts,
}

/// The queue's part in it.
#[derive(Default)]
struct QueueMark {
    before: QueueCounts,
    /// Known once it is over.
    waited: u64,
    refused: QueueCounts,
}

impl Receipts {
    /// A worker may have requests from now on.
    pub(super) fn ready(&mut self, pool: &Arc<str>, generation: u64, spawn: u64, endpoint: Arc<Endpoint>) {
        let group = self.pools.entry(pool.clone()).or_default();
        if let Some(receipt) = group.open() {
            receipt.add(generation, endpoint.clone(), Served::default());
        }
        group.living.insert(spawn, (generation, endpoint));
    }

    /// Workers that may have requests, with their generations.
    pub(super) fn living(&self, pool: &str) -> Vec<(u64, Arc<Endpoint>)> {
        self.pools.get(pool).into_iter().flat_map(|group| group.living.values().cloned()).collect()
    }

    /// Its process is gone.
    pub(super) fn gone(&mut self, pool: &str, spawn: u64) {
        if let Some(group) = self.pools.get_mut(pool) {
            group.living.remove(&spawn);
        }
    }

    /// A deploy begins, with the queue as it is.
    pub(super) fn begin(&mut self, pool: &Arc<str>, generation: u64, queue: QueueStatus) {
        let group = self.pools.entry(pool.clone()).or_default();
        let mut receipt = Receipt { generation, ..Receipt::default() };
        receipt.queue.before = queue.counts;
        for (generation, endpoint) in group.living.values() {
            receipt.add(*generation, endpoint.clone(), endpoint.served());
        }
        if group.receipts.len() == REMEMBERED {
            group.receipts.pop_front();
        }
        group.receipts.push_back(receipt);
    }

    /// It is over: from now on only those that are gone may add to its receipt.
    pub(super) fn end(&mut self, pool: &str, queue: QueueStatus) {
        let Some(group) = self.pools.get_mut(pool) else { return };
        let Some(receipt) = group.receipts.back_mut().filter(|receipt| !receipt.is_over) else { return };
        let is_living = |row: &Row| group.living.values().any(|(_, living)| living.id() == row.endpoint.id());
        receipt.close(is_living);
        (receipt.queue.waited, receipt.queue.refused) = receipt.queue.read(queue);
        receipt.is_over = true;
    }

    /// What the deploy of a generation came to so far; `queue` as it is.
    pub(super) fn account(&self, pool: &str, generation: u64, queue: QueueStatus) -> Option<Account> {
        let receipts = &self.pools.get(pool)?.receipts;
        let receipt = receipts.iter().rev().find(|receipt| receipt.generation == generation)?;
        let (waited, refused) = match receipt.is_over {
            true => (receipt.queue.waited, receipt.queue.refused),
            false => receipt.queue.read(queue),
        };
        Some(Account { served: receipt.served(), waited, refused })
    }

    /// The pool is no more.
    pub(super) fn forget(&mut self, pool: &str) {
        self.pools.remove(pool);
    }
}

impl Group {
    fn open(&mut self) -> Option<&mut Receipt> {
        self.receipts.back_mut().filter(|receipt| !receipt.is_over)
    }
}

impl Receipt {
    fn add(&mut self, generation: u64, endpoint: Arc<Endpoint>, before: Served) {
        if self.rows.len() >= MOST_ROWS {
            // Workers that come and go for as long as that have nothing more to add.
            self.close(|row| !row.endpoint.is_ready() && row.endpoint.in_flight() == 0);
        }
        self.rows.push(Row { generation, endpoint, before });
    }

    /// Looks at some workers for the last time.
    fn close(&mut self, which: impl Fn(&Row) -> bool) {
        let closed = &mut self.closed;
        self.rows.retain(|row| {
            if which(row) {
                row.add_to(closed);
                return false;
            }
            true
        });
    }

    fn served(&self) -> BTreeMap<u64, Served> {
        let mut served = self.closed.clone();
        self.rows.iter().for_each(|row| row.add_to(&mut served));
        served
    }
}

impl Row {
    fn add_to(&self, served: &mut BTreeMap<u64, Served>) {
        let sum = served.entry(self.generation).or_default();
        *sum = sum.plus(&self.endpoint.served().since(&self.before));
    }
}

impl QueueMark {
    /// A pool that took another one's place counts anew.
    fn read(&self, now: QueueStatus) -> (u64, QueueCounts) {
        let QueueCounts { full, late, timeout } = now.counts;
        let refused = QueueCounts {
            full: full.saturating_sub(self.before.full),
            late: late.saturating_sub(self.before.late),
            timeout: timeout.saturating_sub(self.before.timeout),
        };
        (now.recent_peak as u64, refused)
    }
}

/// As many as the supervisor remembers deploys.
const REMEMBERED: usize = 5;
/// Workers of a receipt that are looked at each time; those gone long ago are added up.
const MOST_ROWS: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;
    use tidegate_config::model::Address;
    use tidegate_traffic::pool::endpoint::WorkerKey;
    use tidegate_traffic::pool::key::Key;
    use tidegate_traffic::pool::lease::{Lease, Outcome};
    use tidegate_traffic::pool::symptom::Symptom;
    use tidegate_traffic::pool::{EndpointIds, Pool, Wanted};

    /// A pool, and its receipts, with workers that are told apart by their spawn number.
    struct Scene {
        pool: Arc<Pool>,
        name: Arc<str>,
        receipts: Receipts,
    }

    impl Scene {
        fn new() -> Self {
            let file = "listeners: [{ address: \":1\" }]\nsites: [{ hosts: [h], routes: [{ path: /, proxy: app }] }]\n\
                        upstreams: { app: { workers: { command: [x, \"{socket}\"], count: 1 } } }\n";
            let system = tidegate_config::System { runtime_folder: "/run".into() };
            let model =
                tidegate_config::load_str("site.yaml", file, &system).unwrap_or_else(|faults| panic!("{faults}"));
            let pool = Pool::new(EndpointIds::default(), &model.model.upstreams["app"]);
            Self { pool, name: "app".into(), receipts: Receipts::default() }
        }

        fn ready(&mut self, generation: u64, spawn: u64) {
            let key = WorkerKey { slot: 0, spawn };
            let endpoint = self.pool.add_worker(key, 1, Address::Unix(format!("/{spawn}").into()));
            self.receipts.ready(&self.name, generation, spawn, endpoint);
        }

        fn gone(&mut self, spawn: u64) {
            self.receipts.gone("app", spawn);
            self.pool.remove_worker(WorkerKey { slot: 0, spawn });
        }

        fn begin(&mut self, generation: u64) {
            self.pool.mark_queue();
            self.receipts.begin(&self.name, generation, self.pool.queue_status());
        }

        fn end(&mut self) {
            self.receipts.end("app", self.pool.queue_status());
        }

        fn lease(&self) -> Lease {
            let wanted = Wanted { key: &Key::None, tried: &[], tunnel: false, draw: 0, now: Instant::now() };
            self.pool.acquire_now(&wanted).expect("a worker")
        }

        fn serve(&self, count: usize) {
            (0..count).for_each(|_| self.lease().finish(Outcome::Ok, Instant::now()));
        }

        /// By generation: answered, failed.
        fn told(&self, generation: u64) -> Vec<(u64, u64, u64)> {
            let account = self.receipts.account("app", generation, self.pool.queue_status()).expect("a receipt");
            account.served.iter().map(|(number, one)| (*number, one.answered, one.faults.failed())).collect()
        }
    }

    #[test]
    fn only_what_happens_while_a_deploy_goes_on_is_on_its_receipt() {
        let mut scene = Scene::new();
        scene.ready(1, 1);
        scene.serve(5);
        let early = scene.lease();
        scene.begin(2);
        assert_eq!(scene.told(2), [(1, 0, 0)]);
        early.finish(Outcome::Ok, Instant::now());
        scene.serve(2);
        scene.gone(1);
        scene.ready(2, 2);
        scene.serve(3);
        assert_eq!(scene.told(2), [(1, 3, 0), (2, 3, 0)]);
        scene.end();
        scene.serve(7);
        assert_eq!(scene.told(2), [(1, 3, 0), (2, 3, 0)]);
        scene.begin(3);
        scene.serve(1);
        assert_eq!((scene.told(2), scene.told(3)), (vec![(1, 3, 0), (2, 3, 0)], vec![(2, 1, 0)]));
    }

    #[test]
    fn a_worker_that_died_may_add_what_is_learned_of_it_after_the_end() {
        let mut scene = Scene::new();
        scene.ready(1, 1);
        scene.begin(2);
        let cut = scene.lease();
        scene.gone(1);
        scene.ready(2, 2);
        scene.end();
        cut.finish(Outcome::UpstreamFault(Symptom::Closed), Instant::now());
        assert_eq!(scene.told(2), [(1, 0, 1), (2, 0, 0)]);
    }

    #[test]
    fn workers_that_come_and_go_without_end_are_added_up() {
        let mut scene = Scene::new();
        scene.begin(1);
        let rounds = MOST_ROWS as u64 * 2 + 3;
        for spawn in 1..=rounds {
            scene.ready(1, spawn);
            scene.serve(1);
            scene.gone(spawn);
        }
        assert_eq!(scene.told(1), [(1, rounds, 0)]);
        assert!(scene.receipts.pools["app"].receipts[0].rows.len() <= MOST_ROWS);
        for generation in 2..10 {
            scene.end();
            scene.begin(generation);
        }
        assert_eq!(scene.receipts.pools["app"].receipts.len(), REMEMBERED);
    }
}
