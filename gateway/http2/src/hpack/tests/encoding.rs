//! The encoder, alone and together with the decoder.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::{Decoder, Encoder};
use super::{decode, hex, integer, string};

/// The octets of one field.
fn octets(encoder: &mut Encoder, name: &str, value: &str) -> Vec<u8> {
    let mut out = Vec::new();
    encoder.begin(&mut out);
    encoder.field(&mut out, name.as_bytes(), value.as_bytes(), false);
    out
}

fn resized(sizes: &[u32]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    resize(&mut encoder, sizes)
}

fn resize(encoder: &mut Encoder, sizes: &[u32]) -> Vec<u8> {
    let mut out = Vec::new();
    for &size in sizes {
        encoder.resize(size);
    }
    encoder.begin(&mut out);
    encoder.begin(&mut out);
    out
}

#[test]
fn statuses() {
    let mut encoder = Encoder::new();
    for status in 100..1000 {
        let mut out = Vec::new();
        encoder.status(&mut out, status);
        let known = [200, 204, 206, 304, 400, 404, 500].contains(&status);
        assert_eq!(out.len(), if known { 1 } else { 5 });
        let fields = decode(&mut Decoder::new(4096), &out).unwrap();
        assert_eq!(
            fields,
            [(b":status".to_vec(), status.to_string().into_bytes(), false)]
        );
    }
}

#[test]
fn entries_of_the_static_table() {
    for (name, value, wanted) in [
        (":method", "GET", "82"),
        (":method", "POST", "83"),
        (":method", "PUT", "02 03 505554"),
        (":path", "/", "84"),
        (":path", "/index.html", "85"),
        (":path", "/a", "04 02 2f61"),
        (":scheme", "https", "87"),
        (":authority", "a", "01 01 61"),
        (":authority", "", "81"),
        ("accept-encoding", "gzip, deflate", "90"),
        ("Accept-Encoding", "br", "0f 01 02 6272"),
        ("VIA", "a", "0f 2d 01 61"),
        ("Www-Authenticate", "", "bd"),
        ("Date", "now", "0f 12 03 6e6f77"),
        ("content-length", "7", "0f 0d 01 37"),
        ("X", "Y", "00 01 78 01 59"),
        ("cookies", "Y", "00 07 636f6f6b696573 01 59"),
        ("Set-Cookie", "a=b", "1f 28 03 613d62"),
        ("cookie", "", "1f 11 00"),
    ] {
        assert_eq!(
            octets(&mut Encoder::new(), name, value),
            hex(wanted),
            "{name}"
        );
    }
}

#[test]
fn a_field_is_inserted_when_it_is_seen_again() {
    let mut encoder = Encoder::new();
    let name = string(b"x-kind", false);
    let literal =
        |first: u8, value: &str| [&[first], &name[..], &string(value.as_bytes(), false)].concat();
    assert_eq!(octets(&mut encoder, "x-kind", "a"), literal(0, "a"));
    assert_eq!(octets(&mut encoder, "X-Kind", "a"), literal(0x40, "a"));
    assert_eq!(octets(&mut encoder, "x-Kind", "a"), hex("be"));
    // The name is that of the entry now.
    assert_eq!(octets(&mut encoder, "x-kind", "b"), hex("0f 2f 01 62"));
    assert_eq!(octets(&mut encoder, "x-kind", "b"), hex("7e 01 62"));
    assert_eq!(octets(&mut encoder, "x-kind", "b"), hex("be"));
    assert_eq!(octets(&mut encoder, "x-kind", "a"), hex("bf"));
    assert_eq!(octets(&mut encoder, "server", "s"), hex("0f 27 01 73"));
    assert_eq!(octets(&mut encoder, "server", "s"), hex("76 01 73"));
    assert_eq!(octets(&mut encoder, "server", "s"), hex("be"));
    assert_eq!(octets(&mut encoder, "x-kind", "a"), hex("c0"));
}

#[test]
fn unique_values_do_not_evict_what_repeats() {
    let mut encoder = Encoder::new();
    for _ in 0..3 {
        octets(&mut encoder, "x-kind", "steady");
    }
    for number in 0..10_000 {
        octets(&mut encoder, "x-trace", &format!("trace {number}"));
        octets(&mut encoder, "server", &format!("server {number}"));
        for name in [
            "x-request-id",
            "date",
            "etag",
            "age",
            "location",
            ":path",
            "if-none-match",
        ] {
            for _ in 0..3 {
                octets(&mut encoder, name, &number.to_string());
            }
        }
        assert_eq!(
            octets(&mut encoder, "x-kind", "steady"),
            hex("be"),
            "{number}"
        );
    }
}

#[test]
fn all_that_repeats_is_indexed() {
    for count in [1, 10, 40, 80] {
        let mut encoder = Encoder::new();
        let mut decoder = Decoder::new(4096);
        for round in 0..8 {
            for number in 0..count {
                let (name, value) = (format!("name-{number}"), format!("v{number}"));
                let field = octets(&mut encoder, &name, &value);
                assert_eq!(field.len() <= 2, round >= 2, "{name} in {round}");
                let fields = decode(&mut decoder, &field).unwrap();
                assert_eq!(fields, [(name.into_bytes(), value.into_bytes(), false)]);
            }
        }
    }
}

/// Numbers of entries are of 16 bits.
#[test]
fn numbers_of_entries_begin_again() {
    let mut encoder = Encoder::new();
    let mut decoder = Decoder::new(4096);
    for number in 0..70_000_u32 {
        let (name, value) = (
            format!("x-{}", number % 5),
            (number * 7919 % 9001).to_string(),
        );
        for _ in 0..3 {
            let field = octets(&mut encoder, &name, &value);
            let fields = decode(&mut decoder, &field).unwrap();
            let wanted = (name.clone().into_bytes(), value.clone().into_bytes(), false);
            assert_eq!(fields, [wanted]);
        }
    }
}

#[test]
fn large_fields_are_not_inserted() {
    for (name, value) in [
        (6, 513),
        (64, 513),
        (64, 1000),
        (65, 1),
        (200, 1),
        (5000, 5000),
    ] {
        let (name, value) = ("n".repeat(name), "v".repeat(value));
        let mut encoder = Encoder::new();
        let wanted = [
            &[0],
            &string(name.as_bytes(), false)[..],
            &string(value.as_bytes(), false),
        ]
        .concat();
        for _ in 0..4 {
            assert_eq!(octets(&mut encoder, &name.to_uppercase(), &value), wanted);
        }
    }
    // A quarter of a smaller table.
    for (size, len, indexed) in [(400, 66, true), (400, 67, false), (4096, 510, true)] {
        let mut encoder = Encoder::new();
        resize(&mut encoder, &[size]);
        for _ in 0..2 {
            octets(&mut encoder, "ab", &"v".repeat(len));
        }
        assert_eq!(
            octets(&mut encoder, "ab", &"v".repeat(len)) == hex("be"),
            indexed,
            "{len}"
        );
    }
}

#[test]
fn a_sensitive_field_is_never_indexed() {
    let long = "n".repeat(200);
    for (name, sensitive, first) in [
        ("authorization", false, "1f 08"),
        ("Proxy-Authorization", false, "1f 22"),
        ("Cookie", false, "1f 11"),
        ("SET-COOKIE", false, "1f 28"),
        ("authorization", true, "1f 08"),
        (":path", true, "14"),
        ("x-token", true, "10 07 782d746f6b656e"),
        (&long, true, "10 7f 49"),
    ] {
        let mut encoder = Encoder::new();
        // Not even by an entry there is.
        for _ in 0..3 {
            octets(&mut encoder, name, "value");
        }
        let before = format!("{encoder:?}");
        for _ in 0..5 {
            let mut out = Vec::new();
            encoder.field(&mut out, name.as_bytes(), b"value", sensitive);
            assert!(out.starts_with(&hex(first)), "{name}: {out:x?}");
            assert!(out.ends_with(b"value"), "{name}: {out:x?}");
            let fields = decode(&mut Decoder::new(4096), &out).unwrap();
            assert_eq!(
                fields,
                [(
                    name.to_ascii_lowercase().into_bytes(),
                    b"value".to_vec(),
                    true
                )]
            );
        }
        assert_eq!(format!("{encoder:?}"), before);
    }
}

#[test]
fn size_updates() {
    let none: &[u8] = &[];
    assert_eq!(resized(&[]), none);
    assert_eq!(resized(&[4096]), none);
    assert_eq!(resized(&[65_536, u32::MAX]), none);
    assert_eq!(resized(&[0]), hex("20"));
    assert_eq!(resized(&[100]), hex("3f 45"));
    assert_eq!(
        resized(&[100, 0, 200]),
        [hex("20"), integer(0x20, 0x1f, 200)].concat()
    );
    assert_eq!(resized(&[0, u32::MAX]), hex("20 3f e1 1f"));
    let mut encoder = Encoder::new();
    assert_eq!(resize(&mut encoder, &[30]), hex("3e"));
    assert_eq!(resize(&mut encoder, &[31]), hex("3f 00"));
    assert_eq!(resize(&mut encoder, &[31]), none);
    assert_eq!(resize(&mut encoder, &[5000]), hex("3f e1 1f"));
}

#[test]
fn a_table_of_no_size_holds_nothing() {
    let mut encoder = Encoder::new();
    octets(&mut encoder, "x-kind", "a");
    octets(&mut encoder, "x-kind", "a");
    assert_eq!(octets(&mut encoder, "x-kind", "a"), hex("be"));
    encoder.resize(0);
    assert_eq!(
        octets(&mut encoder, "x-kind", "a"),
        hex("20 00 06 782d6b696e64 01 61")
    );
    for _ in 0..4 {
        assert_eq!(
            octets(&mut encoder, "x-kind", "a"),
            hex("00 06 782d6b696e64 01 61")
        );
    }
}

#[derive(Clone, Debug)]
struct Block {
    sizes: Vec<u32>,
    status: Option<u16>,
    fields: Vec<(usize, usize, bool)>,
}

fn block() -> impl Strategy<Value = Block> {
    let size = prop_oneof![Just(0), 0..300_u32, Just(1000), Just(4096), any::<u32>()];
    let sizes = prop_oneof![6 => Just(Vec::new()), 1 => vec(size, 0..4)];
    let field = (0..NAMES.len(), 0..40_usize, proptest::bool::weighted(0.05));
    let status = proptest::option::of(100..1000_u16);
    (sizes, status, vec(field, 0..30)).prop_map(|(sizes, status, fields)| Block {
        sizes,
        status,
        fields,
    })
}

const NAMES: [&str; 17] = [
    "",
    "a",
    "Ab",
    "aBc",
    "abcd",
    "ABCDE",
    "x-Kind",
    "X-Kind7",
    "X-KindOf8",
    "x-a-name-of-17-oct",
    "Server",
    "Cookie",
    "content-Type",
    "Vary",
    "Date",
    ":method",
    "x-[name]\u{e9}\u{c9}",
];

/// Values of each length, and some of which only one octet differs.
fn value(number: usize) -> Vec<u8> {
    match number {
        0 => b"GET".to_vec(),
        1..20 => vec![b'v'; number - 1],
        20..30 => [
            &[b'w'; 13][..],
            &[u8::try_from(number).unwrap()],
            &[b'w'; 40],
        ]
        .concat(),
        _ => vec![b'l'; number * 17],
    }
}

proptest! {
    #[test]
    fn the_decoder_gives_what_the_encoder_took(blocks in vec(block(), 1..40)) {
        let mut encoder = Encoder::new();
        let mut decoder = Decoder::new(4096);
        for Block { sizes, status, fields } in blocks {
            let mut out = Vec::new();
            let mut wanted = Vec::new();
            for size in sizes {
                encoder.resize(size);
            }
            encoder.begin(&mut out);
            if let Some(status) = status {
                encoder.status(&mut out, status);
                wanted.push((b":status".to_vec(), status.to_string().into_bytes(), false));
            }
            for (name, number, sensitive) in fields {
                let (name, value) = (NAMES[name].as_bytes(), value(number));
                encoder.field(&mut out, name, &value, sensitive);
                let name = name.to_ascii_lowercase();
                let sensitive = sensitive || name == b"cookie";
                wanted.push((name, value, sensitive));
            }
            prop_assert_eq!(decode(&mut decoder, &out), Ok(wanted));
        }
    }

    #[test]
    fn names_of_any_octets_are_put_in_lower_case(name in vec(any::<u8>(), 0..200)) {
        let mut out = Vec::new();
        Encoder::new().field(&mut out, &name, b"v", false);
        let fields = decode(&mut Decoder::new(4096), &out).unwrap();
        prop_assert_eq!(fields, [(name.to_ascii_lowercase(), b"v".to_vec(), false)]);
    }
}
