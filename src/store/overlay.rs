//! The old bytes that the UNDO FIFO holds, by the buffer they belong to.
//!
//! Of every byte the *oldest* logged value counts: the first record met going forward wins.

use crate::format::{BUFFER, Offset};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Memory for old bytes, roughly: more than the log of any crash needs (the original starts another
/// checkpoint long before a ring is half full), less than a log made to exhaust memory.
pub(super) const OVERLAY_MAX: usize = 384 << 20;
/// Old bytes by the buffer they belong to.
pub struct Overlay {
    patches: HashMap<u64, Patch>,
    bytes: u64,
    /// Memory that all patches take, roughly, and may take.
    cost: usize,
    cost_max: usize,
}

impl Default for Overlay {
    fn default() -> Overlay {
        Overlay {
            patches: HashMap::new(),
            bytes: 0,
            cost: 0,
            cost_max: OVERLAY_MAX,
        }
    }
}

/// Old bytes of one buffer: pieces by start, none overlapping or touching another; or, once there
/// are many, a whole buffer of which some bytes are known.
enum Patch {
    Pieces(Vec<(u16, Vec<u8>)>),
    Whole {
        bytes: Box<[u8]>,
        /// Which bytes are known.
        known: Box<[bool]>,
    },
}

impl Default for Patch {
    fn default() -> Patch {
        Patch::Pieces(Vec::new())
    }
}

impl Patch {
    /// Pieces from which on a patch is kept as a whole buffer.
    const PIECES_MAX: usize = 32;
    /// Memory that a patch takes beside its pieces, roughly.
    const COST: usize = 96;
    /// Memory that a piece takes beside its bytes, roughly.
    const PIECE_COST: usize = 56;

    /// Adds what of `old` is not known yet. Gives how many bytes that is, and how much memory it
    /// takes, roughly.
    fn add(&mut self, start: usize, old: &[u8]) -> (u64, usize) {
        match self {
            Patch::Pieces(pieces) => {
                let before = pieces.len();
                let added = add_pieces(pieces, start, old);
                let more = pieces.len().saturating_sub(before);
                let mut cost = 2 * added as usize + more * Patch::PIECE_COST;
                if pieces.len() > Patch::PIECES_MAX {
                    self.widen();
                    cost += 2 * BUFFER;
                }
                (added, cost)
            }
            Patch::Whole { bytes, known } => {
                let mut added = 0;
                for (index, byte) in (start..).zip(old) {
                    if let (Some(place), Some(known)) = (bytes.get_mut(index), known.get_mut(index))
                        && !*known
                    {
                        (*place, *known) = (*byte, true);
                        added += 1;
                    }
                }
                (added, 0)
            }
        }
    }

    fn widen(&mut self) {
        let mut bytes = vec![0; BUFFER].into_boxed_slice();
        let mut known = vec![false; BUFFER].into_boxed_slice();
        self.apply(&mut bytes);
        if let Patch::Pieces(pieces) = self {
            for (start, old) in pieces {
                let start = usize::from(*start);
                known[start..start + old.len()].fill(true);
            }
        }
        *self = Patch::Whole { bytes, known };
    }

    fn apply(&self, buffer: &mut [u8]) {
        match self {
            Patch::Pieces(pieces) => {
                for (start, old) in pieces {
                    let start = usize::from(*start);
                    if let Some(place) = buffer.get_mut(start..start + old.len()) {
                        place.copy_from_slice(old);
                    }
                }
            }
            Patch::Whole { bytes, known } => {
                let bytes = bytes.iter().zip(known);
                for (place, (byte, _)) in buffer
                    .iter_mut()
                    .zip(bytes)
                    .filter(|(_, (_, known))| **known)
                {
                    *place = *byte;
                }
            }
        }
    }
}

/// Adds to sorted pieces what of `old` lies in none of them; says how many bytes that is.
fn add_pieces(pieces: &mut Vec<(u16, Vec<u8>)>, start: usize, old: &[u8]) -> u64 {
    let mut added = 0;
    let (mut at, end) = (start, start + old.len());
    while at < end {
        // Pieces that begin at or before `at`, and where the first behind it begins.
        let behind = pieces.partition_point(|(from, _)| usize::from(*from) <= at);
        let next = pieces
            .get(behind)
            .map_or(BUFFER, |(from, _)| usize::from(*from));
        let left = behind
            .checked_sub(1)
            .and_then(|index| pieces.get_mut(index));
        let known = left
            .as_ref()
            .map(|(from, bytes)| usize::from(*from) + bytes.len());
        if let Some(known) = known.filter(|known| *known > at) {
            at = known;
            continue;
        }
        let stop = end.min(next);
        let fresh = &old[at - start..stop - start];
        added += fresh.len() as u64;
        match left {
            Some((_, bytes)) if known == Some(at) => bytes.extend_from_slice(fresh),
            _ => pieces.insert(behind, (at as u16, fresh.to_vec())),
        }
        at = stop;
        join(pieces, at);
    }
    added
}

/// Joins the piece that ends at `at` with one that begins there.
fn join(pieces: &mut Vec<(u16, Vec<u8>)>, at: usize) {
    let right = pieces.partition_point(|(from, _)| usize::from(*from) < at);
    let touches = pieces
        .get(right)
        .is_some_and(|(from, _)| usize::from(*from) == at);
    if right > 0 && touches {
        let (_, bytes) = pieces.remove(right);
        pieces[right - 1].1.extend_from_slice(&bytes);
    }
}

impl Overlay {
    /// Lays the old bytes over the buffer at `at` (zone 1 or 2).
    pub(super) fn apply(&self, at: Offset, buffer: &mut [u8]) {
        if let Some(patch) = self.patches.get(&at.buffer().0) {
            patch.apply(buffer);
        }
    }

    /// Whether there is anything to lay over.
    pub fn is_empty(&self) -> bool {
        self.patches.is_empty()
    }

    /// Buffers with old bytes, and how many bytes.
    pub fn extent(&self) -> (usize, u64) {
        (self.patches.len(), self.bytes)
    }

    /// The buffers with old bytes, by address (zone 1 or 2), in order.
    pub(super) fn buffers(&self) -> Vec<Offset> {
        let mut all: Vec<Offset> = self.patches.keys().copied().map(Offset).collect();
        all.sort_unstable();
        all
    }

    /// Adds old bytes; says whether there was room for them.
    pub(super) fn add(&mut self, at: Offset, old: &[u8]) -> bool {
        let patch = match self.patches.entry(at.buffer().0) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                self.cost += Patch::COST;
                entry.insert(Patch::default())
            }
        };
        let (added, cost) = patch.add(at.in_buffer(), old);
        self.bytes += added;
        self.cost += cost;
        self.cost <= self.cost_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Zone;
    use proptest::prelude::*;

    proptest! {
        /// Laying the oldest value of every byte over a buffer is the same as taking all changes
        /// back, newest first.
        #[test]
        fn oldest_wins(changes in proptest::collection::vec((0usize..2000, 0usize..60, any::<u8>()), 0..90)) {
            let before = vec![7u8; BUFFER];
            let mut now = before.clone();
            let mut overlay = Overlay::default();
            let at = Offset::new(Zone::RAW_BUFFER, 0, 5 * BUFFER as u64);
            for (start, len, value) in changes {
                overlay.add(Offset(at.0 + start as u64), &now[start..start + len]);
                now[start..start + len].fill(value);
            }
            overlay.apply(at, &mut now);
            prop_assert_eq!(now, before);
            let (_, bytes) = overlay.extent();
            prop_assert!(bytes <= 2060);
        }
    }

    /// A log of single bytes far apart takes more memory than room in the log; there is an end.
    #[test]
    fn memory_is_bounded() {
        let mut overlay = Overlay {
            cost_max: 1 << 20,
            ..Overlay::default()
        };
        let place = |n: u64| Offset::new(Zone::RAW_BUFFER, 0, n * BUFFER as u64);
        let fitting = (0..100_000)
            .take_while(|n| overlay.add(place(*n), &[1]))
            .count();
        assert!((2_000..20_000).contains(&fitting), "{fitting}");
        // Every other byte of one buffer costs two buffers and no more.
        let mut overlay = Overlay::default();
        for byte in 0..BUFFER as u64 / 2 {
            overlay.add(Offset(place(1).0 + 2 * byte), &[1]);
        }
        assert!(overlay.cost < 3 * BUFFER, "{}", overlay.cost);
    }
}
