//! The secrets that endpoints are named with in the cookies of clients that stay with them.
//!
//! A secret is a file of the operator's, or one of our own in the state folder, made once. Each file is read again at every
//! reload, so a secret is rotated by putting a new file first in the list and reloading.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::{hmac, rand};
use tidegate_config::model::{Model, Sticky};
use tidegate_traffic::pool::sticky::{Seal, Seals};

use crate::tls::fault::{Problem, TlsFault};
use crate::tls::state_file::PrivateFolder;

/// Folder below the state directory.
const FOLDER: &str = "sticky";
const FILE: &str = "secret";
/// Shorter ones could be guessed.
const SHORTEST: usize = 16;
/// Larger than any secret.
const LARGEST_FILE: u64 = 64 * 1024;

/// HMAC-SHA256 (RFC 2104) with a secret.
struct Key(hmac::Key);

impl Key {
    fn sealing(secret: &[u8]) -> Arc<dyn Seal> {
        Arc::new(Self(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }
}

impl Seal for Key {
    fn seal(&self, message: &[u8]) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(hmac::sign(&self.0, message).as_ref());
        hash
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// What endpoints are named with, for every upstream whose clients stay. Blocks on files.
///
/// # Errors
/// Every upstream whose secrets cannot be used.
pub(crate) fn seals(model: &Model, state: &Path) -> Result<HashMap<String, Seals>, Vec<TlsFault>> {
    let (mut seals, mut faults) = (HashMap::new(), Vec::new());
    for (name, sticky) in with_sticky(model) {
        let keys: Result<Vec<_>, _> = match sticky.secrets.as_slice() {
            [] => own_secret(state).map(|secret| vec![Key::sealing(secret.as_bytes())]),
            files => files.iter().map(|file| Ok(Key::sealing(&read_secret(file)?))).collect(),
        };
        match keys {
            Ok(keys) => drop(seals.insert(name.to_owned(), Seals::from(keys))),
            Err(problem) => faults.push(problem.of_upstream(name)),
        }
    }
    if faults.is_empty() { Ok(seals) } else { Err(faults) }
}

/// Every secret of the operator's that cannot be used. Makes none.
pub(crate) fn check(model: &Model) -> Vec<TlsFault> {
    let files = with_sticky(model).flat_map(|(name, sticky)| sticky.secrets.iter().map(move |file| (name, file)));
    files.filter_map(|(name, file)| Some(read_secret(file).err()?.of_upstream(name))).collect()
}

fn with_sticky(model: &Model) -> impl Iterator<Item = (&str, &Sticky)> {
    model.upstreams.values().filter_map(|upstream| Some((upstream.name.as_str(), upstream.sticky.as_ref()?)))
}

/// What a file holds, without the line's end that editors add.
fn read_secret(path: &Path) -> Result<Vec<u8>, Problem> {
    let failed =
        |error| Problem::error(path, format!("cannot be read: {error}"), "let the account of tidegate read it");
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode();
    // Who knows the secret chooses endpoints, which is less than a private key gives away, but still a secret.
    if mode & 0o007 != 0 {
        let problem = format!("secret is open to every account (mode {:04o})", mode & 0o7777);
        return Err(Problem::error(path, problem, "make it 0600, or 0640 for a group, and put another secret in it"));
    }
    let mut secret = Vec::new();
    file.take(LARGEST_FILE).read_to_end(&mut secret).map_err(failed)?;
    secret.truncate(secret.trim_ascii_end().len());
    if secret.len() < SHORTEST {
        let problem = format!("secret has {} bytes, which can be guessed", secret.len());
        return Err(Problem::error(path, problem, "write 16 bytes or more, for example with: openssl rand -hex 32"));
    }
    Ok(secret)
}

/// The secret in the state folder, which is made where there is none.
fn own_secret(state: &Path) -> Result<String, Problem> {
    let folder = PrivateFolder::open(&state.join(FOLDER))?;
    if let Some(secret) = folder.read(FILE)?
        && secret.trim_end().len() >= SHORTEST
    {
        return Ok(secret);
    }
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| Problem::general("no random numbers for a secret", "check the system"))?;
    let secret: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    folder.write(FILE, &secret)?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    fn file(folder: &Path, text: &str, mode: u32) -> std::path::PathBuf {
        let path = folder.join("file");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    /// RFC 4231 section 4.2.
    #[test]
    fn a_seal_is_hmac_sha256() {
        let hash = Key::sealing(&[0x0b; 20]).seal(b"Hi There");
        assert_eq!(hash[..8], [0xb0, 0x34, 0x4c, 0x61, 0xd8, 0xdb, 0x38, 0x53]);
    }

    #[test]
    fn a_secret_of_our_own_is_made_once() {
        let root = tempfile::tempdir().unwrap();
        let secret = own_secret(root.path()).ok().unwrap();
        assert_eq!(secret.len(), 64);
        assert_eq!(own_secret(root.path()).ok().unwrap(), secret);
        assert_eq!(fs::metadata(root.path().join("sticky/secret")).unwrap().mode() & 0o777, 0o600);
        fs::write(root.path().join("sticky/secret"), "short").unwrap();
        assert_ne!(own_secret(root.path()).ok().unwrap(), secret, "what a crash left is no secret");
    }

    #[test]
    fn secrets_that_are_none_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let read = |text, mode| read_secret(&file(root.path(), text, mode));
        assert_eq!(read("0123456789abcdef\n", 0o640).ok().unwrap(), b"0123456789abcdef");
        let told = |text, mode| read(text, mode).err().unwrap().of_upstream("app").to_string();
        assert!(told("0123456789abcde \n", 0o600).contains("has 15 bytes"));
        assert!(told("0123456789abcdef", 0o644).contains("mode 0644"));
        assert!(read_secret(&root.path().join("absent")).is_err());
    }
}
