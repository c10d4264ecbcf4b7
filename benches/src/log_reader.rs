//! Takes the access log of a peer that sends it over TCP, counts its lines, and forgets them.

use std::{
    io::Read,
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};

/// A thread that reads; dropping it ends the thread, once the peer has closed its connection.
pub(crate) struct LogReader {
    port: u16,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    lines: AtomicU64,
    ending: AtomicBool,
}

impl LogReader {
    /// Listens, on the processor core of the caller.
    pub(crate) fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("no free port for the access log")?;
        let port = listener.local_addr().context("no free port for the access log")?.port();
        let state = Arc::new(State::default());
        let shared = state.clone();
        let thread = thread::spawn(move || read_all(&listener, &shared));
        Ok(Self { port, state, thread: Some(thread) })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Lines that have arrived.
    pub(crate) fn lines(&self) -> u64 {
        self.state.lines.load(Ordering::Relaxed)
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        self.state.ending.store(true, Ordering::Relaxed);
        // Wakes the thread where it waits for a connection.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read_all(listener: &TcpListener, state: &State) {
    let mut buffer = vec![0; 256 << 10];
    while let Ok((mut peer, _)) = listener.accept() {
        while let Ok(count @ 1..) = peer.read(&mut buffer) {
            let lines = buffer[..count].iter().filter(|byte| **byte == b'\n').count();
            state.lines.fetch_add(lines as u64, Ordering::Relaxed);
        }
        if state.ending.load(Ordering::Relaxed) {
            return;
        }
    }
}
