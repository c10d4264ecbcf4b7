//! A certificate chain with its private key, read from PEM files and checked against each other.
//!
//! It decides whether files can be served at all; which site presents them is the store's business.

use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::fault::Problem;

/// A file with certificates that is larger than this is none: a chain is a few KiB.
const LARGEST_FILE: u64 = 1 << 20;
/// A certificate that expires sooner than this is worth a warning.
const SOON: Duration = Duration::from_secs(7 * 24 * 3600);

/// A chain with its key, ready to be presented in a handshake.
#[derive(Debug)]
pub struct Credentials {
    /// What rustls presents.
    pub key: Arc<CertifiedKey>,
    /// From when on clients accept the leaf.
    pub not_before: SystemTime,
    /// Until when clients accept the leaf.
    pub not_after: SystemTime,
    /// Names the leaf is valid for: DNS names in lower case (`*.` for a wildcard) and IP addresses.
    pub names: Vec<String>,
}

impl Credentials {
    /// Whether clients take the leaf for `host`, a name in lower case, an IP address or a `*.` wildcard.
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        let parent = host.split_once('.').map(|(_, parent)| parent);
        self.names.iter().any(|name| {
            name == host
                || name.strip_prefix("*.").is_some_and(|suffix| !host.starts_with("*.") && parent == Some(suffix))
        })
    }
}

/// Credentials that can be served, with what is doubtful about them.
pub(crate) struct Checked {
    pub(crate) credentials: Credentials,
    pub(crate) warnings: Vec<Problem>,
}

/// Reads a pair of files: leaf first, then intermediates; the key as PKCS#8, PKCS#1 or SEC1.
pub(crate) fn read_pair(certificate: &Path, key: &Path, now: SystemTime) -> Result<Checked, Vec<Problem>> {
    let mut warnings = Vec::new();
    let chain = read_chain(certificate);
    let signing_key = read_key(key, &mut warnings);
    let (chain, signing_key) = match (chain, signing_key) {
        (Ok(chain), Ok(signing_key)) => (chain, signing_key),
        (chain, signing_key) => return Err([chain.err(), signing_key.err()].into_iter().flatten().collect()),
    };
    let credentials = assemble(chain, signing_key, certificate, key).map_err(|problem| vec![problem])?;
    warnings.extend(doubts_about_validity(&credentials, certificate, now));
    Ok(Checked { credentials, warnings })
}

/// The certificates of a PEM file, in its order; never empty.
pub(crate) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let text = read_file(path)?.text;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|error| not_pem(path, &error))?;
    if chain.is_empty() {
        let problem = if has_section(&text, b"PRIVATE KEY") {
            "holds a private key but no certificate"
        } else {
            "no certificate in the file"
        };
        return Err(Problem::error(path, problem, "give a PEM file with the leaf first, then the intermediates"));
    }
    Ok(chain)
}

/// A store that trusts these certificates of a file, and nobody else.
pub(crate) fn roots_of(certificates: &[CertificateDer<'static>], path: &Path) -> Result<RootCertStore, Problem> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone()).map_err(|error| {
            let problem = format!("holds a certificate that cannot be trusted: {error}");
            Problem::error(path, problem, "give the CA's own certificates in PEM")
        })?;
    }
    Ok(roots)
}

/// The private key of a PEM file; a key that others can read is a warning.
pub(crate) fn read_key(path: &Path, warnings: &mut Vec<Problem>) -> Result<Arc<dyn SigningKey>, Problem> {
    let ReadFile { text, mode } = read_file(path)?;
    if mode & 0o077 != 0 {
        warnings.push(Problem::warning(
            path,
            format!("private key is open to other accounts (mode {:04o})", mode & 0o7777),
            "make it 0600",
        ));
    }
    let key = key_in(&text, path)?;
    any_supported_type(&key).map_err(|error| {
        Problem::error(
            path,
            format!("private key cannot be used: {error}"),
            "use ECDSA P-256 or P-384, RSA from 2048 bits, or Ed25519",
        )
    })
}

/// The private key of a PEM file, as it is written there.
pub(crate) fn read_key_der(path: &Path) -> Result<PrivateKeyDer<'static>, Problem> {
    key_in(&read_file(path)?.text, path)
}

fn key_in(text: &[u8], path: &Path) -> Result<PrivateKeyDer<'static>, Problem> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        pem::Error::NoItemsFound if has_section(text, b"ENCRYPTED PRIVATE KEY") => Problem::error(
            path,
            "private key is encrypted with a passphrase",
            "decrypt it with: openssl pkey -in FILE -out PLAIN",
        ),
        pem::Error::NoItemsFound if has_section(text, b"CERTIFICATE") => {
            Problem::error(path, "holds a certificate but no private key", "give the file with the private key")
        }
        pem::Error::NoItemsFound => {
            Problem::error(path, "no private key in the file", "give a PEM file with a PKCS#8, PKCS#1 or SEC1 key")
        }
        other => not_pem(path, &other),
    })
}

/// Puts chain and key together when they belong together.
pub(crate) fn assemble(
    chain: Vec<CertificateDer<'static>>,
    signing_key: Arc<dyn SigningKey>,
    certificate: &Path,
    key: &Path,
) -> Result<Credentials, Problem> {
    let unreadable = |error: String| {
        Problem::error(certificate, format!("certificate cannot be read: {error}"), "ask the issuer for a new file")
    };
    let leaf_der = chain.first().cloned().ok_or_else(|| unreadable("the chain is empty".to_owned()))?;
    let (_, leaf) = X509Certificate::from_der(&leaf_der).map_err(|error| unreadable(error.to_string()))?;
    let not_before = system_time(leaf.validity().not_before.timestamp());
    let not_after = system_time(leaf.validity().not_after.timestamp());
    let names = names_of(&leaf);

    let certified = CertifiedKey::new(chain, signing_key);
    certified.keys_match().map_err(|_| mismatch(&certified, certificate, key))?;
    Ok(Credentials { key: Arc::new(certified), not_before, not_after, names })
}

/// Says why the key does not match: another certificate of the chain may.
fn mismatch(certified: &CertifiedKey, certificate: &Path, key: &Path) -> Problem {
    let later = certified
        .cert
        .iter()
        .skip(1)
        .any(|other| CertifiedKey::new(vec![other.clone()], Arc::clone(&certified.key)).keys_match().is_ok());
    if later {
        return Problem::error(
            certificate,
            "the first certificate is not the one of the key",
            "put the leaf first, then the intermediates",
        );
    }
    Problem::error(
        key,
        format!("private key does not match the certificate in {}", certificate.display()),
        "give the key the certificate was issued for",
    )
}

fn doubts_about_validity(credentials: &Credentials, certificate: &Path, now: SystemTime) -> Option<Problem> {
    if credentials.not_after <= now {
        return Some(Problem::warning(certificate, "certificate has expired", "renew it: clients refuse it"));
    }
    if credentials.not_before > now {
        let remedy = "check the clock of this machine: clients refuse it until then";
        return Some(Problem::warning(certificate, "certificate is not valid yet", remedy));
    }
    let left = credentials.not_after.duration_since(now).unwrap_or_default();
    (left < SOON).then(|| {
        let problem = format!("certificate expires in {} hours", left.as_secs() / 3600);
        Problem::warning(certificate, problem, "renew it")
    })
}

fn names_of(leaf: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = leaf.subject_alternative_name() else { return Vec::new() };
    extension.value.general_names.iter().filter_map(name_of).collect()
}

fn name_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|octets| IpAddr::from(octets).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|octets| IpAddr::from(octets).to_string()),
            _ => None,
        },
        _ => None,
    }
}

/// A file with its permission bits.
struct ReadFile {
    text: Vec<u8>,
    mode: u32,
}

/// Reads a regular file of reasonable size; a FIFO must not stop the program.
fn read_file(path: &Path) -> Result<ReadFile, Problem> {
    let unreadable = |error: io::Error| {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => "check the path in the site file",
            io::ErrorKind::PermissionDenied => "let the account that starts tidegate read it",
            _ => "check the path and the file system",
        };
        Problem::error(path, format!("cannot be read: {error}"), remedy)
    };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Problem::error(path, "is not a regular file", "give a PEM file"));
    }
    if metadata.len() > LARGEST_FILE {
        return Err(Problem::error(path, "is larger than 1 MiB", "give a PEM file with one chain or one key"));
    }
    let mut text = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(LARGEST_FILE).read_to_end(&mut text)).map_err(unreadable)?;
    Ok(ReadFile { text, mode: metadata.mode() })
}

fn not_pem(path: &Path, error: &pem::Error) -> Problem {
    Problem::error(path, format!("is not PEM: {error}"), "give a file with -----BEGIN ...----- sections")
}

/// Whether PEM text has a section whose label ends with `label`.
fn has_section(text: &[u8], label: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).any(|line| {
        line.strip_prefix(b"-----BEGIN ")
            .and_then(|rest| rest.strip_suffix(b"-----"))
            .is_some_and(|name| name.ends_with(label))
    })
}

/// Seconds since 1970 as a time; a time before that is 1970.
fn system_time(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    struct Files {
        folder: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap() }
        }

        fn put(&self, name: &str, text: &str, mode: u32) -> std::path::PathBuf {
            use std::os::unix::fs::PermissionsExt;
            let path = self.folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        }
    }

    fn pair(name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn problem_of(certificate: &Path, key: &Path) -> String {
        let problems = read_pair(certificate, key, SystemTime::now()).err().expect("a fault");
        problems.iter().map(|problem| problem.of_site("a").to_string()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_good_pair_is_taken() {
        let files = Files::new();
        let (certificate, key) = pair("a.example");
        let checked = read_pair(&files.put("c", &certificate, 0o644), &files.put("k", &key, 0o600), SystemTime::now())
            .ok()
            .unwrap();
        assert_eq!(checked.credentials.names, ["a.example"]);
        assert!(checked.warnings.is_empty());
    }

    #[test]
    fn every_bad_pair_is_told_apart() {
        let files = Files::new();
        let (certificate, key) = pair("a.example");
        let (other_certificate, other_key) = pair("b.example");
        let good = files.put("good.pem", &certificate, 0o644);
        let good_key = files.put("good.key", &key, 0o600);
        let reversed = files.put("reversed.pem", &format!("{other_certificate}{certificate}"), 0o644);
        let other_key = files.put("other.key", &other_key, 0o600);
        let empty = files.put("empty", "", 0o600);
        let text = files.put("text", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n", 0o600);
        let junk = files.put("junk", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 0o600);
        let sealed = files.put(
            "sealed",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            0o600,
        );
        let nowhere = files.folder.path().join("nowhere");
        let rows: [(&Path, &Path, &str); 11] = [
            (&good, &other_key, "does not match the certificate"),
            (&reversed, &good_key, "put the leaf first"),
            (&nowhere, &good_key, "cannot be read"),
            (&good, &nowhere, "cannot be read"),
            (&empty, &good_key, "no certificate in the file"),
            (&good, &empty, "no private key in the file"),
            (&good_key, &good_key, "holds a private key but no certificate"),
            (&good, &good, "holds a certificate but no private key"),
            (&text, &good_key, "is not PEM"),
            (&junk, &good_key, "certificate cannot be read"),
            (&good, &sealed, "encrypted with a passphrase"),
        ];
        for (certificate, key, wanted) in rows {
            let told = problem_of(certificate, key);
            assert!(told.contains(wanted), "wanted {wanted:?} in {told:?}");
            assert!(told.starts_with("site \"a\": /"), "{told}");
        }
        let both = problem_of(&nowhere, &empty);
        assert_eq!(both.lines().count(), 2, "{both}");
        assert!(problem_of(files.folder.path(), &good_key).contains("not a regular file"));
    }

    #[test]
    fn an_open_key_and_an_expired_certificate_are_warnings() {
        let files = Files::new();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 2, 1);
        let certificate = files.put("c", &params.self_signed(&key).unwrap().pem(), 0o644);
        let key = files.put("k", &key.serialize_pem(), 0o640);
        let checked = read_pair(&certificate, &key, SystemTime::now()).ok().unwrap();
        let told: Vec<String> = checked.warnings.iter().map(|warning| warning.of_site("a").to_string()).collect();
        assert!(told[0].contains("mode 0640"), "{told:?}");
        assert!(told[1].contains("has expired"), "{told:?}");
    }

    #[test]
    fn a_wildcard_covers_one_label() {
        let files = Files::new();
        let (certificate, key) = pair("*.example.com");
        let checked = read_pair(&files.put("c", &certificate, 0o644), &files.put("k", &key, 0o600), SystemTime::now());
        let credentials = checked.ok().unwrap().credentials;
        let rows =
            [("a.example.com", true), ("*.example.com", true), ("example.com", false), ("a.b.example.com", false)];
        for (host, covered) in rows {
            assert_eq!(credentials.covers(host), covered, "{host}");
        }
    }
}
