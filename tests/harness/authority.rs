//! Certificate authorities made for one test, and what they issue.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A CA that nobody trusts unless told to.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate with its key.
pub struct Identity {
    /// In DER.
    pub certificate: CertificateDer<'static>,
    pem: String,
    key: KeyPair,
}

impl Authority {
    /// A CA with a name.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("the system has randomness");
        let pem = params.self_signed(&key).expect("the parameters are complete").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Its certificate in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Writes its certificate.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) {
        fs::write(path, &self.pem).expect("the directory is ours");
    }

    /// A certificate for these names and addresses.
    ///
    /// # Panics
    /// When a name is none.
    pub fn issue(&self, names: &[&str]) -> Identity {
        self.sign(params(names))
    }

    /// The same, ended in 2021.
    ///
    /// # Panics
    /// When a name is none.
    pub fn issue_expired(&self, names: &[&str]) -> Identity {
        let mut params = params(names);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.sign(params)
    }

    /// The same, for so long from now.
    ///
    /// # Panics
    /// When a name is none.
    pub fn issue_for(&self, names: &[&str], life: Duration) -> Identity {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is past 1970");
        let mut params = params(names);
        params.not_after = date_time_ymd(1970, 1, 1) + now + life;
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Identity {
        let key = KeyPair::generate().expect("the system has randomness");
        let certificate = params.signed_by(&key, &self.issuer).expect("the parameters are complete");
        Identity { certificate: certificate.der().clone(), pem: certificate.pem(), key }
    }
}

impl Identity {
    /// A certificate that vouches for itself.
    ///
    /// # Panics
    /// When a name is none.
    pub fn self_signed(names: &[&str]) -> Self {
        let key = KeyPair::generate().expect("the system has randomness");
        let certificate = params(names).self_signed(&key).expect("the parameters are complete");
        Self { certificate: certificate.der().clone(), pem: certificate.pem(), key }
    }

    /// Its key.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.serialize_der().into())
    }

    /// Writes `NAME.pem` and `NAME.key`.
    ///
    /// # Panics
    /// When a file cannot be written.
    pub fn write(&self, dir: &Path, name: &str) {
        let key = dir.join(format!("{name}.key"));
        fs::write(dir.join(format!("{name}.pem")), &self.pem).expect("the directory is ours");
        fs::write(&key, self.key.serialize_pem()).expect("the directory is ours");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&key, private).expect("the file is ours");
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).expect("the test gives names")
}
