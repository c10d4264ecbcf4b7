//! Tests of the policies: real handshakes in memory.

use std::io::{Read, Write};
use std::path::Path;
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConnection};
use tidegate_config::model::SiteTls;

use super::*;
use crate::tls::fixture::{model, site};
use crate::tls::internal::InternalCa;
use crate::tls::sni::UNRECOGNIZED_NAME_ALERT;

fn store(state: &Path, names: &[&str], default: Option<&str>) -> CertificateStore {
    let sites = names.iter().map(|name| site(name, &[name], SiteTls::Internal)).collect();
    CertificateStore::build(&model(sites, default), state, SystemTime::now()).unwrap().store
}

fn client(state: &Path, versions: &[&'static rustls::SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(InternalCa::certificate_path(state)).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

/// A whole handshake and one byte back, which carries the tickets to the client.
fn handshake(
    policy: &TlsPolicy,
    client: &Arc<ClientConfig>,
    name: &str,
) -> Result<(ServerConnection, ClientConnection), rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(&policy.config)).unwrap();
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

#[test]
fn both_versions_shake_hands_with_h2_and_resume() {
    let state = tempfile::tempdir().unwrap();
    let policies = TlsPolicies::build(None, &store(state.path(), &["a.example"], None)).unwrap();
    let policy = policies.policy("tls").unwrap();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let client = client(state.path(), &[version]);
        let (server, _) = handshake(policy, &client, "a.example").unwrap();
        assert_eq!(server.alpn_protocol(), Some(&b"h2"[..]));
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
        let (server, _) = handshake(policy, &client, "a.example").unwrap();
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}");
    }
    assert_eq!(policy.config.max_early_data_size, 0);
}

#[test]
fn sessions_survive_a_reload_and_certificates_change_only_when_activated() {
    let state = tempfile::tempdir().unwrap();
    let first = TlsPolicies::build(None, &store(state.path(), &["a.example"], None)).unwrap();
    let client = client(state.path(), &[&rustls::version::TLS13]);
    handshake(first.policy("tls").unwrap(), &client, "a.example").unwrap();

    let second = TlsPolicies::build(Some(&first), &store(state.path(), &["a.example", "b.example"], None)).unwrap();
    let policy = second.policy("tls").unwrap();
    assert!(Arc::ptr_eq(&policy.config, &first.policy("tls").unwrap().config));
    assert!(!policy.resolver.admits(Some("b.example")));
    second.activate();
    assert!(policy.resolver.admits(Some("b.example")));
    let (server, _) = handshake(policy, &client, "a.example").unwrap();
    assert_eq!(server.handshake_kind(), Some(HandshakeKind::Resumed));
    let (_, client) = handshake(policy, &client, "b.example").unwrap();
    assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full), "a session of one name is not used for another");
}

#[test]
fn an_unknown_name_is_refused_unless_there_is_a_default_site() {
    let state = tempfile::tempdir().unwrap();
    let strict = TlsPolicies::build(None, &store(state.path(), &["a.example"], None)).unwrap();
    let client = client(state.path(), &[&rustls::version::TLS13]);
    let policy = strict.policy("tls").unwrap();
    assert!(handshake(policy, &client, "b.example").is_err());
    assert!(!policy.resolver.admits(Some("b.example")));
    assert!(policy.resolver.admits(None), "the only certificate");
    let lenient = TlsPolicies::build(None, &store(state.path(), &["a.example"], Some("a.example"))).unwrap();
    let refusal = handshake(lenient.policy("tls").unwrap(), &client, "b.example").unwrap_err();
    assert!(matches!(refusal, rustls::Error::InvalidCertificate(_)), "the client got a.example's: {refusal}");
}

#[test]
fn the_alert_is_the_one_clients_know() {
    let state = tempfile::tempdir().unwrap();
    let name = ServerName::try_from("a.example").unwrap();
    let mut connection =
        ClientConnection::new(client(state_with_ca(state.path()), &[&rustls::version::TLS13]), name).unwrap();
    connection.write_tls(&mut Vec::new()).unwrap();
    connection.read_tls(&mut UNRECOGNIZED_NAME_ALERT.as_slice()).unwrap();
    let alert = connection.process_new_packets().unwrap_err();
    assert_eq!(alert, rustls::Error::AlertReceived(rustls::AlertDescription::UnrecognisedName));
}

fn state_with_ca(state: &Path) -> &Path {
    store(state, &["a.example"], None);
    state
}
