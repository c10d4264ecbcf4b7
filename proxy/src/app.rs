//! The one assembly: reading it tells what the program is made of and in which order it comes to life and ends.
//!
//! Order matters on the way up. Sockets are bound and keys are read before privileges are dropped; privileges are
//! dropped before the first thread starts; the supervisor's thread and the guardian exist before the first worker;
//! the control side runs on the main thread and never carries a request.

use crate::admin::control::Control;
use crate::admin::follow::ENDED;
use crate::announce;
use crate::config_source::ConfigSource;
use crate::desk::Desk;
use crate::discovery::Discovery;
use crate::edge::admission::Admission;
use crate::edge::request_ids::RequestIds;
use crate::edge::shard::{Shard, Shared};
use crate::exchange::spool::Spool;
use crate::folders::Folders;
use crate::health::checker::Checker;
use crate::logs::Logs;
use crate::observe::metrics::Metrics;
use crate::observe::program_log::{Options as LogOptions, ProgramLog};
use crate::observe::worker_log::{Line, WorkerLog};
use crate::plane::Plane;
use crate::privileges::{self, Account, Keep};
use crate::reload::{self, Applied, Current, Prepared, Refused, Reloader, Surroundings};
use crate::shutdown;
use crate::signal::{Signals, Told};
use crate::sticky;
use crate::tls::fault::{Severity, TlsFault};
use crate::tls::store::CertificateStore;
use crate::workers::WorkerBridge;
use anyhow::Context as _;
use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, SystemTime};
use tidegate_config::model::{Address, Model, ShardCount};
use tidegate_config::{Faults, System};
use tidegate_supervisor::{Handle, OutputLine, Reexec, Roots, Stream, SupervisorOptions, effective_cpus};
use tokio::sync::{Notify, watch};

/// How long a service manager is kept waiting for the first workers; systemd itself gives up after 90 s.
const READY_PATIENCE: Duration = Duration::from_secs(60);
/// How long the supervisor may take to hear of a reload; it is a matter of microseconds.
const RELOAD_PATIENCE: Duration = Duration::from_secs(5);
const READY_LOOK: Duration = Duration::from_millis(50);

/// Why the program ended without doing its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// The configuration is faulty.
    #[error("{0}")]
    Faulty(Faults),
    /// The configuration is right, the system is not.
    #[error("{0}")]
    Refused(Refused),
    /// It could not start.
    #[error("{0:#}")]
    Start(anyhow::Error),
    /// It failed while it ran.
    #[error("{0:#}")]
    Runtime(anyhow::Error),
}

/// The running program.
pub(crate) struct Program {
    reloader: Reloader,
    started: SystemTime,
    stopping: AtomicBool,
    stop: Notify,
    /// Why it gave up, if it did.
    failure: OnceLock<String>,
    own: OnceLock<Weak<Self>>,
}

impl Program {
    /// What a configuration is applied to.
    pub(crate) fn reloader(&self) -> &Reloader {
        &self.reloader
    }

    /// When it started.
    pub(crate) fn started(&self) -> SystemTime {
        self.started
    }

    /// Whether it is shutting down.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Starts a shutdown in order, as a first SIGTERM does.
    pub(crate) fn ask_to_stop(&self) {
        self.stop.notify_one();
    }

    /// Ends in order too, and says that it failed.
    fn give_up(&self, why: String) {
        // The first reason counts.
        let _ = self.failure.set(why);
        self.ask_to_stop();
    }

    /// Itself, for work that outlives a borrow.
    pub(crate) fn shared(&self) -> Arc<Self> {
        let own = self.own.get().and_then(Weak::upgrade);
        own.expect("a program is only ever made inside of an Arc, by `Program::new`")
    }

    fn new(reloader: Reloader) -> Arc<Self> {
        let program = Arc::new(Self {
            reloader,
            started: SystemTime::now(),
            stopping: AtomicBool::new(false),
            stop: Notify::new(),
            failure: OnceLock::new(),
            own: OnceLock::new(),
        });
        // Set once, right here.
        let _ = program.own.set(Arc::downgrade(&program));
        program
    }

    /// Applies the configuration anew. Blocks on files.
    pub(crate) fn reload(self: &Arc<Self>) -> Result<Applied, Refused> {
        let control: Arc<dyn Control> = self.clone();
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Reloading]);
        let applied = self.reloader.reload(&control);
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        applied
    }

    /// What SIGHUP asks for: a reload, and deploys of workers that are to be deployed by it. Waits. Its outcome is in the log
    /// and in status; there is nobody to answer.
    fn hang_up(self: &Arc<Self>) {
        let before = self.reloader.bridge.deployed();
        if self.reload().is_err() {
            return;
        }
        // Whom the reload has begun to deploy is known once the supervisor has taken it.
        if self.reloader.supervisor.settle(RELOAD_PATIENCE) {
            self.reloader.bridge.deploy_on_hup(&before, &self.reloader.serving.load().model);
        } else {
            tracing::error!("workers are not deployed: the supervisor has not taken the reload in time");
        }
    }
}

/// Runs a configuration until the program is told to stop.
///
/// # Errors
///
/// Why it could not start, or what ended it.
pub(crate) fn run(source: ConfigSource) -> Result<(), Ended> {
    let environment = System::detect();
    let loaded = source.load(&environment).map_err(Ended::Faulty)?;
    let model = Arc::new(loaded.model);
    let folders = Folders::of(&model.server, &environment);
    let cpus = effective_cpus(&Roots::default());
    let shards = shard_count(&model, cpus);
    let metrics = Arc::new(Metrics::new(crate::VERSION).context("metrics").map_err(Ended::Start)?);
    let listener_keys = AtomicU64::new(1);
    folders.create().context("folders").map_err(Ended::Start)?;
    let lock = folders.lock().map_err(|error| Ended::Start(error.into()))?;
    let around = Surroundings { folders: &folders, metrics: &metrics, listeners: &[], shards, keys: &listener_keys };
    let prepared = reload::prepare(model.clone(), &loaded.warnings, None, &around);
    let prepared = prepared.map_err(Ended::Refused)?;
    drop_privileges(&model, &folders).map_err(Ended::Start)?;
    let unreadable = unreadable_now(&model, &folders);

    let logs = start_logs(&model, &metrics).map_err(Ended::Start)?;
    for fault in unreadable {
        tracing::warn!("server.user cannot do this, so reloads will be refused: {fault}");
    }
    give_memory_back();
    let bridge = Arc::new(WorkerBridge::default());
    bridge.count(metrics.clone());
    let supervisor = start_supervisor(&folders, &bridge, logs.workers().clone(), cpus).map_err(Ended::Start)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("control runtime").map_err(Ended::Start)?;
    let assembly = Assembly {
        source,
        environment,
        folders,
        metrics,
        listener_keys,
        logs: Arc::new(logs),
        bridge,
        supervisor,
        desk: Desk::new(runtime.handle().clone()),
        shards,
    };
    let ended = runtime.block_on(assembly.serve(prepared));
    // After a forced stop threads may still wait for connections; nobody waits for them.
    runtime.shutdown_background();
    drop(lock);
    ended
}

/// What is there once privileges are dropped.
struct Assembly {
    source: ConfigSource,
    environment: System,
    folders: Folders,
    metrics: Arc<Metrics>,
    listener_keys: AtomicU64,
    logs: Arc<Logs>,
    bridge: Arc<WorkerBridge>,
    supervisor: Handle,
    desk: Desk,
    shards: usize,
}

impl Assembly {
    async fn serve(self, prepared: Prepared) -> Result<(), Ended> {
        let mut signals = Signals::new().context("signal handlers").map_err(Ended::Start)?;
        let model = prepared.snapshot.model.clone();
        let access = self.logs.prepare(&model).map_err(|text| Ended::Start(anyhow::anyhow!(text)))?;
        let admin = self.desk.prepare(&model.admin).map_err(|text| Ended::Start(anyhow::anyhow!(text)))?;
        let logs = self.logs.clone();
        let (program, threads) = self.start(prepared).map_err(Ended::Start)?;
        let reloader = program.reloader();
        logs.apply(&model, access, reloader.plane.shards());
        let control: Arc<dyn Control> = program.clone();
        reloader.desk.apply(&model.admin, admin, &control);
        tokio::spawn(renew_certificates(program.clone()));
        tokio::spawn(reloader.discovery.clone().run());
        tokio::spawn(reloader.checker.clone().run());
        tokio::spawn(reloader.bridge.figures.clone().run(reloader.supervisor.clone()));
        tokio::spawn(reloader.bridge.clone().follow_costs(reloader.supervisor.clone()));
        tokio::spawn(reloader.bridge.clone().watch_files());
        announce::print(&program);
        tokio::spawn(tell_ready(program.clone()));
        until_told(&program, &mut signals).await;
        program.stopping.store(true, Ordering::Relaxed);
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        let ended = shutdown::run(&program, threads, &mut signals).await;
        reloader.bridge.journal.end();
        logs.workers().book().end(ENDED);
        reloader.desk.close().await;
        logs.finish();
        match program.failure.get() {
            Some(why) => Err(Ended::Runtime(anyhow::anyhow!(why.clone()))),
            None => ended.map_err(Ended::Runtime),
        }
    }

    /// From here on the program serves.
    fn start(self, prepared: Prepared) -> anyhow::Result<(Arc<Program>, Vec<std::thread::JoinHandle<()>>)> {
        let admission = Arc::new(Admission::default());
        let spool = Spool::new(self.folders.spool.clone(), admission.clone(), self.metrics.spool());
        let spool = Arc::new(spool);
        let shared = Shared {
            admission: admission.clone(),
            ending: Arc::default(),
            metrics: self.metrics.clone(),
            spool: spool.clone(),
            idle: (0..self.shards).map(|_| Arc::default()).collect(),
        };
        let shared = Arc::new(shared);
        let (draining, drain_flag) = watch::channel(false);
        let shard = |index| -> anyhow::Result<Arc<Shard>> {
            let ids = RequestIds::new(random_seed()?);
            Ok(Arc::new(Shard::new(index, shared.clone(), prepared.snapshot.clone(), ids, drain_flag.clone())))
        };
        let shards = (0..self.shards).map(shard).collect::<anyhow::Result<Vec<_>>>()?;
        let (plane, orders) = Plane::new(shards, draining);
        let plane = Arc::new(plane);
        self.bridge.connect(self.supervisor.clone(), plane.clone());
        let snapshot = prepared.snapshot.clone();
        let current = Current {
            snapshot: snapshot.clone(),
            policies: Default::default(),
            upstream_tls: Default::default(),
            certificates: prepared.certificates.clone(),
            last_reload: None,
        };
        for warning in &prepared.warnings {
            tracing::warn!("{}", warning.trim_end());
        }
        let program = Program::new(Reloader {
            source: self.source,
            environment: self.environment,
            folders: self.folders,
            metrics: self.metrics,
            admission,
            spool,
            plane: plane.clone(),
            bridge: self.bridge,
            checker: Arc::new(Checker::new(shared.clone())),
            discovery: Arc::new(Discovery::new(plane.clone(), random_seed()?[0])),
            supervisor: self.supervisor,
            logs: self.logs,
            desk: self.desk,
            listener_keys: self.listener_keys,
            current: Mutex::new(current),
            serving: arc_swap::ArcSwap::new(snapshot.clone()),
        });
        let own = Arc::downgrade(&program);
        program.reloader.bridge.when_hopeless(move |why| {
            if let Some(program) = own.upgrade() {
                program.give_up(why);
            }
        });
        let threads = plane.start(orders).context("data plane threads")?;
        program.reloader.begin(prepared);
        program.reloader.metrics.config_applied(snapshot.generation, SystemTime::now());
        Ok((program, threads))
    }
}

/// Tells the service manager once every upstream has an endpoint, or after a while in any case: a worker that does not
/// come up is retried, and must not keep the whole service from being up.
async fn tell_ready(program: Arc<Program>) {
    let patience = tokio::time::Instant::now() + READY_PATIENCE;
    while !program.readiness().await.ready && tokio::time::Instant::now() < patience {
        tokio::time::sleep(READY_LOOK).await;
    }
    // Not under a service manager: nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
}

/// Does what signals and the admin endpoint ask, until that is to stop.
async fn until_told(program: &Arc<Program>, signals: &mut Signals) {
    loop {
        let told = tokio::select! {
            told = signals.next() => told,
            () = program.stop.notified() => Told::Stop,
        };
        match told {
            Told::Stop => return,
            Told::Reload => {
                let program = program.clone();
                tokio::task::spawn_blocking(move || program.hang_up());
            }
            Told::Reopen => program.reloader.logs.reopen(),
            Told::Scale(by) => program.reloader.bridge.scale_all(by),
            Told::Unknown(signal) => tracing::warn!(signal, "signal has no meaning in this version"),
        }
    }
}

/// Keeps the local CA's certificates fresh.
async fn renew_certificates(program: Arc<Program>) {
    loop {
        let renewing = program.clone();
        let next = tokio::task::spawn_blocking(move || renewing.reloader.renew_internal()).await.ok().flatten();
        // Without any, a reload may bring some.
        let pause = next.and_then(|next| next.duration_since(SystemTime::now()).ok());
        tokio::time::sleep(pause.unwrap_or(Duration::from_secs(3_600)).min(Duration::from_secs(3_600))).await;
    }
}

fn shard_count(model: &Model, cpus: f64) -> usize {
    match model.server.shards {
        ShardCount::Fixed(count) => count.into(),
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive number of CPUs")]
        ShardCount::Auto => (cpus.round() as usize).max(1),
    }
}

/// Starts the allocator's own thread, which gives memory back while nobody allocates. It would keep privileges that are
/// dropped after its start.
fn give_memory_back() {
    if let Err(error) = tikv_jemalloc_ctl::background_thread::write(true) {
        tracing::warn!(%error, "memory goes back to the system late: the allocator has no thread for it");
    }
}

fn drop_privileges(model: &Model, folders: &Folders) -> anyhow::Result<()> {
    let other_users = reload::worker_users(model).next().is_some();
    let Some(user) = &model.server.user else { return Ok(()) };
    let account = Account::find(user)?;
    folders.give_to(&account)?;
    for listener in &model.listeners {
        if let Address::Unix(path) = &listener.address {
            std::os::unix::fs::lchown(path, Some(account.uid), Some(account.gid))
                .with_context(|| format!("cannot give {} to the user", path.display()))?;
        }
    }
    let keep = if other_users { Keep::BindLowPortsAndSwitchUsers } else { Keep::BindLowPorts };
    privileges::drop_to(user, keep)?;
    Ok(())
}

/// What was read as root and cannot be read again: a reload would be refused for it, and nobody would know why then.
fn unreadable_now(model: &Model, folders: &Folders) -> Vec<TlsFault> {
    if model.server.user.is_none() {
        return Vec::new();
    }
    let mut faults = CertificateStore::check(model, &folders.state, SystemTime::now());
    faults.extend(sticky::check(model));
    faults.into_iter().filter(|fault| fault.severity == Severity::Error).collect()
}

fn start_logs(model: &Model, metrics: &Metrics) -> anyhow::Result<Logs> {
    let options = LogOptions {
        directives: std::env::var("RUST_LOG").ok().filter(|directives| !directives.is_empty()),
        terminal: std::io::stderr().is_terminal(),
        no_color: std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()),
    };
    let log = ProgramLog::install(model.logging.level, model.logging.format, options, metrics.program_log_losses());
    let log = log.context("program log")?;
    Logs::new(log, metrics.access_log_losses(), metrics.workers()).context("log of workers")
}

fn start_supervisor(
    folders: &Folders,
    bridge: &Arc<WorkerBridge>,
    log: Arc<WorkerLog>,
    cpus: f64,
) -> anyhow::Result<Handle> {
    let bridge = bridge.clone();
    let options = SupervisorOptions {
        runtime_dir: folders.runtime.clone(),
        reexec: Reexec::default(),
        environment: std::env::vars_os().collect(),
        progress: {
            let bridge = bridge.clone();
            Box::new(move || bridge.progress())
        },
        events: Box::new(move |event| bridge.event(event)),
        output: Box::new(move |line| log.take(worker_line(line))),
        cpus,
        roots: Roots::default(),
    };
    tidegate_supervisor::start(options).context("supervisor")
}

fn worker_line(line: OutputLine) -> Line {
    let OutputLine { pool, slot, generation, pid, stream, line, continued, dropped } = line;
    let stream = match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    let (time, text) = (SystemTime::now(), line.into());
    Line { time, upstream: pool, slot, generation, pid, stream, text, continued, dropped }
}

fn random_seed() -> anyhow::Result<[u64; 2]> {
    let mut bytes = [0_u8; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).context("random source")?;
    let (left, right) = bytes.split_at(8);
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    Ok([number(left), number(right)])
}
