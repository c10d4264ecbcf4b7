//! Runs the admin endpoint on the control runtime: few connections, a deadline on every head, answers finished on shutdown.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::control::Control;
use super::guard::Guard;
use super::routes::router;
use super::socket::{AdminSocket, Listening};

/// Connections at once; more wait in the socket's queue.
const MOST_CONNECTIONS: usize = 64;
/// For a head, the first one and those of a kept connection.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// For answers under way on shutdown.
const FINISH_DEADLINE: Duration = Duration::from_secs(5);
/// After a failed accept, which is nearly always a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` ends, then finishes what is under way (for at most 5 seconds) and removes the socket.
///
/// # Errors
/// When the runtime cannot take the socket.
pub async fn serve(
    socket: AdminSocket,
    control: Arc<dyn Control>,
    guard: Guard,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let acceptor = Acceptor::new(&socket)?;
    let router = router(control, guard);
    let (stopping, stopped) = watch::channel(false);
    let permits = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, acceptor.accept().await)
        };
        let (permit, stream) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accepted => accepted,
        };
        let Ok(stream) = stream else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (router, stopped) = (router.clone(), stopped.clone());
        connections.spawn(async move {
            connection(stream, router, stopped).await;
            drop(permit);
        });
    }
    let _ = stopping.send(true);
    let _ = tokio::time::timeout(FINISH_DEADLINE, async { while connections.join_next().await.is_some() {} }).await;
    Ok(())
}

/// Serves one connection until it ends or the program stops; errors are the client's.
async fn connection(stream: Stream, router: Router, mut stopped: watch::Receiver<bool>) {
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // The guard that `wait_for` returns must not live across an await.
    let stopping = async { drop(stopped.wait_for(|stopped| *stopped).await) };
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stopping => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

type Stream = Box<dyn Io>;

/// Either kind of stream.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

enum Acceptor {
    Unix(tokio::net::UnixListener),
    Tcp(tokio::net::TcpListener),
}

impl Acceptor {
    fn new(socket: &AdminSocket) -> io::Result<Self> {
        match &socket.listener {
            Listening::Unix(listener) => tokio::net::UnixListener::from_std(listener.try_clone()?).map(Self::Unix),
            Listening::Tcp(listener) => tokio::net::TcpListener::from_std(listener.try_clone()?).map(Self::Tcp),
        }
    }

    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Box::new(stream) as Stream),
            Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| Box::new(stream) as Stream),
        }
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
pub(crate) mod tests;
