//! Accepts connections, serves each in its own task, and stops without losing a request.
//!
//! On SIGTERM or SIGINT no connection is accepted any more, idle ones are closed, requests in flight get the drain
//! time to finish. What has not finished then is cut: a supervisor would kill it anyway.

use std::{
    convert::Infallible,
    io::{self, Write},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::{sleep, timeout},
};

use crate::{
    answer,
    app::App,
    listen::{Listener, Stream},
    options::Options,
    trouble::Trouble,
};

/// How to serve; the part of the options that matters after listening.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    keep_alive: Duration,
    drain: Duration,
    log_requests: bool,
    trouble: Trouble,
    ignore_term: bool,
    concurrency: Option<usize>,
}

/// Held by everything that serves somebody: the stop signal, and a proof of life the drain waits for.
#[derive(Clone)]
pub(crate) struct Session {
    stop: watch::Receiver<bool>,
    _alive: mpsc::Sender<Infallible>,
    /// One permit for each request that is served; absent when they are not counted.
    slots: Option<Arc<Semaphore>>,
}

/// One request of a connection, from its head to the last byte of its answer.
pub(crate) struct InFlight {
    activity: Arc<Activity>,
    /// Its place among those that are served at once.
    slot: Option<OwnedSemaphorePermit>,
}

/// What a connection did and does.
struct Activity {
    started: Instant,
    requests: AtomicU64,
    in_flight: AtomicU64,
    /// Milliseconds from `started` to the end of the last request.
    idle_since: AtomicU64,
}

/// Serves until told to stop, then drains. Returns when nobody is served any more or the drain time is over.
pub(crate) async fn serve(listener: Listener, app: Arc<App>, policy: Policy) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let (stop, stopped) = watch::channel(false);
    let (alive, mut all_gone) = mpsc::channel(1);
    let slots = policy.concurrency.map(|slots| Arc::new(Semaphore::new(slots)));
    let session = Session { stop: stopped, _alive: alive, slots };
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(stream) => drop(tokio::spawn(connection(stream, Arc::clone(&app), session.clone(), policy))),
                Err(error) => back_off(&error).await,
            },
            () = told_to_stop(&mut terminate, &mut interrupt, policy.ignore_term) => break,
        }
    }
    drop(listener);
    drop(session);
    let _ = stop.send(true);
    let _ = timeout(policy.drain, all_gone.recv()).await;
    Ok(())
}

async fn told_to_stop(terminate: &mut Signal, interrupt: &mut Signal, ignore_term: bool) {
    tokio::select! {
        _ = terminate.recv(), if !ignore_term => {}
        _ = interrupt.recv() => {}
    }
}

/// Waits out a lack of descriptors or memory instead of spinning on it.
async fn back_off(error: &io::Error) {
    let _ = writeln!(io::stderr(), "warning: cannot accept: {error}");
    sleep(Duration::from_millis(50)).await;
}

async fn connection(stream: Stream, app: Arc<App>, session: Session, policy: Policy) {
    let activity = Arc::new(Activity::new());
    let (app, session) = (&*app, &session);
    let service = service_fn(|request: Request<Incoming>| {
        let mut busy = InFlight::begin(&activity);
        async move {
            busy.slot = session.slot().await;
            if policy.log_requests {
                log(&request);
            }
            let struck = policy.trouble.strike(request.uri().path(), app.count()).await;
            let answer = match struck {
                Some(answer) => answer,
                None => answer::answer(app, session, request).await,
            };
            Ok::<_, Infallible>(answer.map(|body| body.holding(busy)))
        }
    });
    // Without hyper's `pipeline_flush`, which loses an answer whose request's body was not read and stands in the buffer.
    let builder = http1::Builder::new();
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let mut stop = session.stop.clone();
    loop {
        // The connection first: bytes that are already here become a request before anybody decides to close.
        tokio::select! {
            biased;
            _ = connection.as_mut() => return,
            _ = stop.wait_for(|stop| *stop) => break,
            () = sleep(activity.until_expired(policy.keep_alive)) => if activity.expired(policy.keep_alive) { break },
        }
    }
    connection.as_mut().graceful_shutdown();
    if activity.requests.load(Ordering::Relaxed) == 0 {
        // hyper waits for the first request of a connection even when it shuts down.
        let _ = timeout(FIRST_REQUEST_GRACE, connection).await;
    } else {
        let _ = connection.await;
    }
}

fn log(request: &Request<Incoming>) {
    let _ = writeln!(io::stdout(), "{} {}", request.method(), request.uri());
}

impl Session {
    /// Waits for a place among the requests that are served at once.
    async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(self.slots.as_ref()?).acquire_owned().await.ok()
    }

    /// Resolves when the worker was told to stop.
    pub(crate) async fn stopping(&mut self) {
        // An error means the server is gone already.
        let _ = self.stop.wait_for(|stop| *stop).await;
    }
}

impl Activity {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            requests: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
        }
    }

    fn idle(&self) -> Duration {
        if self.in_flight.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        self.started.elapsed().saturating_sub(Duration::from_millis(self.idle_since.load(Ordering::Relaxed)))
    }

    fn expired(&self, keep_alive: Duration) -> bool {
        self.idle() >= keep_alive
    }

    /// When to look again; never at once, so that rounding cannot make the loop spin.
    fn until_expired(&self, keep_alive: Duration) -> Duration {
        keep_alive.saturating_sub(self.idle()).max(Duration::from_millis(1))
    }
}

impl InFlight {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.requests.fetch_add(1, Ordering::Relaxed);
        activity.in_flight.fetch_add(1, Ordering::Relaxed);
        Self { activity: Arc::clone(activity), slot: None }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let now = self.activity.started.elapsed().as_millis() as u64;
        self.activity.idle_since.store(now, Ordering::Relaxed);
        self.activity.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl From<&Options> for Policy {
    fn from(options: &Options) -> Self {
        Self {
            keep_alive: options.keep_alive,
            drain: options.drain,
            log_requests: options.log_requests,
            ignore_term: options.ignore_term,
            concurrency: options.concurrency,
            trouble: Trouble::from(options),
        }
    }
}

/// How long a connection without any request may still bring one after the stop signal.
const FIRST_REQUEST_GRACE: Duration = Duration::from_millis(200);
