//! Finds the programs under test where cargo put them.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// A program of this repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    /// The program under test.
    Tidegate,
    /// The demo worker.
    UpstreamDemo,
}

impl Binary {
    /// Where the program is: in `TIDEGATE_BIN_DIR` if that is set, else beside the test's own target directory.
    ///
    /// # Panics
    /// When it is not built; the message says how to.
    pub fn path(self) -> PathBuf {
        let dir = env::var_os("TIDEGATE_BIN_DIR").map_or_else(profile_dir, PathBuf::from);
        let path = dir.join(self.name());
        assert!(path.is_file(), "'{}' is not built; run: cargo build -p {}", path.display(), self.name());
        path
    }

    /// A command that runs the program, with no variable of ours in its environment that would change what it does.
    pub fn command(self) -> Command {
        let mut command = Command::new(self.path());
        command.env_remove("RUST_LOG").env_remove("WEB_CONCURRENCY").env_remove("NOTIFY_SOCKET");
        command
    }

    fn name(self) -> &'static str {
        match self {
            Self::Tidegate => "tidegate",
            Self::UpstreamDemo => "upstream-demo",
        }
    }
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is a folder of the repository")
}

/// `target/<profile>`: the test executable is in its `deps`.
fn profile_dir() -> PathBuf {
    let executable = env::current_exe().expect("the kernel knows what it runs");
    let dir = executable.parent().expect("a file has a folder");
    if dir.ends_with("deps") { dir.parent().unwrap_or(dir).to_owned() } else { dir.to_owned() }
}
