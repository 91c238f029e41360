//! The decoder of the Huffman code (RFC 7541, section 5.2 and Appendix B).

use super::decode::Invalid;
use super::tables::{CODE_LENGTHS, SYMBOLS};

/// Bits looked up at a time. Two short codes are found at once.
const WINDOW: u32 = 12;
/// The number of windows.
const WINDOWS: usize = 1 << WINDOW;
/// The longest code, in bits.
const LONGEST: u32 = 30;
/// The lengths there can be, from 0 on.
const LENGTHS: usize = LONGEST as usize + 1;
/// The first allocation, in octets.
const FIRST: usize = 512;
/// The symbol that must not occur.
const EOS: u16 = 256;

/// What a window begins with: one or two symbols, then the number of bits of their codes, and the
/// number of bits of the symbols (8 or 16). Nothing but zeros if it is a code longer than a window.
type Found = [u8; 4];

/// The codes of one length.
#[derive(Clone, Copy, Debug)]
struct Codes {
    /// The end of the codes of at most this length, as the leading bits of 32.
    end: u64,
    /// The first code of this length, as the leading bits of 32.
    begin: u32,
    /// Where the symbols of this length begin.
    at: u16,
}

/// The symbols in the order of their codes, and the codes of each length.
struct Canon {
    symbols: [u16; SYMBOLS],
    codes: [Codes; LENGTHS],
}

static CANON: Canon = CANONICAL;
/// The codes longer than a window.
static LONG: &[Codes] = CANON.codes.split_at(WINDOW as usize + 1).1;
static FOUND: [Found; WINDOWS] = windows();

const CANONICAL: Canon = canonical();

#[expect(clippy::indexing_slicing, reason = "runs at compile time only")]
const fn canonical() -> Canon {
    let mut symbols = [0; SYMBOLS];
    let mut codes = [Codes {
        end: 0,
        begin: 0,
        at: 0,
    }; LENGTHS];
    let mut next: u64 = 0;
    let mut at: u16 = 0;
    let mut length: usize = 1;
    while length < LENGTHS {
        let step = 1 << (32 - length);
        codes[length].begin = low(next);
        codes[length].at = at;
        let mut symbol: u16 = 0;
        while (symbol as usize) < SYMBOLS {
            if CODE_LENGTHS[symbol as usize] as usize == length {
                symbols[at as usize] = symbol;
                at += 1;
                next += step;
            }
            symbol += 1;
        }
        codes[length].end = next;
        length += 1;
    }
    assert!(
        next == 1 << 32 && at as usize == SYMBOLS,
        "the code is complete"
    );
    Canon { symbols, codes }
}

/// The low half. The beginning of the lengths that follow the last code would need one bit more,
/// but no such length exists.
const fn low(number: u64) -> u32 {
    (number & 0xffff_ffff) as u32
}

#[expect(clippy::indexing_slicing, reason = "runs at compile time only")]
const fn windows() -> [Found; WINDOWS] {
    let mut single = [[0; 4]; WINDOWS];
    let mut at = 0;
    let mut index = 0;
    // Codes in ascending order fill the windows from the beginning.
    while index < SYMBOLS {
        let [symbol, _] = CANONICAL.symbols[index].to_le_bytes();
        let length = CODE_LENGTHS[CANONICAL.symbols[index] as usize];
        if length as u32 > WINDOW {
            break;
        }
        let end = at + (1 << (WINDOW - length as u32));
        while at < end {
            single[at] = [symbol, 0, length, 8];
            at += 1;
        }
        index += 1;
    }
    let mut both = single;
    let mut window = 0;
    while window < WINDOWS {
        let [first, _, length, _] = single[window];
        let [second, _, more, _] = single[(window << length) & (WINDOWS - 1)];
        if length != 0 && more != 0 && (length + more) as u32 <= WINDOW {
            both[window] = [first, second, length + more, 16];
        }
        window += 1;
    }
    both
}

/// The code the bits begin with, if it is longer than a window: the symbol and the length.
#[cold]
fn long(bits: u64) -> (u16, u32) {
    let leading = bits >> 32;
    let mut length = WINDOW;
    for codes in LONG {
        length += 1;
        if leading < codes.end {
            let above = (leading - u64::from(codes.begin)) >> (32 - length);
            let index = usize::from(codes.at) + usize::try_from(above).unwrap_or(SYMBOLS);
            return (CANON.symbols.get(index).copied().unwrap_or(EOS), length);
        }
    }
    (EOS, LONGEST)
}

/// Decodes `input` into `out` from the octet `at` on, and returns the end. `out` grows if need be;
/// what is behind the end has no meaning.
pub(super) fn decode(mut input: &[u8], out: &mut Vec<u8>, at: usize) -> Result<usize, Invalid> {
    // No code has less than five bits. Eight octets are written at a time.
    let room = at + input.len() / 5 * 8 + 16;
    if out.len() < room {
        out.resize(room.max(FIRST), 0);
    }
    let out = out.as_mut_slice();
    let mut at = at;
    // The bits not yet decoded are the leading `count` bits.
    let mut bits: u64 = 0;
    let mut count: u32 = 0;
    while let Some((next, rest)) = input.split_first_chunk::<4>() {
        input = rest;
        bits |= u64::from(u32::from_be_bytes(*next)) << (32 - count);
        count += 32;
        // Any code has at most 30 bits. At most 43 bits are taken: eight symbols.
        let mut symbols: u64 = 0;
        let mut filled: u32 = 0;
        while count >= 32 {
            let [first, second, length, size] = window(bits);
            if length == 0 {
                let (symbol, length) = long(bits);
                symbols |= u64::from(u8::try_from(symbol).map_err(|_| Invalid)?) << filled;
                filled += 8;
                bits <<= length;
                count -= length;
            } else {
                symbols |= u64::from(u16::from_le_bytes([first, second])) << filled;
                filled += u32::from(size);
                bits <<= length;
                count -= u32::from(length);
            }
        }
        *chunk(out, at)? = symbols.to_le_bytes();
        at += filled as usize / 8;
    }
    for &next in input {
        bits |= u64::from(next) << (56 - count);
        count += 8;
    }
    // Ones after the end are the beginning of EOS, as the padding is: less than an octet, no code.
    bits |= u64::MAX >> count;
    while count >= 8 || bits >> 56 != 0xff {
        let [first, second, mut length, mut size] = window(bits);
        if length == 0 {
            let (symbol, length) = long(bits);
            if length > count {
                return Err(Invalid);
            }
            *chunk(out, at)? = [u8::try_from(symbol).map_err(|_| Invalid)?];
            at += 1;
            bits <<= length;
            count -= length;
            continue;
        }
        if u32::from(length) > count {
            // The second code is not there, nor is the first one perhaps.
            length = CODE_LENGTHS
                .get(usize::from(first))
                .copied()
                .unwrap_or(u8::MAX);
            size = 8;
            if u32::from(length) > count {
                return Err(Invalid);
            }
        }
        *chunk(out, at)? = [first, second];
        at += usize::from(size / 8);
        bits <<= length;
        count -= u32::from(length);
    }
    Ok(at)
}

/// What the bits begin with.
#[inline]
fn window(bits: u64) -> Found {
    let window = usize::try_from(bits >> (64 - WINDOW)).unwrap_or(WINDOWS);
    FOUND.get(window).copied().unwrap_or_default()
}

#[inline]
fn chunk<const SIZE: usize>(out: &mut [u8], at: usize) -> Result<&mut [u8; SIZE], Invalid> {
    out.get_mut(at..)
        .and_then(<[u8]>::first_chunk_mut)
        .ok_or(Invalid)
}
