//! `tls: internal`: a local CA in the state directory and the leaves it issues, for development.
//!
//! The CA is made once and kept, so that it can be trusted once; leaves are reused while more than a third of their life
//! is left. A leaf and its key share one file, which makes the pair atomic. It is no CA for a network: it revokes
//! nothing and issues only for the site file beside it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tidegate_config::model::HostPattern;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::credentials::{Credentials, assemble};
use super::fault::Problem;
use super::state_file::{PrivateFolder, read_private};

/// Folder below the state directory.
const FOLDER: &str = "internal-ca";
const CA_CERTIFICATE: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const DAY: Duration = Duration::from_secs(24 * 3600);
const CA_LIFE: Duration = Duration::from_secs(3650 * 24 * 3600);
const LEAF_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
/// Clients whose clock is slow accept the certificate too.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// The local CA, its folder locked for as long as the value lives.
pub struct InternalCa {
    folder: PrivateFolder,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl InternalCa {
    /// Where the CA's certificate lies, for the operator to trust it.
    #[must_use]
    pub fn certificate_path(state_dir: &Path) -> PathBuf {
        state_dir.join(FOLDER).join(CA_CERTIFICATE)
    }

    /// The CA of this state directory; a new one when there is none or it would expire before its leaves.
    pub(crate) fn open_or_create(state_dir: &Path, now: SystemTime) -> Result<Self, Problem> {
        let folder = PrivateFolder::open(&state_dir.join(FOLDER))?;
        let key = folder.read(CA_KEY)?;
        let certificate = folder.read(CA_CERTIFICATE)?;
        // A key without certificate is what a crash between the two leaves: nobody has seen that CA.
        if let (Some(key), Some(certificate)) = (key, certificate) {
            let authority = load(&folder.file(CA_KEY), &key, &folder.file(CA_CERTIFICATE), &certificate)?;
            if authority.not_after > now + LEAF_LIFE + DAY {
                return Ok(Self { folder, issuer: authority.issuer, certificate: authority.certificate });
            }
        }
        Self::create(folder, now)
    }

    fn create(folder: PrivateFolder, now: SystemTime) -> Result<Self, Problem> {
        let path = folder.file(CA_CERTIFICATE);
        let key = new_key(&path)?;
        let mut params = CertificateParams::default();
        // Two CAs of one name confuse clients that trusted the first: each has its own.
        let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        params.distinguished_name = common_name(&format!("Tidegate internal CA {since_1970}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + CA_LIFE).into();
        let certificate = params.self_signed(&key).map_err(|error| not_issued(&path, &error))?;
        folder.write(CA_KEY, &key.serialize_pem())?;
        folder.write(CA_CERTIFICATE, &certificate.pem())?;
        let certificate = certificate.der().clone();
        let issuer = Issuer::new(params, key);
        Ok(Self { folder, issuer, certificate })
    }

    /// The leaf for `names`: the kept one when it still fits, else a new one.
    ///
    /// `site` only names the file.
    pub(crate) fn leaf(&self, site: &str, names: &BTreeSet<String>, now: SystemTime) -> Result<Credentials, Problem> {
        let file = leaf_file(site, names);
        if let Some(kept) = self.kept_leaf(&file, names, now)? {
            return Ok(kept);
        }
        let path = self.folder.file(&file);
        let key = new_key(&path)?;
        let leaf = leaf_params(names, now)
            .and_then(|params| params.signed_by(&key, &self.issuer))
            .map_err(|error| not_issued(&path, &error))?;
        let text = [leaf.pem(), pem_of(&self.certificate), key.serialize_pem()].concat();
        self.folder.write(&file, &text)?;
        read_leaf(&path, &text)?.ok_or_else(|| not_issued(&path, &rcgen::Error::CouldNotParseCertificate))
    }

    /// A kept leaf that is of this CA, has these names and more than a third of its life left.
    ///
    /// A file that is damaged is replaced; one that others could read is a fault.
    fn kept_leaf(&self, file: &str, names: &BTreeSet<String>, now: SystemTime) -> Result<Option<Credentials>, Problem> {
        let Some(text) = self.folder.read(file)? else { return Ok(None) };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes()).filter_map(Result::ok).collect();
        if chain.get(1) != Some(&self.certificate) {
            return Ok(None);
        }
        let Ok(Some(leaf)) = read_leaf(&self.folder.file(file), &text) else { return Ok(None) };
        let same_names = leaf.names.iter().collect::<BTreeSet<_>>() == names.iter().collect();
        Ok((same_names && leaf.not_before <= now && renewal_time(&leaf) > now).then_some(leaf))
    }
}

/// When a leaf of the local CA should be replaced: a third of its life is left.
#[must_use]
pub fn renewal_time(leaf: &Credentials) -> SystemTime {
    let life = leaf.not_after.duration_since(leaf.not_before).unwrap_or_default();
    leaf.not_after - life / 3
}

/// Checks a CA that exists, without making one.
pub(crate) fn check_existing(state_dir: &Path) -> Result<(), Problem> {
    let [key_path, certificate_path] = [CA_KEY, CA_CERTIFICATE].map(|file| state_dir.join(FOLDER).join(file));
    if let (Some(key), Some(certificate)) = (read_private(&key_path)?, read_private(&certificate_path)?) {
        load(&key_path, &key, &certificate_path, &certificate)?;
    }
    Ok(())
}

/// The names a leaf for these hosts must have. `*` stands for this machine and for every other host of the file.
#[must_use]
pub fn names_for(hosts: &[HostPattern], other_hosts: &[HostPattern]) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = hosts.iter().filter_map(name_for).collect();
    if hosts.contains(&HostPattern::Any) {
        names.extend(other_hosts.iter().filter_map(name_for));
        names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    }
    names
}

fn name_for(host: &HostPattern) -> Option<String> {
    match host {
        HostPattern::Exact(name) => {
            let bare = name.trim_start_matches('[').trim_end_matches(']');
            Some(bare.parse::<IpAddr>().map_or_else(|_| bare.to_owned(), |address| address.to_string()))
        }
        HostPattern::Wildcard(parent) => Some(format!("*.{parent}")),
        HostPattern::Any => None,
    }
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    not_after: SystemTime,
}

fn load(key_path: &Path, key: &str, certificate_path: &Path, certificate: &str) -> Result<Authority, Problem> {
    let broken = |path: &Path, error: String| {
        Problem::error(path, format!("local CA cannot be read: {error}"), "delete the folder to get a new local CA")
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
    let chain = chain.map_err(|error| broken(certificate_path, error.to_string()))?;
    let der =
        chain.first().cloned().ok_or_else(|| broken(certificate_path, "no certificate in the file".to_owned()))?;
    let private = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| broken(key_path, error.to_string()))?;
    let signing = any_supported_type(&private).map_err(|error| broken(key_path, error.to_string()))?;
    let checked = assemble(vec![der.clone()], signing, certificate_path, key_path)?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|error| broken(certificate_path, error.to_string()))?;
    if !parsed.is_ca() {
        return Err(broken(certificate_path, "it is not a CA certificate".to_owned()));
    }
    let pair = KeyPair::from_pem(key).map_err(|error| broken(key_path, error.to_string()))?;
    let issuer = Issuer::from_ca_cert_der(&der, pair).map_err(|error| broken(certificate_path, error.to_string()))?;
    Ok(Authority { issuer, certificate: der, not_after: checked.not_after })
}

/// The leaf and key of a file of ours; the CA's certificate in it is not presented, clients have it or do not trust us.
fn read_leaf(path: &Path, text: &str) -> Result<Option<Credentials>, Problem> {
    let leaf = CertificateDer::pem_slice_iter(text.as_bytes()).next().and_then(Result::ok);
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).ok().and_then(|key| any_supported_type(&key).ok());
    let (Some(leaf), Some(key)) = (leaf, key) else { return Ok(None) };
    assemble(vec![leaf], Arc::clone(&key), path, path).map(Some)
}

fn leaf_params(names: &BTreeSet<String>, now: SystemTime) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names.iter().map(|name| alternative_name(name)).collect::<Result<_, _>>()?;
    // The common name has at most 64 characters (RFC 5280 upper bounds); clients look at the alternative names only.
    params.distinguished_name =
        common_name(names.iter().find(|name| name.len() <= 64).map_or("tidegate", String::as_str));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + LEAF_LIFE).into();
    Ok(params)
}

fn alternative_name(name: &str) -> Result<SanType, rcgen::Error> {
    match name.parse::<IpAddr>() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => Ok(SanType::DnsName(name.try_into()?)),
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn new_key(path: &Path) -> Result<KeyPair, Problem> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| not_issued(path, &error))
}

fn not_issued(path: &Path, error: &rcgen::Error) -> Problem {
    Problem::error(
        path,
        format!("certificate cannot be issued: {error}"),
        "use host names of ASCII letters, digits and hyphens",
    )
}

/// A file name for a site: readable, and different for different sites and sets of names.
fn leaf_file(site: &str, names: &BTreeSet<String>) -> String {
    let readable: String = site
        .chars()
        .take(64)
        .map(|character| if character.is_ascii_alphanumeric() || "-.".contains(character) { character } else { '_' })
        .collect();
    let mut hash = Fnv::default();
    hash.add(site);
    names.iter().for_each(|name| hash.add(name));
    format!("leaf-{readable}-{:016x}.pem", hash.0)
}

/// FNV-1a: the same in every build, unlike the standard library's hasher.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, text: &str) {
        for byte in text.bytes().chain([0]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

/// PEM of a certificate (RFC 7468): rcgen gives it only for those it made itself.
fn pem_of(certificate: &CertificateDer<'_>) -> String {
    let base64 = BASE64.encode(certificate);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in base64.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn leaf_of(state: &Path, names: &BTreeSet<String>, now: SystemTime) -> Credentials {
        InternalCa::open_or_create(state, now).ok().unwrap().leaf("a", names, now).ok().unwrap()
    }

    #[test]
    fn a_leaf_is_kept_until_a_third_of_its_life_is_left() {
        let state = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let names = set(&["*.example.com", "127.0.0.1", "::1", "example.com"]);
        let first = leaf_of(state.path(), &names, now);
        assert_eq!(first.names.iter().cloned().collect::<BTreeSet<_>>(), names);
        assert_eq!(first.key.cert.len(), 1);
        let rows = [(Duration::ZERO, true), (59 * DAY, true), (61 * DAY, false)];
        for (later, kept) in rows {
            let again = leaf_of(state.path(), &names, now + later);
            assert_eq!(again.key.cert == first.key.cert, kept, "after {later:?}");
        }
        let other = leaf_of(state.path(), &set(&["example.org"]), now);
        assert_eq!(other.names, ["example.org"]);
    }

    #[test]
    fn the_ca_stays_until_it_would_expire_before_a_leaf() {
        let state = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let certificate = |now| InternalCa::open_or_create(state.path(), now).ok().unwrap().certificate;
        let first = certificate(now);
        assert_eq!(certificate(now + 3000 * DAY), first);
        assert_ne!(certificate(now + 3600 * DAY), first);
    }

    #[test]
    fn a_leaf_of_another_ca_is_replaced() {
        let state = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let names = set(&["example.com"]);
        let first = leaf_of(state.path(), &names, now);
        std::fs::remove_file(InternalCa::certificate_path(state.path())).unwrap();
        let second = leaf_of(state.path(), &names, now);
        assert_ne!(first.key.cert, second.key.cert);
        assert_eq!(leaf_of(state.path(), &names, now).key.cert, second.key.cert);
    }

    #[test]
    fn a_broken_ca_is_a_fault_and_a_broken_leaf_is_replaced() {
        let state = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let names = set(&["example.com"]);
        let authority = InternalCa::open_or_create(state.path(), now).ok().unwrap();
        authority.leaf("a", &names, now).ok().unwrap();
        authority.folder.write(&leaf_file("a", &names), "torn").ok().unwrap();
        assert!(authority.leaf("a", &names, now).is_ok());
        authority.folder.write(CA_CERTIFICATE, "torn").ok().unwrap();
        drop(authority);
        let told = InternalCa::open_or_create(state.path(), now).err().unwrap().of_site("a").to_string();
        assert!(told.contains("local CA cannot be read") && told.contains("ca.crt"), "{told}");
        assert!(check_existing(state.path()).is_err());
    }

    #[test]
    fn a_host_that_cannot_stand_in_a_certificate_is_a_fault() {
        let state = tempfile::tempdir().unwrap();
        let authority = InternalCa::open_or_create(state.path(), SystemTime::now()).ok().unwrap();
        let told = authority.leaf("a", &set(&["bücher.example"]), SystemTime::now()).err().unwrap();
        assert!(told.of_site("a").to_string().contains("cannot be issued"));
    }

    #[test]
    fn any_host_means_this_machine_and_the_other_hosts() {
        let exact = |name: &str| HostPattern::Exact(name.to_owned());
        let others = [exact("b.example"), HostPattern::Wildcard("c.example".to_owned())];
        assert_eq!(
            names_for(&[HostPattern::Any], &others),
            set(&["*.c.example", "127.0.0.1", "::1", "b.example", "localhost"])
        );
        assert_eq!(names_for(&[exact("[::1]")], &others), set(&["::1"]));
    }

    #[test]
    fn pem_is_what_rcgen_reads() {
        for size in 0..100_u8 {
            let der = CertificateDer::from((0..size).collect::<Vec<_>>());
            assert_eq!(CertificateDer::from_pem_slice(pem_of(&der).as_bytes()).unwrap(), der, "{size} bytes");
        }
    }
}
