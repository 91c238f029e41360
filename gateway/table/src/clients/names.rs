//! Names in certificates as text, as nginx writes them: RFC 2253, ASCII only.

use std::fmt::Write as _;

use http::HeaderValue;
use rustls_pki_types::CertificateDer;
use x509_parser::asn1_rs::{Any, Tag, ToDer};
use x509_parser::prelude::{AttributeTypeAndValue, FromDer, X509Certificate, X509Name};

/// The names in a certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Names {
    /// Whose it is.
    pub subject: HeaderValue,
    /// Who has signed it.
    pub issuer: HeaderValue,
}

/// The names in a certificate; `None` if it is none.
pub fn names(certificate: &CertificateDer<'_>) -> Option<Names> {
    let Ok(([], parsed)) = X509Certificate::from_der(certificate) else {
        return None;
    };
    Some(Names {
        subject: HeaderValue::try_from(text(parsed.subject())).ok()?,
        issuer: HeaderValue::try_from(text(parsed.issuer())).ok()?,
    })
}

/// The last part first.
fn text(name: &X509Name<'_>) -> String {
    let mut out = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for part in parts.into_iter().rev() {
        let attributes: Vec<_> = part.iter().collect();
        for (number, attribute) in attributes.into_iter().rev().enumerate() {
            if number > 0 {
                out.push('+');
            } else if !out.is_empty() {
                out.push(',');
            }
            write_attribute(&mut out, attribute);
        }
    }
    out
}

fn write_attribute(out: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let oid = attribute.attr_type().to_id_string();
    let value = attribute.attr_value();
    match (short_name(&oid), characters(value)) {
        (Some(name), Some(text)) => {
            out.push_str(name);
            out.push('=');
            write_escaped(out, &text);
        }
        (name, _) => {
            out.push_str(name.unwrap_or(&oid));
            out.push_str("=#");
            for byte in value.to_der_vec().unwrap_or_default() {
                write_byte(out, "", byte);
            }
        }
    }
}

/// The names that OpenSSL has for what stands in names.
fn short_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        "1.2.840.113549.1.9.2" => "unstructuredName",
        "1.3.6.1.4.1.311.60.2.1.1" => "jurisdictionL",
        "1.3.6.1.4.1.311.60.2.1.2" => "jurisdictionST",
        "1.3.6.1.4.1.311.60.2.1.3" => "jurisdictionC",
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "2.5.4.13" => "description",
        "2.5.4.15" => "businessCategory",
        "2.5.4.16" => "postalAddress",
        "2.5.4.17" => "postalCode",
        "2.5.4.20" => "telephoneNumber",
        "2.5.4.41" => "name",
        "2.5.4.42" => "GN",
        "2.5.4.43" => "initials",
        "2.5.4.44" => "generationQualifier",
        "2.5.4.45" => "x500UniqueIdentifier",
        "2.5.4.46" => "dnQualifier",
        "2.5.4.65" => "pseudonym",
        "2.5.4.72" => "role",
        "2.5.4.97" => "organizationIdentifier",
        _ => return None,
    })
}

/// What a text of ASN.1 says; `None` where it is none.
fn characters(value: &Any<'_>) -> Option<String> {
    let bytes = value.as_bytes();
    match value.tag() {
        Tag::Utf8String => String::from_utf8(bytes.to_vec()).ok(),
        Tag::PrintableString
        | Tag::Ia5String
        | Tag::NumericString
        | Tag::VisibleString
        | Tag::T61String => Some(bytes.iter().copied().map(char::from).collect()),
        Tag::BmpString => {
            let units = bytes
                .chunks_exact(2)
                .filter_map(|unit| <[u8; 2]>::try_from(unit).ok())
                .map(u16::from_be_bytes);
            let whole = bytes.len().is_multiple_of(2);
            let text: Result<String, _> = char::decode_utf16(units).collect();
            text.ok().filter(|_| whole)
        }
        Tag::UniversalString => {
            let whole = bytes.len().is_multiple_of(4);
            let text: Option<String> = bytes
                .chunks_exact(4)
                .map(|unit| char::from_u32(u32::from_be_bytes(unit.try_into().ok()?)))
                .collect();
            text.filter(|_| whole)
        }
        _ => None,
    }
}

fn write_escaped(out: &mut String, text: &str) {
    let last = text.len().saturating_sub(1);
    for (place, character) in text.char_indices() {
        let at_an_end =
            place == 0 && matches!(character, ' ' | '#') || place == last && character == ' ';
        if at_an_end || matches!(character, ',' | '+' | '"' | '\\' | '<' | '>' | ';') {
            out.push('\\');
            out.push(character);
        } else if matches!(character, ' '..='~') {
            out.push(character);
        } else {
            let mut buffer = [0; 4];
            for byte in character.encode_utf8(&mut buffer).bytes() {
                write_byte(out, "\\", byte);
            }
        }
    }
}

fn write_byte(out: &mut String, before: &str, byte: u8) {
    // Writing into a String cannot fail.
    let _ = write!(out, "{before}{byte:02X}");
}

#[cfg(test)]
mod tests {
    use rcgen::string::{BmpString, PrintableString};
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    use super::*;

    fn written(parts: &[(DnType, DnValue)]) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let names = names(certificate.der()).unwrap();
        assert_eq!(names.subject, names.issuer);
        names.subject.to_str().unwrap().to_owned()
    }

    /// Wanted is what `openssl x509 -subject -nameopt RFC2253` prints for such certificates.
    #[test]
    fn names_are_written_as_openssl_writes_them() {
        let utf8 = |text: &str| DnValue::Utf8String(text.to_owned());
        let printable = DnValue::PrintableString(PrintableString::try_from("DE").unwrap());
        let two_bytes = DnValue::BmpString(BmpString::try_from("Ö").unwrap());
        for (parts, want) in [
            (vec![(DnType::CommonName, utf8("a"))], "CN=a"),
            (
                vec![
                    (DnType::CountryName, printable),
                    (DnType::OrganizationName, utf8("Acme, Inc.")),
                    (DnType::OrganizationalUnitName, utf8("#x")),
                    (DnType::CommonName, utf8("My Client")),
                    (
                        DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]),
                        utf8("a@b.test"),
                    ),
                ],
                "emailAddress=a@b.test,CN=My Client,OU=\\#x,O=Acme\\, Inc.,C=DE",
            ),
            (vec![(DnType::CommonName, utf8("Ö\n"))], "CN=\\C3\\96\\0A"),
            (vec![(DnType::CommonName, two_bytes)], "CN=\\C3\\96"),
            (
                vec![(DnType::CommonName, utf8(" a\"b\\c<d>;e+f "))],
                "CN=\\ a\\\"b\\\\c\\<d\\>\\;e\\+f\\ ",
            ),
            (vec![(DnType::CommonName, utf8("a #b"))], "CN=a #b"),
            (
                vec![(DnType::CustomDnType(vec![1, 2, 3, 4]), utf8("ab"))],
                "1.2.3.4=#0C026162",
            ),
        ] {
            assert_eq!(written(&parts), want);
        }
    }
}
