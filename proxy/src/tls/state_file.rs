//! Secret files in the state directory: 0600 in a 0700 folder, replaced as a whole or not at all.
//!
//! A crash at any point leaves the old file or the new one. Keys that others can read are refused, because what was
//! open once must be treated as known.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::fault::Problem;

/// Larger than any file we write.
const LARGEST_FILE: u64 = 1 << 20;

/// A folder of ours that nobody else can look into, locked against a second process.
///
/// The lock lives as long as the value and is never waited for longer than another process needs to write its files.
#[derive(Debug)]
pub(crate) struct PrivateFolder {
    path: PathBuf,
    _lock: File,
}

impl PrivateFolder {
    /// Creates the folder (and those above it, as 0700 too) where it is missing.
    pub(crate) fn open(path: &Path) -> Result<Self, Problem> {
        let failed = |what: &str, error: io::Error| {
            Problem::error(path, format!("{what}: {error}"), "let the account of tidegate write the state directory")
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| failed("cannot be created", error))?;
        let mode = fs::metadata(path).map_err(|error| failed("cannot be read", error))?.mode();
        if mode & 0o077 != 0 {
            return Err(Problem::error(
                path,
                format!("folder with secrets is open to other accounts (mode {:04o})", mode & 0o7777),
                "make it 0700, or delete it: what is in it is made anew",
            ));
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(|error| failed("cannot be locked", error))?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|error| failed("cannot be locked", error.into()))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Path of a file in the folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Text of a file; `None` when there is none.
    pub(crate) fn read(&self, name: &str) -> Result<Option<String>, Problem> {
        read_private(&self.file(name))
    }

    /// Replaces a file.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<(), Problem> {
        let path = self.file(name);
        self.replace(&path, text).map_err(|error| {
            Problem::error(
                &path,
                format!("cannot be written: {error}"),
                "check space and permissions of the state directory",
            )
        })
    }

    fn replace(&self, path: &Path, text: &str) -> io::Result<()> {
        let temporary = path.with_extension("new");
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(&self.path)?.sync_all()
    }
}

/// Text of a file that only its owner can read; `None` when there is none.
pub(crate) fn read_private(path: &Path) -> Result<Option<String>, Problem> {
    let failed =
        |error: io::Error| Problem::error(path, format!("cannot be read: {error}"), "check its owner, or delete it");
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mode = file.metadata().map_err(failed)?.mode();
    if mode & 0o077 != 0 {
        return Err(Problem::error(
            path,
            format!("private key is open to other accounts (mode {:04o})", mode & 0o7777),
            "delete the folder, what is in it is made anew, or make the file 0600 if nobody has read it",
        ));
    }
    let mut text = String::new();
    file.take(LARGEST_FILE).read_to_string(&mut text).map_err(failed)?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_are_private_and_replaced_whole() {
        let root = tempfile::tempdir().unwrap();
        let folder = PrivateFolder::open(&root.path().join("state/ca")).ok().unwrap();
        folder.write("ca.key", "one").ok().unwrap();
        fs::write(folder.file("ca.new"), "left over by a crash").unwrap();
        folder.write("ca.key", "two").ok().unwrap();
        assert_eq!(folder.read("ca.key").ok().unwrap().as_deref(), Some("two"));
        assert_eq!(folder.read("absent").ok().unwrap(), None);
        for (path, wanted) in [(root.path().join("state"), 0o700), (folder.file("ca.key"), 0o600)] {
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, wanted, "{}", path.display());
        }
    }

    #[test]
    fn wider_permissions_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("ca");
        let folder = PrivateFolder::open(&path).ok().unwrap();
        folder.write("ca.key", "one").ok().unwrap();
        fs::set_permissions(folder.file("ca.key"), fs::Permissions::from_mode(0o640)).unwrap();
        let told = folder.read("ca.key").err().unwrap().of_site("a").to_string();
        assert!(told.contains("mode 0640"), "{told}");
        drop(folder);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let told = PrivateFolder::open(&path).err().unwrap().of_site("a").to_string();
        assert!(told.contains("mode 0755"), "{told}");
    }
}
