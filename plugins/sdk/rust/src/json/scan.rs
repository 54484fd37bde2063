//! Sixteen bytes at a time. Under a deadline every turn of a loop in a guest costs a check, so the
//! loops over text take wide steps, and short strings take none. Safe code throughout: the vectors
//! are made of integers, and the compiler turns that back into loads.

/// Bytes looked at in one step.
pub const STEP: usize = 16;

/// Bit `i` is set where byte `i` can't stand in a JSON string as it is: `"`, `\` or a control
/// character.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[allow(clippy::cast_possible_truncation, reason = "the halves are meant")]
#[inline(always)]
pub fn special(chunk: &[u8; STEP]) -> u32 {
    use core::arch::wasm32::{u8x16_bitmask, u8x16_eq, u8x16_lt, u8x16_splat, u64x2, v128_or};
    let wide = u128::from_le_bytes(*chunk);
    let bytes = u64x2(wide as u64, (wide >> 64) as u64);
    let quote = u8x16_eq(bytes, u8x16_splat(b'"'));
    let backslash = u8x16_eq(bytes, u8x16_splat(b'\\'));
    let control = u8x16_lt(bytes, u8x16_splat(b' '));
    u32::from(u8x16_bitmask(v128_or(v128_or(quote, backslash), control)))
}

/// Bit `i` is set where byte `i` can't stand in a JSON string as it is: `"`, `\` or a control
/// character.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
#[inline(always)]
pub fn special(chunk: &[u8; STEP]) -> u32 {
    let mut mask = 0;
    for (bit, byte) in chunk.iter().enumerate() {
        mask |= u32::from(matches!(byte, b'"' | b'\\' | 0..b' ')) << bit;
    }
    mask
}

/// The first index from `at` on where `bytes` has a special byte, or the length of `bytes`.
pub fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let mask = special(chunk);
        if mask != 0 {
            return at + mask.trailing_zeros() as usize;
        }
        at += STEP;
    }
    let Some(rest) = bytes.get(at..) else {
        return bytes.len();
    };
    let mask = special(&gather(rest)) & ((1 << rest.len()) - 1);
    if mask == 0 {
        bytes.len()
    } else {
        at + mask.trailing_zeros() as usize
    }
}

/// Appends `text` (fewer than 16 bytes or many) without a call into the memory-copy routine for the
/// short strings that records are made of.
#[inline(always)]
pub fn append(out: &mut Vec<u8>, text: &[u8]) {
    if text.len() < STEP {
        append_chunk(out, &gather(text), text.len());
    } else {
        out.extend_from_slice(text);
    }
}

/// Appends the first `length` bytes of `chunk`.
#[inline(always)]
pub fn append_chunk(out: &mut Vec<u8>, chunk: &[u8; STEP], length: usize) {
    let end = out.len() + length;
    out.extend_from_slice(chunk);
    out.truncate(end);
}

/// Fewer than 16 bytes, filled up with zeros. No loop: the pieces overlap in the middle.
#[inline(always)]
pub fn gather(text: &[u8]) -> [u8; STEP] {
    let length = text.len();
    debug_assert!(length < STEP);
    let (mut low, mut high) = (0u64, 0u64);
    if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
        low = u64::from_le_bytes(*first);
        high = u64::from_le_bytes(*last)
            .checked_shr(bits(STEP - length))
            .unwrap_or(0);
    } else if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
        let last = u64::from(u32::from_le_bytes(*last));
        low = u64::from(u32::from_le_bytes(*first)) | last << bits(length - 4);
    } else if let (Some(first), Some(last)) = (text.first(), text.last()) {
        let middle = u64::from(text[length / 2]) << bits(length / 2);
        low = u64::from(*first) | middle | u64::from(*last) << bits(length - 1);
    }
    let mut chunk = [0; STEP];
    chunk[..8].copy_from_slice(&low.to_le_bytes());
    chunk[8..].copy_from_slice(&high.to_le_bytes());
    chunk
}

/// Eight ASCII digits as a number.
#[inline(always)]
pub fn eight_digits(chunk: &[u8; 8]) -> Option<u64> {
    let word = u64::from_le_bytes(*chunk);
    let digits = word ^ 0x3030_3030_3030_3030;
    // A digit is 0..=9 now: adding 0x76 sets the high bit of anything above.
    if (digits | digits.wrapping_add(0x7676_7676_7676_7676)) & 0x8080_8080_8080_8080 != 0 {
        return None;
    }
    // Neighbours are joined in pairs, then in fours, then in eights; the first digit is lowest.
    let pairs = (digits * 10 + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    Some((fours * 10_000 + (fours >> 32)) & 0xffff_ffff)
}

/// Bits in so many bytes, of which there are at most 16.
#[allow(clippy::cast_possible_truncation, reason = "at most 16")]
fn bits(bytes: usize) -> u32 {
    8 * bytes as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathers_every_short_length() {
        let text = b"abcdefghijklmno";
        for length in 0..STEP {
            let mut expected = [0; STEP];
            expected[..length].copy_from_slice(&text[..length]);
            assert_eq!(gather(&text[..length]), expected, "{length} bytes");
        }
    }

    #[test]
    fn finds_special_bytes_anywhere() {
        for length in 0..50 {
            let mut text = vec![b'x'; length];
            assert_eq!(plain_end(&text, 0), length);
            for at in 0..length {
                for special in [b'"', b'\\', 0, 31] {
                    text[at] = special;
                    assert_eq!(plain_end(&text, 0), at);
                    assert_eq!(plain_end(&text, at + 1), length);
                    text[at] = b'x';
                }
            }
        }
    }

    #[test]
    fn reads_eight_digits() {
        for number in [0, 1, 12_345_678, 99_999_999, 10_000_000, 90_909_090] {
            let text = format!("{number:08}");
            assert_eq!(
                eight_digits(text.as_bytes().first_chunk().unwrap()),
                Some(number)
            );
        }
        for text in [
            b"1234567x",
            b"/2345678",
            b"1234:678",
            b"12345678".map(|b| b | 0x80).as_ref().try_into().unwrap(),
        ] {
            assert_eq!(eight_digits(text), None);
        }
    }
}
