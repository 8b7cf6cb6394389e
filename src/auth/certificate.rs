//! Who is it, as their certificate says? The parts of a client's certificate, as values of header fields.
//!
//! The handshake has verified it before it comes here. An authority signs nearly anything, so nothing is put into a value as
//! it stands: whatever is not visible ASCII, and whatever could be taken for the end of a part, is written behind a `\`.

use std::fmt;
use std::sync::OnceLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::asn1_rs::ToDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::config::CertificatePart;

/// What is longer is not told: few backends take more in all of their fields, and no name needs it.
const LONGEST: usize = 16 << 10;

/// The attributes that have a name of their own in RFC 4514, section 3.
const NAMED: [(&str, &str); 9] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];

/// A certificate that a client has shown, and that was verified.
pub struct Certificate {
    /// The client's own first.
    chain: Vec<CertificateDer<'static>>,
    values: OnceLock<Vec<(CertificatePart, HeaderValue)>>,
}

impl Certificate {
    /// `None` of an empty chain.
    pub fn new(chain: Vec<CertificateDer<'static>>) -> Option<Self> {
        (!chain.is_empty()).then(|| Self { chain, values: OnceLock::new() })
    }

    /// What it says, if it says that; worked out once for all requests of a connection.
    pub fn value(&self, part: CertificatePart) -> Option<HeaderValue> {
        let values = self.values.get_or_init(|| values(&self.chain));
        values.iter().find(|(known, _)| *known == part).map(|(_, value)| value.clone())
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.chain == other.chain
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").finish_non_exhaustive()
    }
}

fn values(chain: &[CertificateDer<'_>]) -> Vec<(CertificatePart, HeaderValue)> {
    let Some((own, others)) = chain.split_first() else { return Vec::new() };
    let mut texts = vec![
        (CertificatePart::Certificate, bytes(own)),
        (CertificatePart::Chain, others.iter().map(bytes).collect::<Vec<_>>().join(", ")),
        (CertificatePart::Fingerprint, hex(digest(&SHA256, own).as_ref())),
    ];
    // The verifier has read it already; what this reader does not understand it says nothing about.
    if let Ok((_, read)) = X509Certificate::from_der(own) {
        texts.push((CertificatePart::Subject, subject(read.subject())));
        texts.push((CertificatePart::CommonName, common_name(read.subject()).unwrap_or_default()));
        texts.push((CertificatePart::San, alternative_names(&read)));
        texts.push((CertificatePart::Serial, serial(read.raw_serial())));
    }
    let told = texts.into_iter().filter(|(_, text)| (1..=LONGEST).contains(&text.len()));
    told.filter_map(|(part, text)| Some((part, HeaderValue::try_from(text).ok()?))).collect()
}

/// A byte sequence of Structured Fields (RFC 9440, section 2.1).
fn bytes(der: &CertificateDer<'_>) -> String {
    format!(":{}:", STANDARD.encode(der))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As `openssl x509 -serial` writes it. The first byte may be there for the sign alone.
fn serial(raw: &[u8]) -> String {
    let number = raw.iter().position(|byte| *byte != 0).and_then(|first| raw.get(first..)).unwrap_or(&[0]);
    hex(number).to_ascii_uppercase()
}

/// RFC 4514: the last part comes first.
fn subject(name: &X509Name<'_>) -> String {
    let rdns: Vec<_> = name.iter_rdn().collect();
    let written = rdns.iter().rev().map(|rdn| rdn.iter().map(attribute).collect::<Vec<_>>().join("+"));
    written.collect::<Vec<_>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let kind = attribute.attr_type().to_id_string();
    let named = NAMED.iter().find(|(id, _)| *id == kind).map(|(_, name)| *name);
    match attribute.as_str() {
        Ok(text) => format!("{}={}", named.unwrap_or(&kind), escaped(text, b"\"+,;<>\\#=")),
        Err(_) => {
            let der = attribute.attr_value().to_der_vec().unwrap_or_default();
            format!("{}=#{}", named.unwrap_or(&kind), hex(&der))
        }
    }
}

/// Of several the most specific, which is the last.
fn common_name(name: &X509Name<'_>) -> Option<String> {
    name.iter_common_name().last()?.as_str().ok().map(|name| escaped(name, b"\\"))
}

fn alternative_names(certificate: &X509Certificate<'_>) -> String {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let names = extension.iter().flat_map(|extension| &extension.value.general_names);
    names.filter_map(alternative_name).collect::<Vec<_>>().join(", ")
}

fn alternative_name(general: &GeneralName<'_>) -> Option<String> {
    let text = |kind: &str, text: &str| Some(format!("{kind}:{}", escaped(text, b",\\")));
    if let GeneralName::DNSName(name) = general {
        return text("DNS", name);
    }
    if let GeneralName::URI(uri) = general {
        return text("URI", uri);
    }
    if let GeneralName::RFC822Name(address) = general {
        return text("email", address);
    }
    if let GeneralName::IPAddress(bytes) = general {
        let v4 = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
        let v6 = <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from);
        return v4.or(v6).ok().map(|address| format!("IP:{address}"));
    }
    None
}

/// A text with a `\` before each of these bytes, and with all that is not visible ASCII as `\` and two digits; so are spaces
/// at its ends, which a field would lose.
fn escaped(text: &str, marked: &[u8]) -> String {
    let last = text.len().saturating_sub(1);
    let mut written = String::with_capacity(text.len());
    for (place, byte) in text.bytes().enumerate() {
        let is_lost = byte == b' ' && (place == 0 || place == last);
        match byte {
            b' '..=b'~' if !is_lost => {
                if marked.contains(&byte) {
                    written.push('\\');
                }
                written.push(char::from(byte));
            }
            byte => written.push_str(&format!("\\{byte:02X}")),
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SanType};

    use super::*;

    fn made(change: impl FnOnce(&mut CertificateParams)) -> Certificate {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Certificate::new(vec![made.der().clone()]).unwrap()
    }

    fn text(certificate: &Certificate, part: CertificatePart) -> Option<String> {
        certificate.value(part).map(|value| value.to_str().unwrap().to_owned())
    }

    fn named(name: &str) -> Certificate {
        made(|params| params.distinguished_name.push(DnType::CommonName, DnValue::Utf8String(name.to_owned())))
    }

    #[test]
    fn a_name_cannot_end_its_part_nor_its_field() {
        for (name, common, subject) in [
            ("ann", "ann", "CN=ann"),
            ("ann,O=admins", "ann,O=admins", "CN=ann\\,O\\=admins"),
            ("ann\r\nX-Admin: yes", "ann\\0D\\0AX-Admin: yes", "CN=ann\\0D\\0AX-Admin: yes"),
            (" \u{e9}\\ ", "\\20\\C3\\A9\\\\\\20", "CN=\\20\\C3\\A9\\\\\\20"),
            ("a\0b", "a\\00b", "CN=a\\00b"),
        ] {
            let certificate = named(name);
            assert_eq!(text(&certificate, CertificatePart::CommonName).as_deref(), Some(common));
            assert_eq!(text(&certificate, CertificatePart::Subject).as_deref(), Some(subject));
        }
    }

    #[test]
    fn a_subject_is_written_from_its_last_part_to_its_first() {
        let certificate = made(|params| {
            for (kind, value) in [
                (DnType::CountryName, "DE"),
                (DnType::OrganizationName, "Acme; Sons"),
                (DnType::CustomDnType(vec![1, 2, 3, 4]), "odd"),
                (DnType::CommonName, "ann"),
            ] {
                params.distinguished_name.push(kind, value);
            }
        });
        let subject = text(&certificate, CertificatePart::Subject);
        assert_eq!(subject.as_deref(), Some("CN=ann,1.2.3.4=odd,O=Acme\\; Sons,C=DE"));
    }

    #[test]
    fn alternative_names_say_what_they_are_and_none_can_be_two() {
        let certificate = made(|params| {
            params.subject_alt_names = vec![
                SanType::DnsName("a.example, URI:spiffe://admin".try_into().unwrap()),
                SanType::URI("spiffe://example/ann".try_into().unwrap()),
                SanType::Rfc822Name("ann@example.com".try_into().unwrap()),
                SanType::IpAddress("10.0.0.1".parse().unwrap()),
                SanType::IpAddress("2001:db8::1".parse().unwrap()),
            ];
        });
        let expected = "DNS:a.example\\, URI:spiffe://admin, URI:spiffe://example/ann, email:ann@example.com, \
                        IP:10.0.0.1, IP:2001:db8::1";
        assert_eq!(text(&certificate, CertificatePart::San).as_deref(), Some(expected));
        assert_eq!(text(&named("ann"), CertificatePart::San), None);
    }

    #[test]
    fn bytes_and_numbers_are_written_as_others_write_them() {
        let certificate = made(|params| params.serial_number = Some(vec![0xAB, 0x01].into()));
        assert_eq!(text(&certificate, CertificatePart::Serial).as_deref(), Some("AB01"));
        let own = certificate.chain[0].to_vec();
        let sequence = text(&certificate, CertificatePart::Certificate).unwrap();
        let inside = sequence.strip_prefix(':').and_then(|rest| rest.strip_suffix(':')).unwrap();
        assert_eq!(STANDARD.decode(inside).unwrap(), own);
        assert_eq!(text(&certificate, CertificatePart::Fingerprint).map(|print| print.len()), Some(64));
        assert_eq!(text(&certificate, CertificatePart::Chain), None);

        let chain = Certificate::new(vec![own.clone().into(), vec![1, 2].into(), vec![3].into()]).unwrap();
        assert_eq!(text(&chain, CertificatePart::Chain).as_deref(), Some(":AQI=:, :Aw==:"));
    }

    #[test]
    fn what_is_too_long_is_not_told() {
        let certificate = named(&"x".repeat(LONGEST));
        assert_eq!(text(&certificate, CertificatePart::Subject), None);
        assert_eq!(text(&certificate, CertificatePart::Certificate), None);
        assert!(text(&certificate, CertificatePart::Fingerprint).is_some());
    }
}
