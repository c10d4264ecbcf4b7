//! Who is really behind a worker's address. Traffic meant for a worker never goes to a process that took its place.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::fd::AsFd;

use rustix::net::sockopt::socket_peercred;

use crate::process_table;

/// Whom we expect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    /// The worker's main process, which leads its session.
    pub(crate) pid: i32,
    /// Its account.
    pub(crate) uid: u32,
}

impl Expected {
    /// Checks a connected unix socket. The kernel reports the process that called `listen`; if that one has ended since,
    /// only its account is left to check, and the folder's mode already keeps other accounts out.
    pub(crate) fn check_unix(&self, socket: impl AsFd) -> Result<(), String> {
        let peer = socket_peercred(socket).map_err(|error| format!("peer credentials: {error}"))?;
        let pid = peer.pid.as_raw_nonzero().get();
        if process_table::one(pid).is_some() {
            return if self.owns(pid) { Ok(()) } else { Err(format!("the socket belongs to another process: {pid}")) };
        }
        let uid = peer.uid.as_raw();
        if uid == self.uid { Ok(()) } else { Err(format!("the socket belongs to another account: uid {uid}")) }
    }

    /// Checks that a listener of this port is open in one of the worker's processes, or, where these are not ours to look
    /// into (another account, and we are not root), that it was opened by the worker's account.
    pub(crate) fn check_port(&self, port: u16) -> Result<(), String> {
        let listeners = process_table::listeners(port);
        let is_open_in = |pid: i32| match process_table::socket_inodes(pid) {
            Ok(inodes) => listeners.iter().any(|(inode, _)| inodes.contains(inode)),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                listeners.iter().any(|(_, uid)| *uid == self.uid)
            }
            Err(_) => false,
        };
        if is_open_in(self.pid) || self.processes().into_iter().any(is_open_in) {
            return Ok(());
        }
        Err(format!("port {port} belongs to another process"))
    }

    /// Whether a process is the worker's: its main process, of its session or group, or below it.
    pub(crate) fn owns(&self, pid: i32) -> bool {
        pid == self.pid || self.processes().contains(&pid)
    }

    fn processes(&self) -> BTreeSet<i32> {
        let all = process_table::all();
        let below = process_table::tree(&all, self.pid);
        let in_session = all.iter().filter(|entry| entry.session == self.pid || entry.group == self.pid);
        in_session.map(|entry| entry.pid).chain(below).collect()
    }
}
