//! The private address of one start of a worker: a socket file or a port of its own.
//!
//! Sockets are `{runtime_dir}/workers/{pool}/{generation}.{slot}.{spawn}.sock`. `workers` belongs to us and only lets
//! through (0711); a pool's folder is 0700 and belongs to the account its workers run as, which is ours unless the spec
//! names another. So no other account can reach or replace a socket, whatever mode the worker gives it. We get in
//! because the folder is ours or because we are root; every folder above `runtime_dir` must let the account through.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use crate::worker::{WorkerAddress, WorkerId};

/// Folder of a pool's sockets. Any name gives one folder right below `workers`.
pub(crate) fn pool_folder(runtime_dir: &Path, pool: &str) -> PathBuf {
    let mut name = String::new();
    for (at, byte) in pool.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            b'.' if at > 0 => name.push('.'),
            _ => name.push_str(&format!("%{byte:02x}")),
        }
    }
    runtime_dir.join("workers").join(name)
}

/// Makes the pool's folder, or gives an existing one its owner and mode. `owner` is uid and gid; `None` is us.
pub(crate) fn make_folder(folder: &Path, owner: Option<(u32, u32)>) -> Result<(), String> {
    let failed = |path: &Path, error: io::Error| format!("socket folder \"{}\": {error}", path.display());
    if let Some(workers) = folder.parent() {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o711).create(workers).map_err(|error| failed(workers, error))?;
    }
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(folder, error)),
    }
    let present = fs::symlink_metadata(folder).map_err(|error| failed(folder, error))?;
    if !present.is_dir() {
        return Err(failed(folder, io::ErrorKind::NotADirectory.into()));
    }
    // The mode first: once the folder is somebody else's, only root may change it.
    if present.mode() & 0o7777 != 0o700 {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(|error| failed(folder, error))?;
    }
    let us = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let (uid, gid) = owner.unwrap_or(us);
    if (present.uid(), present.gid()) != (uid, gid) {
        chown(folder, Some(uid), Some(gid)).map_err(|error| failed(folder, error))?;
    }
    Ok(())
}

/// The socket of one start, with no file there. Refused when the kernel could not take so long a path.
pub(crate) fn unix(folder: &Path, worker: &WorkerId) -> Result<WorkerAddress, String> {
    let path = file(folder, worker, "sock")?;
    remove_socket(&path);
    Ok(WorkerAddress::Unix(path))
}

/// Where one start finds its notification socket.
pub(crate) fn notify(folder: &Path, worker: &WorkerId) -> Result<PathBuf, String> {
    file(folder, worker, "note")
}

fn file(folder: &Path, worker: &WorkerId, kind: &str) -> Result<PathBuf, String> {
    let path = folder.join(format!("{}.{}.{}.{kind}", worker.generation, worker.slot, worker.spawn));
    let length = path.as_os_str().as_bytes().len();
    if length > LONGEST_PATH {
        let shown = path.display();
        return Err(format!(
            "socket path \"{shown}\" has {length} bytes, the kernel takes {LONGEST_PATH}; choose a shorter runtime folder"
        ));
    }
    Ok(path)
}

/// Removes a socket file, if there is one.
pub(crate) fn remove_socket(path: &Path) {
    let _ = fs::remove_file(path);
}

/// A port of 127.0.0.1 that is free now and not in `taken`. Somebody else may take it before the worker does; the
/// worker's boot fails then, and its next start gets another one.
pub(crate) fn port(taken: &dyn Fn(SocketAddr) -> bool) -> Result<WorkerAddress, String> {
    let failed = |error: io::Error| format!("free port: {error}");
    for _ in 0..TRIES {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        if !taken(address) {
            return Ok(WorkerAddress::Tcp(address));
        }
    }
    Err("free port: none left that is not given to a worker already".to_owned())
}

/// `sun_path` less its NUL.
const LONGEST_PATH: usize = 107;
const TRIES: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn worker() -> WorkerId {
        WorkerId { pool: "app".into(), slot: 2, generation: 3, spawn: 9 }
    }

    #[test]
    fn no_pool_name_leaves_the_workers_folder() {
        for (pool, expected) in
            [("app", "app"), ("a.b_c-D", "a.b_c-D"), ("..", "%2e."), ("../x/y", "%2e.%2fx%2fy"), ("\u{e9}", "%c3%a9")]
        {
            assert_eq!(pool_folder(Path::new("/run/t"), pool), Path::new("/run/t/workers").join(expected));
        }
    }

    #[test]
    fn folders_are_private_and_a_stale_socket_is_removed() {
        let root = tempfile::tempdir().expect("folder");
        let folder = pool_folder(root.path(), "app");
        make_folder(&folder, None).expect("first");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("mode");
        make_folder(&folder, None).expect("second");
        let mode = |path: &Path| fs::metadata(path).expect("there").mode() & 0o7777;
        assert_eq!((mode(&folder), mode(&root.path().join("workers"))), (0o700, 0o711));
        let stale = folder.join("3.2.9.sock");
        fs::write(&stale, "").expect("stale");
        assert_eq!(unix(&folder, &worker()), Ok(WorkerAddress::Unix(stale.clone())));
        assert!(!stale.exists());
    }

    #[test]
    fn a_link_in_place_of_a_folder_is_refused() {
        let root = tempfile::tempdir().expect("folder");
        let folder = pool_folder(root.path(), "app");
        fs::create_dir_all(folder.parent().expect("parent")).expect("workers");
        std::os::unix::fs::symlink("/tmp", &folder).expect("link");
        assert!(make_folder(&folder, None).expect_err("link").contains("not a directory"));
    }

    #[test]
    fn a_path_longer_than_the_kernel_takes_is_refused() {
        let exactly = |length: usize| PathBuf::from(format!("/{}", "x".repeat(length - 1 - "/3.2.9.sock".len())));
        assert!(unix(&exactly(107), &worker()).is_ok());
        assert!(unix(&exactly(108), &worker()).expect_err("too long").contains("has 108 bytes, the kernel takes 107"));
    }

    #[test]
    fn a_port_given_to_another_worker_is_not_given_again() {
        let WorkerAddress::Tcp(free) = port(&|_| false).expect("port") else { panic!("not a port") };
        assert!(free.ip().is_loopback() && free.port() != 0);
        assert!(port(&|_| true).is_err());
    }
}
