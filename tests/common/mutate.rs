//! Seeded mutations of bytes: what a fuzzer does, without the feedback, on any compiler.

/// A small generator of random numbers (splitmix64): the same seed, the same numbers.
pub struct Random(u64);

impl Random {
    /// Numbers from `seed`.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `limit`; 0 if that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.any() % limit.max(1) as u64) as usize
    }
}

/// Values at which arithmetic tends to break.
const EDGES: [u64; 14] = [
    0,
    1,
    7,
    8,
    63,
    64,
    0x7F,
    0xFFFF,
    0x4000,
    0x1_0000,
    0x7FFF_FFFF,
    0xFFFF_FFFF,
    i64::MAX as u64,
    u64::MAX,
];

/// `seed` changed in one to eight places, now and then with a piece of `other`.
pub fn mutated(seed: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..1 + random.below(8) {
        mutate(&mut bytes, other, random);
    }
    bytes
}

fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(bytes.len());
    let choice = random.below(12);
    if bytes.is_empty() {
        bytes.extend_from_slice(&other[..random.below(other.len() + 1)]);
        return;
    }
    match choice {
        0..=2 => bytes[at] ^= 1 << random.below(8),
        3 | 4 => bytes[at] = random.any() as u8,
        5 | 6 => {
            // A field of 2, 4 or 8 bytes at its natural alignment.
            let width = 2 << random.below(3);
            let at = at & !(width - 1);
            let edge = EDGES[random.below(EDGES.len())];
            let value = if random.below(2) == 0 {
                edge
            } else {
                edge.wrapping_neg()
            };
            let room = width.min(bytes.len() - at);
            bytes[at..at + room].copy_from_slice(&value.to_le_bytes()[..room]);
        }
        7 => bytes.truncate(at),
        8 => {
            let len = random.below(64);
            bytes.splice(at..at, std::iter::repeat_n(random.any() as u8, len));
        }
        9 => {
            // A piece of the same bytes, elsewhere: fields, elements or records exchanged.
            let len = (1usize << random.below(9)).min(bytes.len());
            let from = random.below(bytes.len() - len + 1) & !7;
            let to = random.below(bytes.len() - len + 1) & !7;
            bytes.copy_within(from..from + len, to);
        }
        10 => {
            let len = random.below(other.len() + 1).min(256);
            let from = random.below(other.len() - len + 1);
            let end = (at + len).min(bytes.len());
            bytes.splice(at..end, other[from..from + len].iter().copied());
        }
        _ => {
            let end = (at + random.below(64)).min(bytes.len());
            bytes.drain(at..end);
        }
    }
}
