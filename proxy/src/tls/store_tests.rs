//! Tests of the store: which faults a model has, and what its listeners present.

use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::tls::fixture::{model, site};

fn files(folder: &Path, name: &str) -> SiteTls {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
    let paths = ["crt", "key"].map(|end| folder.join(format!("{name}.{end}")));
    std::fs::write(&paths[0], certificate.pem()).unwrap();
    std::fs::write(&paths[1], key.serialize_pem()).unwrap();
    let [certificate, key] = paths;
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    SiteTls::Files { certificate, key }
}

#[test]
fn files_and_the_local_ca_serve_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let sites = vec![
        site("a", &["a.example"], files(folder.path(), "a.example")),
        site("b", &["b.example", "*"], SiteTls::Internal),
    ];
    let now = SystemTime::now();
    let built = CertificateStore::build(&model(sites, None), &folder.path().join("state"), now).unwrap();
    assert_eq!(built.warnings, []);
    let names = |site| built.store.site(site).unwrap().credentials.names.clone();
    let hosts: Vec<_> = built.store.hosts("tls").map(|(host, site)| (host.to_text(), site)).collect();
    assert_eq!(hosts, [("a.example".into(), "a"), ("b.example".into(), "b"), ("*".into(), "b")]);
    assert_eq!(names("b"), ["127.0.0.1", "::1", "a.example", "b.example", "localhost"]);
    let renewal = built.store.next_internal_renewal().unwrap().duration_since(now).unwrap();
    assert!((59..61).contains(&(renewal.as_secs() / 86_400)), "{renewal:?}");
    assert_eq!(built.store.hosts("plain").count(), 0);
}

#[test]
fn every_fault_of_every_site_is_reported_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let missing = SiteTls::Files { certificate: folder.path().join("no.crt"), key: folder.path().join("no.key") };
    let sites = vec![
        site("a", &["a.example"], missing.clone()),
        site("b", &["b.example"], missing),
        site("c", &["b\u{fc}cher.example"], SiteTls::Internal),
    ];
    let faults =
        CertificateStore::build(&model(sites, None), &folder.path().join("state"), SystemTime::now()).unwrap_err();
    let mut sites: Vec<&str> = faults.iter().map(|fault| fault.site.as_str()).collect();
    sites.sort_unstable();
    assert_eq!(sites, ["a", "a", "b", "b", "c"], "{faults:?}");
}

#[test]
fn a_check_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let mut wrong = files(folder.path(), "a.example");
    let model_of = |tls: &SiteTls| {
        model(vec![site("a", &["a.example"], tls.clone()), site("b", &["b.example"], SiteTls::Internal)], None)
    };
    assert_eq!(CertificateStore::check(&model_of(&wrong), &state, SystemTime::now()), []);
    assert!(!state.exists());
    if let SiteTls::Files { key, .. } = &mut wrong {
        *key = folder.path().join("gone.key");
    }
    let faults = CertificateStore::check(&model_of(&wrong), &state, SystemTime::now());
    assert!(faults[0].to_string().contains("gone.key: cannot be read"), "{faults:?}");
}

#[test]
fn a_host_outside_of_the_certificate_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let sites = vec![site("a", &["a.example", "www.a.example"], files(folder.path(), "a.example"))];
    let built = CertificateStore::build(&model(sites, None), folder.path(), SystemTime::now()).unwrap();
    assert!(built.warnings[0].to_string().contains("not valid for www.a.example;"), "{:?}", built.warnings);
}

#[test]
fn a_renewal_replaces_one_site() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let build = |names: &[&str]| {
        let sites = names.iter().map(|name| site(name, &[name], files(folder.path(), name))).collect();
        CertificateStore::build(&model(sites, Some("a")), folder.path(), now).unwrap().store
    };
    let old = build(&["a", "b"]);
    let newer = build(&["a", "b"]).site("a").unwrap().clone();
    let next = old.with_site("a", newer.clone());
    let key = |store: &CertificateStore, name| Arc::as_ptr(&store.site(name).unwrap().credentials.key);
    assert_eq!(key(&next, "a"), Arc::as_ptr(&newer.credentials.key));
    assert_eq!(next.default_site("tls"), Some("a"));
    assert_eq!(key(&next, "b"), key(&old, "b"));
    assert_eq!(next.next_internal_renewal(), None);
    assert!(newer.credentials.not_after > now + Duration::from_secs(1));
}

#[test]
fn a_renewal_of_the_local_ca_touches_nobody_elses_files() {
    let folder = tempfile::tempdir().unwrap();
    let own = files(folder.path(), "a.example");
    let sites = vec![site("a", &["a.example"], own.clone()), site("b", &["b.example"], SiteTls::Internal)];
    let (model, state, now) = (model(sites, None), folder.path().join("state"), SystemTime::now());
    let store = CertificateStore::build(&model, &state, now).unwrap().store;
    let SiteTls::Files { certificate, key } = own else { unreachable!() };
    // Half of a change that its operator has not reloaded yet.
    std::fs::write(&certificate, "garbage").unwrap();
    std::fs::remove_file(&key).unwrap();
    let key_of = |store: &CertificateStore, name| store.site(name).unwrap().credentials.key.cert.clone();
    for (days, renewed) in [(0, false), (61, true)] {
        let later = now + Duration::from_secs(days * 86_400);
        let next = store.renewed_internal(&model, &state, later).unwrap();
        assert_eq!(key_of(&next, "a"), key_of(&store, "a"), "after {days} days");
        assert_eq!(key_of(&next, "b") != key_of(&store, "b"), renewed, "after {days} days");
        assert!(next.next_internal_renewal().unwrap() > later, "after {days} days");
    }
}
