//! Tests of the decoder, and what all tests share.

use std::collections::VecDeque;

use proptest::collection::vec;
use proptest::prelude::*;

use super::Decoder;
use super::decode::Invalid;
use super::tables::{CODE_LENGTHS, STATIC, STATIC_LEN, SYMBOLS};

mod appendix_c;
mod encoding;
mod huffman;

type Field = (Vec<u8>, Vec<u8>, bool);

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|digit| !digit.is_whitespace())
        .map(|digit| u8::try_from(digit.to_digit(16).unwrap()).unwrap())
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<Field>, Invalid> {
    let mut fields = Vec::new();
    decoder.decode(block, &mut |name, value, sensitive| {
        fields.push((name.to_vec(), value.to_vec(), sensitive));
    })?;
    Ok(fields)
}

/// `name: value` lines, with `!` in front of the sensitive ones.
fn lines(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, Invalid> {
    let text = |octets| String::from_utf8(octets).unwrap();
    let line = |(name, value, sensitive)| {
        format!(
            "{}{}: {}",
            if sensitive { "!" } else { "" },
            text(name),
            text(value)
        )
    };
    Ok(decode(decoder, block)?.into_iter().map(line).collect())
}

/// The dynamic table, by what the indexes after the static table give.
fn table(decoder: &mut Decoder) -> Vec<String> {
    let block = |index: usize| integer(0x80, 0x7f, index);
    (STATIC_LEN + 1..)
        .map_while(|index| Some(lines(decoder, &block(index)).ok()?.remove(0)))
        .collect()
}

fn integer(first: u8, full: u8, number: usize) -> Vec<u8> {
    if number < usize::from(full) {
        return vec![first | u8::try_from(number).unwrap()];
    }
    let mut out = vec![first | full];
    let mut rest = number - usize::from(full);
    while rest >= 128 {
        out.push(u8::try_from(rest % 128).unwrap() | 0x80);
        rest /= 128;
    }
    out.push(u8::try_from(rest).unwrap());
    out
}

fn codes() -> Vec<(u32, u8)> {
    let mut order: Vec<usize> = (0..SYMBOLS).collect();
    order.sort_by_key(|&symbol| CODE_LENGTHS[symbol]);
    let mut codes = vec![(0, 0); SYMBOLS];
    let (mut next, mut length) = (0_u32, 0);
    for symbol in order {
        next <<= CODE_LENGTHS[symbol] - length;
        length = CODE_LENGTHS[symbol];
        codes[symbol] = (next, length);
        next += 1;
    }
    codes
}

/// The Huffman code of some symbols, as bits.
fn bits(symbols: impl IntoIterator<Item = usize>) -> Vec<bool> {
    let codes = codes();
    let bits = symbols.into_iter().flat_map(|symbol| {
        let (code, length) = codes[symbol];
        (0..length).rev().map(move |bit| code >> bit & 1 == 1)
    });
    bits.collect()
}

/// Bits as octets, padded with ones.
fn pack(mut bits: Vec<bool>) -> Vec<u8> {
    bits.resize(bits.len().next_multiple_of(8), true);
    let octet = |bits: &[bool]| {
        bits.iter()
            .fold(0, |octet, &bit| octet << 1 | u8::from(bit))
    };
    bits.chunks(8).map(octet).collect()
}

fn huffman(octets: &[u8]) -> Vec<u8> {
    pack(bits(octets.iter().map(|&octet| usize::from(octet))))
}

fn string(octets: &[u8], coded: bool) -> Vec<u8> {
    let octets = if coded {
        huffman(octets)
    } else {
        octets.to_vec()
    };
    [integer(u8::from(coded) << 7, 0x7f, octets.len()), octets].concat()
}

#[test]
fn blocks_that_are_invalid() {
    for (block, why) in [
        ("80", "index 0"),
        (
            "be",
            "index after the static table, nothing in the dynamic one",
        ),
        ("7e 01 61", "name index after the static table"),
        (
            "0f 2f 01 61",
            "name index after the static table, not inserted",
        ),
        (
            "1f 2f 01 61",
            "name index after the static table, never indexed",
        ),
        ("ff 80 80 80 80 80 00", "six octets of continuation"),
        ("ff ff ff ff ff ff", "an integer without end"),
        ("ff ff ff ff ff 0f", "an integer above 2^31"),
        ("ff 82 ff ff ff 07", "2^31 + 1, which is no index either"),
        ("ff", "an integer cut off"),
        ("ff 80", "an integer cut off later"),
        ("40", "a name missing"),
        ("40 01", "a name cut off"),
        ("40 01 61", "a value missing"),
        ("40 01 61 02 61", "a value cut off"),
        ("40 01 61 82 61", "a coded value cut off"),
        ("00 7f 80 80 80 80 08 61", "a name of 2^31 octets"),
        ("41 7f ff ff ff ff 0f 61", "a length above 2^31"),
        ("41 81 00", "padding of zeros"),
        ("41 82 1f ff", "padding of more than seven bits"),
        ("41 84 ff ff ff ff", "EOS"),
        ("41 85 1f ff ff ff ff", "EOS after a code"),
        ("40 81 00 01 61", "padding in a name"),
        ("82 20", "a size update after a field"),
        ("20 20 20", "three size updates"),
        ("20 20 82 20", "a size update after others and a field"),
        ("3f e2 1f", "a size update above the limit"),
        ("20 3f e2 1f", "a second size update above the limit"),
        ("3f ff ff ff ff ff", "a size update without end"),
        ("3f", "a size update cut off"),
    ] {
        assert_eq!(
            decode(&mut Decoder::new(4096), &hex(block)),
            Err(Invalid),
            "{why}"
        );
    }
    for block in [
        "",
        "82",
        "20",
        "20 3f e1 1f",
        "3f e1 1f 82",
        "ff 80 80 80 80 80",
        "bd",
    ] {
        let wanted = block != "ff 80 80 80 80 80";
        assert_eq!(
            decode(&mut Decoder::new(4096), &hex(block)).is_ok(),
            wanted,
            "{block}"
        );
    }
}

#[test]
fn an_entry_larger_than_the_table_empties_it() {
    let mut decoder = Decoder::new(100);
    let entry = |len| [hex("40 01 61"), string(&vec![b'b'; len], false)].concat();
    assert_eq!(decode(&mut decoder, &entry(67)).unwrap().len(), 1);
    assert_eq!(table(&mut decoder).len(), 1);
    assert_eq!(decode(&mut decoder, &entry(68)).unwrap().len(), 1);
    assert!(table(&mut decoder).is_empty());
}

#[test]
fn a_name_may_be_that_of_the_entry_it_evicts() {
    let mut decoder = Decoder::new(40);
    lines(&mut decoder, &hex("40 02 6162 01 63")).unwrap();
    for _ in 0..200 {
        assert_eq!(lines(&mut decoder, &hex("7e 02 6465")).unwrap(), ["ab: de"]);
        assert_eq!(table(&mut decoder), ["ab: de"]);
    }
    // It is too large, and empties the table.
    assert_eq!(
        lines(&mut decoder, &hex("7e 07 64656465646564")).unwrap(),
        ["ab: dededed"]
    );
    assert!(table(&mut decoder).is_empty());
}

#[test]
fn nothing_is_allocated_before_it_is_needed() {
    let mut decoder = Decoder::new(4096);
    lines(&mut decoder, &hex("82 86 84 01 01 61")).unwrap();
    assert_eq!(decoder.memory(), 0);
    lines(
        &mut decoder,
        &hex("41 01 61 42 8c f1 e3c2 e5f2 3a6b a0ab 90f4 ff"),
    )
    .unwrap();
    assert!(decoder.memory() > 0);
    // A long string does not keep its memory, nor do the entries that are evicted.
    let long = [hex("00 01 61"), string(&vec![b'a'; 100_000], true)].concat();
    decode(&mut decoder, &long).unwrap();
    assert!(decoder.memory() < MEMORY);
    lines(&mut decoder, &hex("20 3f e1 1f")).unwrap();
    assert!(table(&mut decoder).is_empty());
}

/// Twice the octets of the table, the places of its entries, and the scratch.
const MEMORY: usize = 2 * 4096 + 128 * 16 + 4096;

/// One representation, with the indexes not yet reduced to those that exist.
#[derive(Clone, Debug)]
enum Step {
    Indexed(usize),
    Literal {
        kind: u8,
        index: usize,
        name: Vec<u8>,
        value: Vec<u8>,
        coded: bool,
    },
    Resize(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let text = || prop_oneof![vec(b'a'..=b'c', 0..4), vec(any::<u8>(), 0..60)];
    prop_oneof![
        any::<usize>().prop_map(Step::Indexed),
        (0..4_u8, any::<usize>(), text(), text(), any::<bool>()).prop_map(
            |(kind, index, name, value, coded)| Step::Literal {
                kind,
                index,
                name,
                value,
                coded
            }
        ),
        (0..=300_usize).prop_map(Step::Resize),
    ]
}

/// The dynamic table in the plainest way.
#[derive(Default)]
struct Model {
    entries: VecDeque<(Vec<u8>, Vec<u8>)>,
    limit: usize,
}

impl Model {
    fn get(&self, index: usize) -> (Vec<u8>, Vec<u8>) {
        match index.checked_sub(STATIC_LEN + 1) {
            Some(at) => self.entries[at].clone(),
            None => (STATIC[index - 1].0.to_vec(), STATIC[index - 1].1.to_vec()),
        }
    }

    fn evict(&mut self) {
        let size = |(name, value): &(Vec<u8>, Vec<u8>)| name.len() + value.len() + 32;
        while self.entries.iter().map(size).sum::<usize>() > self.limit {
            self.entries.pop_back();
        }
    }
}

proptest! {
    #[test]
    fn the_decoder_and_the_model_agree(steps in vec(step(), 1..200)) {
        let mut decoder = Decoder::new(300);
        let mut model = Model { limit: 300, ..Model::default() };
        for step in steps {
            let all = STATIC_LEN + model.entries.len();
            let (block, wanted) = match step {
                Step::Indexed(index) => {
                    let index = index % all + 1;
                    let (name, value) = model.get(index);
                    (integer(0x80, 0x7f, index), vec![(name, value, false)])
                }
                Step::Resize(limit) => {
                    model.limit = limit;
                    model.evict();
                    (integer(0x20, 0x1f, limit), vec![])
                }
                Step::Literal { kind, index, name, value, coded } => {
                    // Half of the names are those of entries, mostly dynamic ones.
                    let index = if index % 2 == 0 { 0 } else { all - index / 2 % all.min(9) };
                    let kinds = [(0x40, 0x3f), (0, 0xf), (0x10, 0xf), (0x40, 0x3f)];
                    let (first, full) = kinds[usize::from(kind)];
                    let mut block = integer(first, full, index);
                    let name = if index == 0 {
                        block.extend(string(&name, coded));
                        name
                    } else {
                        model.get(index).0
                    };
                    block.extend(string(&value, coded));
                    if first == 0x40 {
                        model.entries.push_front((name.clone(), value.clone()));
                        model.evict();
                    }
                    (block, vec![(name, value, first == 0x10)])
                }
            };
            prop_assert_eq!(decode(&mut decoder, &block), Ok(wanted));
            let beyond = STATIC_LEN + model.entries.len() + 1;
            prop_assert!(decode(&mut decoder, &integer(0x80, 0x7f, beyond)).is_err());
        }
    }

    #[test]
    fn any_octets_do_no_harm(
        blocks in vec(vec(any::<u8>(), 0..400), 1..20),
        bits in vec(0..8_u8, 400),
    ) {
        let mut decoder = Decoder::new(4096);
        for mut block in blocks {
            let _ = decode(&mut decoder, &block);
            // Small numbers go further.
            for (octet, bits) in block.iter_mut().zip(&bits) {
                *octet >>= bits;
            }
            let _ = decode(&mut decoder, &block);
            prop_assert!(decoder.memory() <= MEMORY);
        }
    }
}
