//! Chooses the certificate of a handshake by server name, the way requests choose their site by host.
//!
//! The resolver outlives configurations: it reads the current view of its listener with every handshake.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tidegate_config::model::HostPattern;

/// The TLS record of a fatal `unrecognized_name` alert (RFC 6066 section 3, RFC 8446 section 6.2).
///
/// rustls answers `access_denied` when a resolver has no certificate; an edge that has read the client hello asks
/// [`SniResolver::admits`] first and, when refused, writes this before it closes.
pub const UNRECOGNIZED_NAME_ALERT: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70];

/// What one listener presents: immutable, built from the sites that answer on it.
#[derive(Debug, Default)]
pub struct ListenerCertificates {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By the name after `*.`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    /// For a name that matches nothing.
    unknown_name: Option<Arc<CertifiedKey>>,
    /// For a client that sends no name.
    no_name: Option<Arc<CertifiedKey>>,
}

impl ListenerCertificates {
    /// Hosts with their certificates, in the order of the file: the first site of two equal hosts wins, as with requests.
    pub(crate) fn new<'a>(
        hosts: impl IntoIterator<Item = (&'a HostPattern, &'a Arc<CertifiedKey>)>,
        default: Option<&Arc<CertifiedKey>>,
    ) -> Self {
        let mut view = Self::default();
        let mut any = None;
        let mut only = Only::None;
        for (host, certificate) in hosts {
            only = only.and(certificate);
            match host {
                HostPattern::Exact(name) => {
                    view.exact.entry(name.clone()).or_insert_with(|| Arc::clone(certificate));
                }
                HostPattern::Wildcard(parent) => {
                    view.wildcard.entry(parent.clone()).or_insert_with(|| Arc::clone(certificate));
                }
                HostPattern::Any => any = any.or(Some(certificate)),
            }
        }
        view.unknown_name = any.or(default).cloned();
        view.no_name = default.or(any).cloned().or_else(|| only.into_certificate());
        view
    }

    /// The certificate for a server name; for `None` that of the default site, or the only one there is.
    ///
    /// An exact host wins over the longest wildcard, that over `*`, that over the default site. `None` when nobody
    /// serves that name.
    #[must_use]
    pub fn resolve(&self, server_name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let Some(server_name) = server_name else { return self.no_name.as_ref() };
        let name = canonical(server_name);
        self.exact.get(&*name).or_else(|| self.longest_wildcard(&name)).or(self.unknown_name.as_ref())
    }

    fn longest_wildcard(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        if self.wildcard.is_empty() {
            return None;
        }
        let parents = name.match_indices('.').map(|(dot, _)| &name[dot + 1..]);
        parents.filter(|parent| parent.len() + 1 < name.len()).find_map(|parent| self.wildcard.get(parent))
    }
}

/// Lower case and without a trailing dot, as hosts are in the model; only odd clients cost an allocation.
fn canonical(name: &str) -> Cow<'_, str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Owned(name.to_ascii_lowercase());
    }
    Cow::Borrowed(name)
}

/// Whether all hosts share one certificate.
enum Only<'a> {
    None,
    One(&'a Arc<CertifiedKey>),
    Several,
}

impl<'a> Only<'a> {
    fn and(self, certificate: &'a Arc<CertifiedKey>) -> Self {
        match self {
            Self::None => Self::One(certificate),
            Self::One(first) if Arc::ptr_eq(first, certificate) => Self::One(first),
            Self::One(_) | Self::Several => Self::Several,
        }
    }

    fn into_certificate(self) -> Option<Arc<CertifiedKey>> {
        match self {
            Self::One(certificate) => Some(Arc::clone(certificate)),
            Self::None | Self::Several => None,
        }
    }
}

/// The certificate resolver of one listener, kept over reloads.
#[derive(Debug)]
pub struct SniResolver {
    certificates: ArcSwap<ListenerCertificates>,
}

impl SniResolver {
    /// Starts with this view.
    #[must_use]
    pub fn new(certificates: Arc<ListenerCertificates>) -> Self {
        Self { certificates: ArcSwap::new(certificates) }
    }

    /// Handshakes from now on see this view.
    pub fn replace(&self, certificates: Arc<ListenerCertificates>) {
        self.certificates.store(certificates);
    }

    /// Whether a handshake with this server name would find a certificate.
    #[must_use]
    pub fn admits(&self, server_name: Option<&str>) -> bool {
        self.certificates.load().resolve(server_name).is_some()
    }
}

impl ResolvesServerCert for SniResolver {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certificates.load().resolve(client_hello.server_name()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use rustls::crypto::aws_lc_rs::sign::any_supported_type;
    use rustls::pki_types::PrivateKeyDer;

    fn certificate(name: &str) -> Arc<CertifiedKey> {
        let key = KeyPair::generate().unwrap();
        let der = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap().der().clone();
        let key = any_supported_type(&PrivateKeyDer::Pkcs8(key.serialize_der().into())).unwrap();
        Arc::new(CertifiedKey::new(vec![der], key))
    }

    fn exact(name: &str) -> HostPattern {
        HostPattern::Exact(name.to_owned())
    }

    fn wildcard(parent: &str) -> HostPattern {
        HostPattern::Wildcard(parent.to_owned())
    }

    #[test]
    fn names_choose_as_hosts_do() {
        let [a, b, c, d] = ["a", "b", "c", "d"].map(certificate);
        let hosts = [
            (exact("a.example.com"), &a),
            (wildcard("example.com"), &b),
            (wildcard("deep.example.com"), &c),
            (exact("a.example.com"), &d),
        ];
        let view = ListenerCertificates::new(hosts.iter().map(|(host, certificate)| (host, *certificate)), None);
        let rows = [
            (Some("a.example.com"), Some(&a)),
            (Some("A.Example.COM."), Some(&a)),
            (Some("x.example.com"), Some(&b)),
            (Some("x.y.example.com"), Some(&b)),
            (Some("x.deep.example.com"), Some(&c)),
            (Some("example.com"), None),
            (Some(".example.com"), None),
            (Some("other"), None),
            (Some(""), None),
            (None, None),
        ];
        for (name, wanted) in rows {
            let got = view.resolve(name);
            assert_eq!(got.map(Arc::as_ptr), wanted.map(Arc::as_ptr), "{name:?}");
        }
    }

    #[test]
    fn unknown_and_missing_names_get_the_default_the_any_site_or_the_only_one() {
        let [a, b] = ["a", "b"].map(certificate);
        let (one, any) = (exact("a"), HostPattern::Any);
        let resolve = |hosts: &[(&HostPattern, &Arc<CertifiedKey>)], default: Option<&Arc<CertifiedKey>>, name| {
            ListenerCertificates::new(hosts.iter().copied(), default).resolve(name).map(Arc::as_ptr)
        };
        let (pa, pb) = (Some(Arc::as_ptr(&a)), Some(Arc::as_ptr(&b)));
        assert_eq!(resolve(&[(&one, &a)], None, Some("x")), None);
        assert_eq!(resolve(&[(&one, &a)], None, None), pa);
        assert_eq!(resolve(&[(&one, &a)], Some(&b), Some("x")), pb);
        assert_eq!(resolve(&[(&one, &a)], Some(&b), None), pb);
        assert_eq!(resolve(&[(&one, &a), (&any, &b)], None, Some("x")), pb);
        assert_eq!(resolve(&[(&one, &a), (&any, &b)], None, None), pb);
        assert_eq!(resolve(&[(&any, &b)], Some(&a), Some("x")), pb);
    }
}
