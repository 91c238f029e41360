//! Certificates of version 1, as `openssl x509 -req` makes them when it is not told otherwise.

use rcgen::{KeyPair, SigningKey};

/// The same certificate without version and extensions, signed anew by `key`.
pub(crate) fn version_1(der: &[u8], key: &KeyPair) -> Vec<u8> {
    let (_, certificate, _) = element(der);
    let (_, mut content, rest) = element(certificate);
    let mut kept = Vec::new();
    while !content.is_empty() {
        let (tag, _, after) = element(content);
        // The two that are tagged by number: version and extensions.
        if !matches!(tag, 0xa0 | 0xa3) {
            kept.extend_from_slice(&content[..content.len() - after.len()]);
        }
        content = after;
    }
    let content = encoded(0x30, &kept);
    let (_, _, after) = element(rest);
    let algorithm = &rest[..rest.len() - after.len()];
    let mut signature = vec![0];
    signature.extend(key.sign(&content).unwrap());
    let parts = [&content[..], algorithm, &encoded(0x03, &signature)];
    encoded(0x30, &parts.concat())
}

/// Tag and content of the first element, and what follows it.
fn element(der: &[u8]) -> (u8, &[u8], &[u8]) {
    let (tag, first) = (der[0], der[1]);
    let (length, start) = if first < 0x80 {
        (usize::from(first), 2)
    } else {
        let count = usize::from(first & 0x7f);
        let bytes = &der[2..2 + count];
        let length = bytes
            .iter()
            .fold(0, |all, byte| all << 8 | usize::from(*byte));
        (length, 2 + count)
    };
    (tag, &der[start..start + length], &der[start + length..])
}

fn encoded(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        short @ 0..0x80 => out.push(u8::try_from(short).unwrap()),
        long => {
            let bytes = u16::try_from(long).unwrap().to_be_bytes();
            out.push(0x82);
            out.extend(bytes);
        }
    }
    out.extend_from_slice(content);
    out
}
