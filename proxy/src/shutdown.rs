//! The end in order: no new connections, last answers, workers, logs. A second signal cuts it short.

use crate::app::Program;
use crate::signal::{Signals, Told};
use std::convert::Infallible;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tidegate_supervisor::Command;

/// What workers get when time is short: enough to be killed and reaped.
const LAST_MOMENT: Duration = Duration::from_secs(1);
/// From one look at what is left to the next.
const LOOK: Duration = Duration::from_millis(20);

/// Ends everything, within `server.shutdown_timeout`.
///
/// # Errors
///
/// When workers are left.
pub(crate) async fn run(
    program: &Arc<Program>,
    threads: Vec<JoinHandle<()>>,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    let reloader = program.reloader();
    let server = reloader.serving.load().model.server.clone();
    let begun = Instant::now();
    let end = begun + server.shutdown_timeout;
    tracing::info!(connections = reloader.admission.open(), "shutting down");
    reloader.plane.drain(begun + server.drain_timeout.min(server.shutdown_timeout));
    let drained = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
    let mut forced = tokio::select! {
        _ = drained => false,
        never = end_tunnels(program, end) => match never {},
        () = again(signals) => true,
        () = tokio::time::sleep_until(end.into()) => {
            tracing::error!("connections are left although their time is over");
            true
        }
    };
    tracing::info!(ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX), forced, "connections drained");
    let supervisor = reloader.supervisor.clone();
    let left = end.saturating_duration_since(Instant::now()).max(LAST_MOMENT);
    supervisor.send(if forced { Command::ShutdownNow } else { Command::Shutdown { deadline: left } });
    let waiting = supervisor.clone();
    let mut stopped = tokio::task::spawn_blocking(move || waiting.join_stopped(left + LAST_MOMENT));
    let all_gone = tokio::select! {
        stopped = &mut stopped => stopped,
        () = again(signals), if !forced => {
            forced = true;
            supervisor.send(Command::ShutdownNow);
            stopped.await
        }
    };
    anyhow::ensure!(all_gone.unwrap_or(false), "workers are left although their time is over");
    tracing::info!(ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX), forced, "stopped");
    Ok(())
}

/// Once tunnels alone are left, workers are told to stop, while there still is somebody to pass their goodbyes on. No request
/// can come any more that would find none.
async fn end_tunnels(program: &Arc<Program>, end: Instant) -> Infallible {
    let reloader = program.reloader();
    let plane = &reloader.plane;
    let mut tick = tokio::time::interval(LOOK);
    while !plane.is_silent(|| reloader.admission.open()) {
        tick.tick().await;
    }
    let tunnels = reloader.admission.open();
    if tunnels > 0 {
        tracing::info!(tunnels, "only tunnels are left");
        reloader.supervisor.send(Command::Shutdown { deadline: end.saturating_duration_since(Instant::now()) });
    }
    std::future::pending().await
}

/// Waits for another order to stop.
async fn again(signals: &mut Signals) {
    while signals.next().await != Told::Stop {}
}
