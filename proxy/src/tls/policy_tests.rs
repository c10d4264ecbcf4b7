//! Tests of the policies: real handshakes in memory.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, NamedGroup, ProtocolVersion, RootCertStore, ServerConnection,
};
use tidegate_config::model::{DEFAULT_TLS_POLICY, SiteTls};

use super::*;
use crate::tls::fixture::{model as model_of, site};
use crate::tls::internal::InternalCa;
use crate::tls::sni::UNRECOGNIZED_NAME_ALERT;

const TLS12: &[&SupportedProtocolVersion] = &[&version::TLS12];
const TLS13: &[&SupportedProtocolVersion] = &[&version::TLS13];

/// A folder with the local CA, and the model and policies of sites that it issued for.
struct Bed {
    state: tempfile::TempDir,
    model: Model,
    policies: TlsPolicies,
}

impl Bed {
    fn new(names: &[&str], default: Option<&str>) -> Self {
        Self::with(names, default, |_, _| {})
    }

    /// `change` gets the model and the folder before anything is built.
    fn with(names: &[&str], default: Option<&str>, change: impl FnOnce(&mut Model, &Path)) -> Self {
        let state = tempfile::tempdir().unwrap();
        let sites = names.iter().map(|name| site(name, &[name], SiteTls::Internal)).collect();
        let mut model = model_of(sites, default);
        change(&mut model, state.path());
        let policies = build(None, &model, state.path()).unwrap();
        Self { state, model, policies }
    }

    /// What follows a reload of a changed model.
    fn reload(&mut self, change: impl FnOnce(&mut Model)) {
        change(&mut self.model);
        self.policies = build(Some(&self.policies), &self.model, self.state.path()).unwrap();
        self.policies.activate();
    }

    fn tls(&self) -> &Arc<ListenerTls> {
        self.policies.listener("tls").unwrap()
    }

    fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        client(self.state.path(), versions, None)
    }

    /// A client that shows the certificate of a CA made by [`client_ca`].
    fn known(&self, versions: &[&'static SupportedProtocolVersion], ca: &ClientCa) -> Arc<ClientConfig> {
        client(self.state.path(), versions, Some(ca))
    }
}

fn build(previous: Option<&TlsPolicies>, model: &Model, state: &Path) -> Result<TlsPolicies, Vec<TlsFault>> {
    let store = CertificateStore::build(model, state, SystemTime::now()).unwrap().store;
    TlsPolicies::build(previous, model, &store)
}

/// A CA for clients, with one certificate.
struct ClientCa {
    file: PathBuf,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

fn client_ca(folder: &Path, name: &str) -> ClientCa {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["client".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let file = folder.join(format!("{name}.pem"));
    std::fs::write(&file, ca.pem()).unwrap();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    ClientCa { file, certificate: leaf.der().clone(), key }
}

fn asking(ca: &ClientCa, required: bool) -> model::TlsPolicy {
    let asked = ClientCertificates { ca: ca.file.clone(), required, forward: true };
    model::TlsPolicy { client_certificates: Some(asked), ..model::TlsPolicy::default() }
}

fn client(
    state: &Path,
    versions: &[&'static SupportedProtocolVersion],
    identity: Option<&ClientCa>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(InternalCa::certificate_path(state)).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(ca) => builder.with_client_auth_cert(vec![ca.certificate.clone()], ca.key.clone_key()).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

/// A whole handshake and one byte back, which carries the tickets to the client.
fn handshake(
    tls: &ListenerTls,
    client: &Arc<ClientConfig>,
    name: &str,
) -> Result<(ServerConnection, ClientConnection), rustls::Error> {
    let presented = tls.choose(Some(name)).ok_or(rustls::Error::General("nobody serves the name".to_owned()))?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(&presented.config)).unwrap();
    for _ in 0..8 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        server.read_tls(&mut bytes.as_slice()).unwrap();
        server.process_new_packets()?;
        if !server.is_handshaking() {
            server.writer().write_all(b"x").unwrap();
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        client.read_tls(&mut bytes.as_slice()).unwrap();
        client.process_new_packets()?;
        let mut byte = [0];
        if client.reader().read(&mut byte).is_ok_and(|read| read == 1) {
            break;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((server, client))
}

/// How the server saw a handshake: `full`, `resumed` or `refused`.
fn kind(tls: &ListenerTls, client: &Arc<ClientConfig>, name: &str) -> &'static str {
    match handshake(tls, client, name) {
        Ok((server, _)) if server.handshake_kind() == Some(HandshakeKind::Resumed) => "resumed",
        Ok(_) => "full",
        Err(_) => "refused",
    }
}

#[test]
fn both_versions_shake_hands_with_h2_and_resume_by_ticket_and_by_session() {
    for tickets in [true, false] {
        let bed = Bed::with(&["a.example"], None, |model, _| {
            model.tls_policies.get_mut(DEFAULT_TLS_POLICY).unwrap().tickets = tickets;
        });
        for versions in [TLS13, TLS12] {
            let client = bed.client(versions);
            let (server, _) = handshake(bed.tls(), &client, "a.example").unwrap();
            assert_eq!(server.alpn_protocol(), Some(&b"h2"[..]));
            assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
            let resumed = (0..200).filter(|_| kind(bed.tls(), &client, "a.example") == "resumed").count();
            assert!(resumed >= 198, "{resumed} of 200 with {versions:?}, tickets: {tickets}");
        }
    }
}

#[test]
fn nothing_is_resumed_where_nothing_is_kept() {
    let bed = Bed::with(&["a.example"], None, |model, _| {
        let policy = model.tls_policies.get_mut(DEFAULT_TLS_POLICY).unwrap();
        (policy.tickets, policy.session_cache) = (false, 0);
    });
    for versions in [TLS13, TLS12] {
        let client = bed.client(versions);
        assert_eq!([0; 2].map(|_| kind(bed.tls(), &client, "a.example")), ["full"; 2], "{versions:?}");
    }
}

#[test]
fn sessions_survive_a_reload_and_names_change_only_when_activated() {
    let mut bed = Bed::new(&["a.example"], None);
    let clients = [TLS13, TLS12].map(|versions| bed.client(versions));
    let all = |bed: &Bed, name| clients.each_ref().map(|client| kind(bed.tls(), client, name));
    assert_eq!(all(&bed, "a.example"), ["full"; 2]);

    bed.model.sites.push(site("b.example", &["b.example"], SiteTls::Internal));
    let next = build(Some(&bed.policies), &bed.model, bed.state.path()).unwrap();
    assert!(Arc::ptr_eq(next.listener("tls").unwrap(), bed.tls()));
    assert!(bed.tls().choose(Some("b.example")).is_none());
    bed.reload(|_| {});
    assert!(bed.tls().choose(Some("b.example")).is_some());
    assert_eq!(all(&bed, "a.example"), ["resumed"; 2], "after a reload that keeps the policy");
    assert_eq!(all(&bed, "b.example"), ["full"; 2], "a session of one name is not used for another");

    let store = CertificateStore::build(&bed.model, bed.state.path(), SystemTime::now()).unwrap().store;
    bed.policies = bed.policies.renewed(&bed.model, &store).unwrap();
    bed.policies.activate();
    assert_eq!(all(&bed, "a.example"), ["resumed"; 2], "after a renewal");

    bed.reload(|model| model.tls_policies.get_mut(DEFAULT_TLS_POLICY).unwrap().session_cache = 9);
    assert_eq!(all(&bed, "a.example"), ["full"; 2], "another policy has other keys");
}

#[test]
fn a_session_is_resumed_under_its_own_policy_only() {
    // Two names of one certificate file would do; here the client is made to believe in one name, whose site changes
    // its policy between the handshakes.
    for versions in [TLS13, TLS12] {
        let mut bed = Bed::with(&["a.example"], None, |model, folder| {
            let ca = client_ca(folder, "staff");
            model.tls_policies.insert("staff".to_owned(), asking(&ca, false));
            model.tls_policies.insert("same".to_owned(), model::TlsPolicy::default());
        });
        let client = bed.client(versions);
        assert_eq!(kind(bed.tls(), &client, "a.example"), "full");
        for (policy, seen) in [("staff", "full"), ("same", "full"), ("default", "full"), ("default", "resumed")] {
            bed.reload(|model| model.sites[0].tls_policy = Some(policy.to_owned()));
            assert_eq!(kind(bed.tls(), &client, "a.example"), seen, "{policy}, {versions:?}");
        }
    }
}

#[test]
fn clients_are_asked_by_the_policy_of_the_site_and_a_resumed_session_keeps_who_they_are() {
    for versions in [TLS13, TLS12] {
        let (mut staff, mut strangers) = (None, None);
        let bed = Bed::with(&["open.example", "staff.example", "guests.example"], None, |model, folder| {
            let ca = client_ca(folder, "staff");
            model.tls_policies.insert("staff".to_owned(), asking(&ca, true));
            model.tls_policies.insert("guests".to_owned(), asking(&ca, false));
            model.sites[1].tls_policy = Some("staff".to_owned());
            model.sites[2].tls_policy = Some("guests".to_owned());
            staff = Some(ca);
            strangers = Some(client_ca(folder, "strangers"));
        });
        let staff = staff.unwrap();
        let nobody = bed.client(versions);
        let known = bed.known(versions, &staff);
        let stranger = bed.known(versions, &strangers.unwrap());
        let of = |client, name| kind(bed.tls(), client, name);
        let rows = [
            ("open.example", ["full", "full", "full"]),
            ("staff.example", ["refused", "full", "refused"]),
            ("guests.example", ["full", "full", "refused"]),
        ];
        for (name, expected) in rows {
            assert_eq!([&nobody, &known, &stranger].map(|client| of(client, name)), expected, "{name} {versions:?}");
        }
        let (server, _) = handshake(bed.tls(), &known, "staff.example").unwrap();
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Resumed));
        assert_eq!(server.peer_certificates().map(|chain| &chain[0]), Some(&staff.certificate));
        let names = ["open.example", "staff.example", "guests.example"];
        let policies = names.map(|name| bed.tls().choose(Some(name)).unwrap().policy().name.to_string());
        assert_eq!(policies, ["default", "staff", "guests"]);
    }
}

#[test]
fn a_ca_file_that_changes_makes_another_policy_and_a_bad_one_is_refused() {
    let mut file = PathBuf::new();
    let mut bed = Bed::with(&["a.example"], None, |model, folder| {
        let ca = client_ca(folder, "staff");
        model.tls_policies.insert("default".to_owned(), asking(&ca, true));
        file = ca.file;
    });
    let id = |bed: &Bed| bed.tls().choose(Some("a.example")).unwrap().policy().id;
    let first = id(&bed);
    bed.reload(|_| {});
    assert_eq!(id(&bed), first);
    std::fs::copy(client_ca(bed.state.path(), "others").file, &file).unwrap();
    bed.reload(|_| {});
    assert_ne!(id(&bed), first);

    for (content, problem) in [
        (None, "cannot be read"),
        (Some(""), "no certificate"),
        (Some("no PEM at all"), "no certificate"),
        (Some("-----BEGIN CERTIFICATE-----\nbm90\n-----END CERTIFICATE-----\n"), "cannot be trusted"),
        (Some("-----BEGIN CERTIFICATE-----\n***\n-----END CERTIFICATE-----\n"), "PEM"),
    ] {
        match content {
            None => std::fs::remove_file(&file).unwrap(),
            Some(content) => std::fs::write(&file, content).unwrap(),
        }
        let faults = build(Some(&bed.policies), &bed.model, bed.state.path()).unwrap_err();
        let told = faults[0].to_string();
        assert!(told.starts_with("TLS policy \"default\"") && told.contains(problem), "{content:?}: {told}");
        assert_eq!(TlsPolicies::check(&bed.model), faults);
    }
}

#[test]
fn versions_suites_and_groups_are_those_of_the_policy() {
    let bed = Bed::with(&["a.example", "b.example"], None, |model, _| {
        let modern = model::TlsPolicy {
            min_version: TlsVersion::V1_3,
            cipher_suites: vec![CipherSuite::Chacha20Poly1305],
            key_exchange: vec![KeyExchange::Secp384r1],
            alpn: vec![Alpn::Http1],
            ..model::TlsPolicy::default()
        };
        model.tls_policies.insert("modern".to_owned(), modern);
        model.sites[1].tls_policy = Some("modern".to_owned());
    });
    assert_eq!(kind(bed.tls(), &bed.client(TLS12), "a.example"), "full");
    assert_eq!(kind(bed.tls(), &bed.client(TLS12), "b.example"), "refused");
    let (server, _) = handshake(bed.tls(), &bed.client(TLS13), "b.example").unwrap();
    assert_eq!(server.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let suite = server.negotiated_cipher_suite().map(|suite| suite.suite());
    assert_eq!(suite, Some(rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256));
    let group = server.negotiated_key_exchange_group().map(|group| group.name());
    assert_eq!(group, Some(NamedGroup::secp384r1));
    assert_eq!(server.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[test]
fn early_data_is_off() {
    let bed = Bed::new(&["a.example"], None);
    let mut client = (*bed.client(TLS13)).clone();
    client.enable_early_data = true;
    let client = Arc::new(client);
    assert_eq!(kind(bed.tls(), &client, "a.example"), "full");
    let name = ServerName::try_from("a.example").unwrap();
    let mut second = ClientConnection::new(Arc::clone(&client), name).unwrap();
    assert!(second.early_data().is_none(), "a ticket of ours allows no early data");
    assert_eq!(bed.tls().choose(Some("a.example")).unwrap().config.max_early_data_size, 0);
}

#[test]
fn an_unknown_name_is_refused_unless_there_is_a_default_site() {
    let strict = Bed::new(&["a.example"], None);
    assert!(strict.tls().choose(Some("b.example")).is_none());
    assert!(strict.tls().choose(None).is_some(), "the only certificate");
    let lenient = Bed::new(&["a.example"], Some("a.example"));
    let refusal = handshake(lenient.tls(), &lenient.client(TLS13), "b.example").unwrap_err();
    assert!(matches!(refusal, rustls::Error::InvalidCertificate(_)), "the client got a.example's: {refusal}");
}

#[test]
fn the_alert_is_the_one_clients_know() {
    let bed = Bed::new(&["a.example"], None);
    let name = ServerName::try_from("a.example").unwrap();
    let mut connection = ClientConnection::new(bed.client(TLS13), name).unwrap();
    connection.write_tls(&mut Vec::new()).unwrap();
    connection.read_tls(&mut UNRECOGNIZED_NAME_ALERT.as_slice()).unwrap();
    let alert = connection.process_new_packets().unwrap_err();
    assert_eq!(alert, rustls::Error::AlertReceived(rustls::AlertDescription::UnrecognisedName));
}
