//! TLS policies: versions, algorithms, client certificates.

use std::collections::BTreeMap;

use super::{check_name, file_path, keep};
use crate::fault::Code;
use crate::model::{
    Alpn, CipherSuite, ClientCertificates, DEFAULT_TLS_POLICY, KeyExchange, Listener, Site, TlsPolicy, TlsVersion,
    Transport,
};
use crate::raw;
use crate::report::Report;
use crate::tree::Spot;
use crate::units::Reason;

/// Compiles the policies; `default` is added where the file has none of that name.
pub(crate) fn tls_policies(
    raw: raw::Named<raw::TlsPolicy>,
    spot: Spot<'_>,
    report: &mut Report,
) -> BTreeMap<String, TlsPolicy> {
    let mut policies = BTreeMap::from([(DEFAULT_TLS_POLICY.to_owned(), TlsPolicy::default())]);
    for (name, raw) in raw.0 {
        let spot = spot.key(&name);
        check_name(&name, "a TLS policy", spot, report);
        if let Some(policy) = tls_policy(raw, spot, report) {
            policies.insert(name, policy);
        }
    }
    policies
}

fn tls_policy(raw: raw::TlsPolicy, spot: Spot<'_>, report: &mut Report) -> Option<TlsPolicy> {
    let raw::TlsPolicy { min_version, cipher_suites, key_exchange, alpn, client_certificates, tickets, session_cache } =
        raw;
    let defaults = TlsPolicy::default();
    let min_version = match min_version {
        Some(raw::Text(text)) => keep(parse_version(&text), &text, spot.key("min_version"), report)?,
        None => defaults.min_version,
    };
    let cipher_suites = match cipher_suites {
        Some(suites) => {
            let suites: Vec<_> = suites.into_iter().map(CipherSuite::from).collect();
            check_suites(&suites, min_version, spot.key("cipher_suites"), report);
            suites
        }
        None => defaults.cipher_suites,
    };
    let key_exchange = key_exchange
        .map_or(defaults.key_exchange, |groups| groups.into_iter().map(KeyExchange::from).collect::<Vec<_>>());
    check_groups(&key_exchange, min_version, spot.key("key_exchange"), report);
    let client_certificates = match client_certificates {
        Some(raw) => Some(certificates_of_clients(raw, spot.key("client_certificates"), report)?),
        None => None,
    };
    Some(TlsPolicy {
        min_version,
        cipher_suites,
        key_exchange,
        alpn: alpn.map_or(defaults.alpn, |alpn| alpn.into_iter().map(Alpn::from).collect()),
        client_certificates,
        tickets: tickets.unwrap_or(defaults.tickets),
        session_cache: session_cache.unwrap_or(defaults.session_cache),
    })
}

fn parse_version(text: &str) -> Result<TlsVersion, Reason> {
    match text {
        "1.2" => Ok(TlsVersion::V1_2),
        "1.3" => Ok(TlsVersion::V1_3),
        "1.0" | "1.1" | "TLSv1" | "TLSv1.0" | "TLSv1.1" | "SSLv3" => {
            Err(Reason::new("is a version that is not safe and not spoken here", "write 1.2 or 1.3"))
        }
        _ => Err(Reason::new("is not a version of TLS", "write 1.2 or 1.3")),
    }
}

/// A version without a suite would be refused in every handshake.
fn check_suites(suites: &[CipherSuite], min_version: TlsVersion, spot: Spot<'_>, report: &mut Report) {
    let has = |version| suites.iter().any(|suite| suite.version() == version);
    match min_version {
        TlsVersion::V1_3 if !has(TlsVersion::V1_3) => {
            let problem = "no suite of this list is for TLS 1.3, and min_version allows nothing else";
            let hint = "add TLS_AES_128_GCM_SHA256, or set min_version to 1.2";
            report.fault(spot.span(), Code::Conflict, problem).hint(hint);
        }
        TlsVersion::V1_3 if has(TlsVersion::V1_2) => {
            let problem = "suites of TLS 1.2 are never used: min_version is 1.3";
            report.warning(spot.span(), Code::Unused, problem).hint("remove those with ECDHE in their name");
        }
        TlsVersion::V1_2 if !has(TlsVersion::V1_2) => {
            let problem = "no suite of this list is for TLS 1.2: only TLS 1.3 is spoken";
            report.warning(spot.span(), Code::Suspicious, problem).hint("set min_version to 1.3, or add suites of 1.2");
        }
        TlsVersion::V1_2 | TlsVersion::V1_3 => {}
    }
}

/// TLS 1.2 cannot use a group of TLS 1.3.
fn check_groups(groups: &[KeyExchange], min_version: TlsVersion, spot: Spot<'_>, report: &mut Report) {
    if min_version == TlsVersion::V1_2 && groups.iter().all(|group| *group == KeyExchange::X25519MlKem768) {
        let problem = "X25519MLKEM768 is for TLS 1.3 only: TLS 1.2 would have no key exchange";
        report.fault(spot.span(), Code::Conflict, problem).hint("add X25519, or set min_version to 1.3");
    }
}

fn certificates_of_clients(
    raw: raw::ClientCertificates,
    spot: Spot<'_>,
    report: &Report,
) -> Option<ClientCertificates> {
    let raw::ClientCertificates { ca, mode, forward } = raw;
    Some(ClientCertificates {
        ca: file_path(&ca?, spot.key("ca"), report),
        required: !matches!(mode, Some(raw::ClientCertificateMode::Optional)),
        forward: forward.unwrap_or(false),
    })
}

/// A site that wants client certificates must not be reachable without TLS, where nobody is asked, and should ask on each
/// of its listeners.
pub(crate) fn check_client_certificates(
    sites: &[Site],
    listeners: &[Listener],
    policies: &BTreeMap<String, TlsPolicy>,
    place: impl Fn(&str) -> Option<crate::source::Span>,
    report: &mut Report,
) {
    let asked = |policy: &String| policies.get(policy).and_then(|policy| policy.client_certificates.as_ref());
    for site in sites {
        let on = || listeners.iter().filter(|listener| site.listeners.contains(&listener.name));
        let asked_on = |listener: &Listener| match listener.transport {
            Transport::Tls => asked(site.tls_policy.as_ref().unwrap_or(&listener.tls_policy)),
            Transport::Plain { .. } => None,
        };
        let asking = on().find(|listener| asked_on(listener).is_some());
        let silent = |listener: &&Listener| asked_on(listener).is_none();
        // One without TLS is the worse one.
        let silent = on().filter(silent).min_by_key(|listener| listener.transport == Transport::Tls);
        let (Some(asking), Some(silent), Some(span)) = (asking, silent, place(&site.name)) else { continue };
        let required = on().filter_map(asked_on).any(|asked| asked.required);
        if silent.transport != Transport::Tls && required {
            let problem = format!(
                "this site asks for client certificates, and on the listener \"{}\", which has no TLS, it cannot",
                silent.name
            );
            let hint = "name the listeners of the site: listeners: [...], without that one";
            report.fault(span, Code::Conflict, problem).hint(hint);
            continue;
        }
        let problem = format!(
            "clients of this site are asked for certificates on the listener \"{}\", and on \"{}\" they are not",
            asking.name, silent.name
        );
        let hint = if silent.transport == Transport::Tls {
            "write tls_policy in the site to have one policy on all its listeners"
        } else {
            "name the listeners of the site: listeners: [...], without the one that has no TLS"
        };
        report.warning(span, Code::Suspicious, problem).hint(hint);
    }
}

impl From<raw::CipherSuite> for CipherSuite {
    fn from(raw: raw::CipherSuite) -> Self {
        match raw {
            raw::CipherSuite::TlsAes256GcmSha384 => Self::Aes256Gcm,
            raw::CipherSuite::TlsAes128GcmSha256 => Self::Aes128Gcm,
            raw::CipherSuite::TlsChacha20Poly1305Sha256 => Self::Chacha20Poly1305,
            raw::CipherSuite::TlsEcdheEcdsaWithAes256GcmSha384 => Self::EcdheEcdsaAes256Gcm,
            raw::CipherSuite::TlsEcdheEcdsaWithAes128GcmSha256 => Self::EcdheEcdsaAes128Gcm,
            raw::CipherSuite::TlsEcdheEcdsaWithChacha20Poly1305Sha256 => Self::EcdheEcdsaChacha20Poly1305,
            raw::CipherSuite::TlsEcdheRsaWithAes256GcmSha384 => Self::EcdheRsaAes256Gcm,
            raw::CipherSuite::TlsEcdheRsaWithAes128GcmSha256 => Self::EcdheRsaAes128Gcm,
            raw::CipherSuite::TlsEcdheRsaWithChacha20Poly1305Sha256 => Self::EcdheRsaChacha20Poly1305,
        }
    }
}

impl From<raw::KeyExchange> for KeyExchange {
    fn from(raw: raw::KeyExchange) -> Self {
        match raw {
            raw::KeyExchange::X25519 => Self::X25519,
            raw::KeyExchange::Secp256r1 => Self::Secp256r1,
            raw::KeyExchange::Secp384r1 => Self::Secp384r1,
            raw::KeyExchange::X25519MLKEM768 => Self::X25519MlKem768,
        }
    }
}

impl From<raw::Alpn> for Alpn {
    fn from(raw: raw::Alpn) -> Self {
        match raw {
            raw::Alpn::H2 => Self::H2,
            raw::Alpn::Http1 => Self::Http1,
        }
    }
}
