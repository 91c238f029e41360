//! The examples of RFC 7541, Appendix C.

use super::super::{Decoder, Encoder};
use super::{decode, hex, integer, lines, string, table};

/// Blocks of a connection, what they hold, and the dynamic table after each.
type Example = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

fn examples(most: usize, blocks: &[Example]) {
    let mut decoder = Decoder::new(most);
    for &(block, fields, after) in blocks {
        assert_eq!(lines(&mut decoder, &hex(block)).unwrap(), fields, "{block}");
        assert_eq!(table(&mut decoder), after, "{block}");
    }
}

#[test]
fn literals_of_appendix_c_2() {
    let custom: &[&str] = &["custom-key: custom-header"];
    examples(
        4096,
        &[(
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            custom,
            custom,
        )],
    );
    examples(
        4096,
        &[
            (
                "040c 2f73 616d 706c 652f 7061 7468",
                &[":path: /sample/path"],
                &[],
            ),
            (
                "1008 7061 7373 776f 7264 0673 6563 7265 74",
                &["!password: secret"],
                &[],
            ),
            ("82", &[":method: GET"], &[]),
        ],
    );
}

#[test]
fn requests_of_appendix_c_3_and_4() {
    let get = [
        ":method: GET",
        ":scheme: http",
        ":path: /",
        ":authority: www.example.com",
    ];
    let again = [&get[..], &["cache-control: no-cache"]].concat();
    let other = [
        ":method: GET",
        ":scheme: https",
        ":path: /index.html",
        ":authority: www.example.com",
        "custom-key: custom-value",
    ];
    let entries = [
        "custom-key: custom-value",
        "cache-control: no-cache",
        get[3],
    ];
    for blocks in [
        [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ],
        [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ],
    ] {
        let mut decoder = Decoder::new(4096);
        let fields = [&get[..], &again, &other];
        for (number, block) in blocks.iter().enumerate() {
            assert_eq!(lines(&mut decoder, &hex(block)).unwrap(), fields[number]);
            assert_eq!(table(&mut decoder), entries[2 - number..]);
        }
    }
}

#[test]
fn responses_of_appendix_c_5_and_6() {
    let found = [
        ":status: 302",
        "cache-control: private",
        "date: Mon, 21 Oct 2013 20:13:21 GMT",
        "location: https://www.example.com",
    ];
    let redirect = [":status: 307", found[1], found[2], found[3]];
    let done = [
        ":status: 200",
        found[1],
        "date: Mon, 21 Oct 2013 20:13:22 GMT",
        found[3],
        "content-encoding: gzip",
        "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
    ];
    let tables: [&[&str]; 3] = [
        &[found[3], found[2], found[1], found[0]],
        &[redirect[0], found[3], found[2], found[1]],
        &[done[5], done[4], done[2]],
    ];
    for blocks in [
        [
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032
             303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63
             6f6d",
            "4803 3330 37c1 c0bf",
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0
             5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851
             5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
        ],
        [
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b
             ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad
             94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160
             65c0 03ed 4ee5 b106 3d50 07",
        ],
    ] {
        let mut decoder = Decoder::new(256);
        let fields: [&[&str]; 3] = [&found, &redirect, &done];
        for (number, block) in blocks.iter().enumerate() {
            assert_eq!(lines(&mut decoder, &hex(block)).unwrap(), fields[number]);
            assert_eq!(table(&mut decoder), tables[number]);
        }
    }
}

/// Section C.1 has 10 and 1337 in five bits, and 42 in eight. Here they are limits and lengths.
#[test]
fn integers_of_appendix_c_1() {
    assert_eq!(integer(0x20, 0x1f, 10), hex("2a"));
    assert_eq!(integer(0x20, 0x1f, 1337), hex("3f 9a 0a"));
    for limit in [10, 1337] {
        assert_eq!(
            decode(&mut Decoder::new(limit), &integer(0x20, 0x1f, limit)),
            Ok(vec![])
        );
        assert!(decode(&mut Decoder::new(limit - 1), &integer(0x20, 0x1f, limit)).is_err());
        let mut encoder = Encoder::new();
        encoder.resize(u32::try_from(limit).unwrap());
        let mut out = Vec::new();
        encoder.begin(&mut out);
        assert_eq!(out, integer(0x20, 0x1f, limit));
    }
    for len in [
        42, 126, 127, 128, 254, 255, 256, 16_383, 16_510, 16_511, 16_512,
    ] {
        let value = vec![b'v'; len];
        let block = [hex("00 01 61"), string(&value, false)].concat();
        let fields = vec![(b"a".to_vec(), value, false)];
        assert_eq!(decode(&mut Decoder::new(4096), &block), Ok(fields));
    }
}
