//! Which changelog partition a key belongs to. The same as Kafka's Java client would choose, so that other programs can write
//! and read our topics partition by partition.

/// The partition of a key among `partitions`: murmur2, made positive, modulo the count (Kafka's `BuiltInPartitioner`).
pub fn partition(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// 32-bit MurmurHash2 with the seed of Kafka's `Utils.murmur2`.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    // Kafka takes the length as a Java int: it wraps like this.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "keys are shorter than 2 GiB; Java wraps in the same way"
    )]
    let mut hash = SEED ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (at, &byte) in rest.iter().enumerate() {
            hash ^= u32::from(byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn hashes_as_kafka_does() {
        let check =
            |key: &str, hash: i32| assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        check("21", -973_932_308);
        check("foobar", -790_332_482);
        check("a-little-bit-long-string", -985_981_536);
        check("a-little-bit-longer-string", -1_486_304_829);
        check(
            "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
            -58_897_971,
        );
        check("abc", 479_470_107);
    }

    /// Kafka's `toPositive(murmur2(key)) % partitions`. Only where their number is no power of two does the sign tell.
    #[test]
    fn keys_stand_where_kafkas_clients_look_for_them() {
        let check = |key: &str, expected: [u32; 3]| {
            let found = [1, 3, 7].map(|partitions| partition(key.as_bytes(), partitions));
            assert_eq!(found, expected, "{key}");
        };
        // Negative, negative, positive: see above.
        check("21", [0, 0, 3]);
        check("foobar", [0, 0, 0]);
        check("abc", [0, 0, 4]);
    }
}
