//! A listener that nobody can connect to and that refuses nobody: its queue is full, so the kernel drops every
//! handshake. What a host behind a silent firewall looks like, on loopback.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use socket2::{Domain, Socket, Type};

/// A listening socket with a full queue. Connections to it wait until their own deadline.
pub struct Hole {
    address: SocketAddr,
    _listener: Socket,
    // They fill the queue as long as nobody accepts or closes them.
    _queued: Vec<TcpStream>,
}

impl Hole {
    /// Listens on a free loopback port and fills the queue. Blocks for the time of `FULL`.
    ///
    /// # Panics
    /// When the queue does not fill.
    pub fn open() -> Self {
        let listener = listen().expect("loopback has free ports");
        let address = listener.local_addr().ok().and_then(|address| address.as_socket()).expect("it is bound");
        let mut queued = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, FULL) {
            queued.push(stream);
            assert!(queued.len() < 64, "the queue of {address} takes connections without end");
        }
        Self { address, _listener: listener, _queued: queued }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn listen() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.listen(0)?;
    Ok(socket)
}

/// A handshake on loopback that takes longer meets a full queue.
const FULL: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_in_and_nobody_is_refused() {
        let hole = Hole::open();
        let error = TcpStream::connect_timeout(&hole.address(), FULL).expect_err("the queue is full");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    }
}
