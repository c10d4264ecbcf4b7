//! Whom a client certificate names, as text for logs.
//!
//! The handshake has verified it; this only reads it, in the form that nginx logs: a distinguished name by RFC 4514, the most
//! special part first.

use rustls::pki_types::CertificateDer;
use tidegate_traffic::ClientIdentity;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// Whom it names; `None` for what is no certificate.
pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<ClientIdentity> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    // A positive number begins with a zero where its first bit is set.
    let serial = match certificate.raw_serial() {
        [0, rest @ ..] if !rest.is_empty() => rest,
        whole => whole,
    };
    Some(ClientIdentity { subject: name(certificate.subject()).into(), serial: hex(serial).into() })
}

fn name(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> =
        name.iter_rdn().map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+")).collect();
    parts.reverse();
    parts.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type();
    let key = oid2abbrev(oid, oid_registry()).map_or_else(|_| oid.to_id_string(), str::to_owned);
    match attribute.as_str() {
        Ok(value) => format!("{key}={}", escaped(value)),
        // RFC 4514 section 2.4: what is no text is shown as it is encoded.
        Err(_) => format!("{key}=#{}", hex(attribute.as_slice())),
    }
}

/// Section 2.4 of RFC 4514.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (place, character) in value.chars().enumerate() {
        match character {
            '\0' => text.push_str("\\00"),
            ' ' if place == 0 || place == last => text.push_str("\\ "),
            '#' if place == 0 => text.push_str("\\#"),
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', character]),
            other => text.push(other),
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SerialNumber};

    fn identity(parts: &[(DnType, &str)], serial: &[u8]) -> ClientIdentity {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.serial_number = Some(SerialNumber::from_slice(serial));
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        of(certificate.der()).unwrap()
    }

    #[test]
    fn names_and_numbers_read_as_nginx_logs_them() {
        let parts = [(DnType::CountryName, "DE"), (DnType::OrganizationName, "A, B"), (DnType::CommonName, "someone")];
        let seen = identity(&parts, &[0x8a, 0x0b]);
        assert_eq!((&*seen.subject, &*seen.serial), (r"CN=someone,O=A\, B,C=DE", "8A0B"));
        assert_eq!(&*identity(&[], &[7]).subject, "");
        assert_eq!(of(&CertificateDer::from(vec![1, 2, 3])), None);
    }

    #[test]
    fn no_value_looks_like_two() {
        for (value, expected) in [
            ("plain \u{fc}", "plain \u{fc}"),
            ("a,CN=admin", r"a\,CN=admin"),
            (" a ", r"\ a\ "),
            ("#a#", r"\#a#"),
            ("a+b;<c>\\\"", r#"a\+b\;\<c\>\\\""#),
            ("a\0", r"a\00"),
            (" ", r"\ "),
        ] {
            assert_eq!(escaped(value), expected, "{value:?}");
        }
    }
}
