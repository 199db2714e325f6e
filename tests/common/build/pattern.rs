//! Bytes that follow from a seed.

/// One step of a generator of well-mixed numbers (splitmix64).
pub fn mix(state: u64) -> u64 {
    let mut x = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Fills `out` with the bytes of object `obj` from file offset `at` (a multiple of 8) on; any
/// division into pieces gives the same bytes.
pub fn fill(seed: u64, obj: i64, at: u64, out: &mut [u8]) {
    let start = mix(seed ^ mix(obj.cast_unsigned()));
    let mut word = at / 8;
    let mut pieces = out.chunks_exact_mut(8);
    let value = |word: u64| {
        let x = word.wrapping_add(start).wrapping_mul(0x9FB2_1C65_1E98_DF25);
        x ^ (x >> 32)
    };
    for piece in &mut pieces {
        piece.copy_from_slice(&value(word).to_le_bytes());
        word += 1;
    }
    let rest = pieces.into_remainder();
    let len = rest.len();
    rest.copy_from_slice(&value(word).to_le_bytes()[..len]);
}

/// The `n`-th id of a seed, a random UUID as stored on disk.
pub fn uuid(seed: u64, n: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&mix(seed ^ mix(2 * n)).to_le_bytes());
    bytes[8..].copy_from_slice(&mix(seed ^ mix(2 * n + 1)).to_le_bytes());
    uuid::Builder::from_random_bytes(bytes)
        .into_uuid()
        .to_bytes_le()
}
