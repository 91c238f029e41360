//! The Huffman code.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::decode::Invalid;
use super::super::huffman as decoder;
use super::{bits, codes, huffman, pack};

fn unpack(coded: &[u8]) -> Result<Vec<u8>, Invalid> {
    let mut out = vec![7; 3];
    let end = decoder::decode(coded, &mut out, 3)?;
    assert_eq!(out[..3], [7; 3]);
    Ok(out[3..end].to_vec())
}

#[test]
fn codes_of_appendix_b() {
    let codes = codes();
    for (symbol, code) in [
        (0, (0x1ff8, 13)),
        (usize::from(b'0'), (0x0, 5)),
        (usize::from(b'a'), (0x3, 5)),
        (usize::from(b'~'), (0x1ffd, 13)),
        (usize::from(b'\\'), (0x7fff0, 19)),
        (199, (0x1ff_ffec, 25)),
        (249, (0xfff_fffe, 28)),
        (22, (0x3fff_fffe, 30)),
        (256, (0x3fff_ffff, 30)),
    ] {
        assert_eq!(codes[symbol], code, "{symbol}");
    }
}

#[test]
fn huffman_of_each_octet() {
    for octet in 0..=255 {
        for len in 0..12 {
            let text = vec![octet; len];
            assert_eq!(unpack(&huffman(&text)), Ok(text.clone()), "{text:?}");
            let text = [&text[..], b"e", &text].concat();
            assert_eq!(unpack(&huffman(&text)), Ok(text.clone()), "{text:?}");
        }
    }
}

#[test]
fn huffman_that_is_invalid() {
    let bits_of = |text: &[u8]| bits(text.iter().map(|&octet| usize::from(octet)));
    for text in [
        &b""[..],
        b"a",
        b"www.example.com",
        b"\x00\xff",
        b"0123456789",
        b"~~~",
    ] {
        let good = huffman(text);
        assert_eq!(unpack(&good).unwrap(), text);
        // One octet of padding more, and EOS at each end.
        assert_eq!(
            unpack(&[&good[..], &[0xff]].concat()),
            Err(Invalid),
            "{text:?}"
        );
        assert_eq!(
            unpack(&[&good[..], &[0xff; 4]].concat()),
            Err(Invalid),
            "{text:?}"
        );
        assert_eq!(
            unpack(&[&good[..], &[0xff; 9]].concat()),
            Err(Invalid),
            "{text:?}"
        );
        let eos = [bits_of(text), bits([256])].concat();
        assert_eq!(unpack(&pack(eos.clone())), Err(Invalid), "{text:?}");
        assert_eq!(
            unpack(&pack([eos, bits_of(b"a")].concat())),
            Err(Invalid),
            "{text:?}"
        );
        assert_eq!(
            unpack(&pack([bits([256]), bits_of(text)].concat())),
            Err(Invalid)
        );
        // Each bit of the padding.
        for bit in bits_of(text).len()..good.len() * 8 {
            let mut bad = bits_of(text);
            bad.resize(good.len() * 8, true);
            bad[bit] = false;
            let bad = pack(bad);
            assert_ne!(unpack(&bad).as_deref(), Ok(text), "{text:?}");
        }
    }
    // Padding of zeros, where those are no code.
    assert_eq!(unpack(&[0b0001_1000]), Err(Invalid));
    assert_eq!(unpack(&[0b0001_1110]), Err(Invalid));
    assert_eq!(unpack(&[0b0001_1111]), Ok(b"a".to_vec()));
}

proptest! {
    #[test]
    fn huffman_round_trip(text in vec(any::<u8>(), 0..300), plain in "[ -~]{0,300}") {
        prop_assert_eq!(unpack(&huffman(&text)), Ok(text));
        prop_assert_eq!(unpack(&huffman(plain.as_bytes())), Ok(plain.into_bytes()));
    }

    /// What the decoder takes is the code of what it gives: nothing is accepted that is not.
    #[test]
    fn huffman_of_any_octets(coded in vec(any::<u8>(), 0..12)) {
        if let Ok(text) = unpack(&coded) {
            prop_assert_eq!(huffman(&text), coded);
        }
    }
}
