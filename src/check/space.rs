//! Space: every reference counted against its big-block, and no two different extents on the same
//! bytes (format.md §21 rule 5).
//!
//! Memory: about 64 bytes a used big-block, and a map of the extents in each. Zone 8 and zone 10
//! hold objects at multiples of 4 KiB and 16 KiB: their maps are bits, 512 and 128 bytes a
//! big-block. Zones 9 and 11 hold objects at multiples of 16 bytes: their maps are lists of four
//! bytes an extent that turn into bits (128 KiB) once a list would be longer than that. So the sum
//! is at most 1/64 of the space in use in zones 9 and 11, and far less where files are not tiny.

use super::sink::Sink;
use crate::format::freemap::Layer2;
use crate::format::{BIGBLOCK, Fault, Offset, Rule, Zone, align16};
use std::collections::HashSet;

/// Extents of one list before it becomes bits: as many as take the same memory.
const LIST_MAX: usize = 32768;

/// What happens to an extent that is put on a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Put {
    /// Nothing was there.
    Fresh,
    /// Exactly this extent was there.
    Same,
    /// Something else was there.
    Overlap,
}

/// Used units of a big-block, and which of them start an extent.
struct Bits {
    used: Box<[u64]>,
    start: Box<[u64]>,
}

impl Bits {
    fn new(units: usize) -> Bits {
        let words = units.div_ceil(64);
        Bits {
            used: vec![0; words].into(),
            start: vec![0; words].into(),
        }
    }

    fn bit(words: &[u64], at: usize) -> bool {
        words.get(at / 64).is_some_and(|w| w >> (at % 64) & 1 != 0)
    }

    fn put(&mut self, first: usize, units: usize) -> Put {
        let end = first + units;
        if !(first..end).any(|u| Bits::bit(&self.used, u)) {
            for unit in first..end {
                if let Some(word) = self.used.get_mut(unit / 64) {
                    *word |= 1 << (unit % 64);
                }
            }
            if let Some(word) = self.start.get_mut(first / 64) {
                *word |= 1 << (first % 64);
            }
            return Put::Fresh;
        }
        let same = (first..end).all(|u| Bits::bit(&self.used, u))
            && Bits::bit(&self.start, first)
            && !(first + 1..end).any(|u| Bits::bit(&self.start, u))
            && (!Bits::bit(&self.used, end) || Bits::bit(&self.start, end));
        if same { Put::Same } else { Put::Overlap }
    }
}

/// The extents of one big-block.
enum Map {
    Empty,
    /// Unit number << 11 | number of units.
    List(Vec<u32>),
    Bits(Bits),
}

/// One used big-block.
struct Block {
    /// Low 60 bits of its address / 8 MiB.
    index: u64,
    append: u32,
    free: i32,
    owner: Zone,
    used: i64,
    map: Map,
}

/// log2 of the bytes in a unit of `zone`'s map.
fn unit_shift(zone: Zone) -> u32 {
    match zone {
        Zone::BTREE => 12,
        Zone::LARGE_DATA => 14,
        _ => 4,
    }
}

/// The used big-blocks and what refers to them.
#[derive(Default)]
pub(super) struct Space {
    /// By index, ascending.
    blocks: Vec<Block>,
    /// Position in `blocks` of the last one found.
    last: usize,
    /// Part of the freemap could not be read: a big-block that is missing here proves nothing.
    partial: bool,
    /// Nodes outside of zone 8's big-blocks: damage, but the walk must not meet them twice.
    strays: HashSet<u64>,
}

impl Space {
    /// Takes note of the big-block at `at`; to be called in ascending order of addresses.
    pub fn add_block(&mut self, at: Offset, entry: &Layer2) {
        self.blocks.push(Block {
            index: at.long() / BIGBLOCK,
            append: entry.append_off.get(),
            free: entry.bytes_free.get(),
            owner: entry.owner(),
            used: 0,
            map: Map::Empty,
        });
    }

    /// Takes note that there may be big-blocks that nobody knows of.
    pub fn set_partial(&mut self) {
        self.partial = true;
    }

    /// Bytes that are referred to in zones 8 and 9, and in zones 10 and 11, as far as the freemap
    /// tells.
    pub fn expected_bytes(&self) -> (u64, u64) {
        let mut sums = (0u64, 0u64);
        for block in self.blocks.iter().filter(|b| b.owner.is_data()) {
            let bytes = (BIGBLOCK as i64 - i64::from(block.free))
                .max(0)
                .cast_unsigned();
            let sum = match block.owner {
                Zone::BTREE | Zone::META => &mut sums.0,
                _ => &mut sums.1,
            };
            *sum = sum.saturating_add(bytes);
        }
        sums
    }

    fn find(&mut self, at: Offset) -> Option<&mut Block> {
        let index = at.long() / BIGBLOCK;
        if self.blocks.get(self.last).is_none_or(|b| b.index != index) {
            self.last = self.blocks.binary_search_by_key(&index, |b| b.index).ok()?;
        }
        self.blocks.get_mut(self.last)
    }

    /// Notes the visit of the node at `at`, whose address is sane; `false` if it was visited before.
    pub fn visit(&mut self, at: Offset) -> bool {
        match self.find(at) {
            Some(block) if block.owner == Zone::BTREE => {
                block.put(at, crate::format::NODE_SIZE as u64) == Put::Fresh
            }
            _ => self.strays.insert(at.long()),
        }
    }

    /// Counts one reference to `len` bytes at `at` (zones 8 to 11, aligned, within one big-block):
    /// owner, append point and, for data, overlap. `what` names the referrer.
    pub fn refer(&mut self, at: Offset, len: u64, sink: &mut Sink<'_>, what: &dyn Fn() -> String) {
        let partial = self.partial;
        let Some(block) = self.find(at) else {
            if partial {
                return;
            }
            let fault = Fault::new(Rule::ExtentOwner, at, at.zone(), "a big-block not in use");
            sink.error(fault, what());
            return;
        };
        if block.owner != at.zone() {
            let fault = Fault::new(Rule::ExtentOwner, at, at.zone(), block.owner);
            sink.error(fault, what());
            return;
        }
        let end = at.in_bigblock() + len;
        if end > u64::from(block.append) {
            let expected = format!("an end up to append_off {}", block.append);
            sink.error(Fault::new(Rule::ExtentAppend, at, expected, end), what());
        }
        block.used += align16(len).cast_signed();
        // Nodes are on the map since their visit.
        if block.owner == Zone::BTREE {
            return;
        }
        let shared_ok = matches!(at.zone(), Zone::LARGE_DATA | Zone::SMALL_DATA);
        match block.put(at, len) {
            Put::Fresh => {}
            Put::Same if shared_ok => {}
            Put::Same | Put::Overlap => sink.error(overlap(at, len), what()),
        }
        block.condense(sink);
    }

    /// Compares every big-block's sum, and looks through the maps kept as lists. With `certain`
    /// false (nodes or places were lost) a wrong sum is no proof of anything.
    pub fn finish(&mut self, certain: bool, sink: &mut Sink<'_>) {
        for block in self.blocks.iter_mut().filter(|b| b.owner.is_data()) {
            let at = Offset(block.index * BIGBLOCK).in_zone(block.owner);
            if let Map::List(list) = &mut block.map {
                list.sort_unstable();
                report_overlaps(list, at, sink);
            }
            let free = BIGBLOCK as i64 - block.used;
            if free != i64::from(block.free) {
                let expected = format!("bytes_free {free}");
                let fault = Fault::new(Rule::Layer2Sum, at, expected, block.free);
                if certain {
                    sink.error(fault, "big-block");
                } else {
                    sink.warn(fault, "big-block (perhaps only for want of what is lost)");
                }
            }
        }
    }
}

impl Block {
    /// Puts an extent on the map. Overlaps in a list come to light when the list ends.
    fn put(&mut self, at: Offset, len: u64) -> Put {
        let shift = unit_shift(self.owner);
        let first = (at.in_bigblock() >> shift) as usize;
        let units = (len.div_ceil(1 << shift).max(1)) as usize;
        let total = (BIGBLOCK >> shift) as usize;
        if matches!(self.map, Map::Empty) {
            self.map = match shift {
                4 => Map::List(Vec::new()),
                _ => Map::Bits(Bits::new(total)),
            };
        }
        if let Map::List(list) = &mut self.map {
            // 16 KiB are 1024 units, which eleven bits hold; the unit number has nineteen.
            list.push((first as u32) << 11 | (units as u32).min(2047));
            return Put::Fresh;
        }
        match &mut self.map {
            Map::Bits(bits) => bits.put(first, units),
            _ => Put::Fresh,
        }
    }

    /// Turns a list that has become long into bits.
    fn condense(&mut self, sink: &mut Sink<'_>) {
        let Map::List(list) = &mut self.map else {
            return;
        };
        if list.len() < LIST_MAX {
            return;
        }
        list.sort_unstable();
        let at = Offset(self.index * BIGBLOCK).in_zone(self.owner);
        report_overlaps(list, at, sink);
        let mut bits = Bits::new((BIGBLOCK >> unit_shift(self.owner)) as usize);
        for item in list.iter() {
            bits.put((item >> 11) as usize, (item & 2047) as usize);
        }
        self.map = Map::Bits(bits);
    }
}

fn overlap(at: Offset, len: u64) -> Fault {
    let found = format!("another extent within its {len} bytes");
    Fault::new(Rule::ExtentOverlap, at, "space of its own", found)
}

/// Reports overlaps in a sorted list of extents of the big-block at `at`.
fn report_overlaps(list: &[u32], at: Offset, sink: &mut Sink<'_>) {
    let mut end = 0;
    for (index, item) in list.iter().enumerate() {
        let (first, units) = (item >> 11, item & 2047);
        let same = index > 0 && list[index - 1] == *item && at.zone() != Zone::META;
        if first < end && !same {
            let place = Offset(at.0 + u64::from(first) * 16);
            sink.error(overlap(place, u64::from(units) * 16), "");
        }
        end = end.max(first + units);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::sink::Finding;
    use proptest::prelude::*;
    use zerocopy::little_endian::{I32, U16, U32};

    fn space(zone: Zone, used: i32) -> Space {
        let mut space = Space::default();
        let entry = Layer2 {
            zone: zone.0,
            reserved01: 0,
            reserved02: U16::ZERO,
            append_off: U32::new(BIGBLOCK as u32),
            bytes_free: I32::new(BIGBLOCK as i32 - used),
            entry_crc: U32::ZERO,
        };
        space.add_block(Offset::new(zone, 0, 0), &entry);
        space
    }

    fn rules(zone: Zone, extents: &[(u64, u64)]) -> Vec<Rule> {
        let used: u64 = extents.iter().map(|(_, len)| align16(*len)).sum();
        let mut space = space(zone, used as i32);
        let mut found = Vec::new();
        let mut out = |finding: Finding| found.push(finding.fault.rule);
        let mut sink = Sink::new(&mut out, u64::MAX, None);
        for (at, len) in extents {
            space.refer(Offset::new(zone, 0, *at), *len, &mut sink, &String::new);
        }
        space.finish(true, &mut sink);
        found
    }

    /// Whether two different extents share bytes, by comparing each with each.
    fn clash(extents: &[(u64, u64)]) -> bool {
        extents.iter().enumerate().any(|(i, a)| {
            let rest = &extents[i + 1..];
            rest.iter().any(|b| {
                let (len_a, len_b) = (align16(a.1), align16(b.1));
                (a.0, len_a) != (b.0, len_b) && a.0 < b.0 + len_b && b.0 < a.0 + len_a
            })
        })
    }

    proptest! {
        #[test]
        fn overlaps_as_by_brute_force(
            units in proptest::collection::vec((0u64..40, 1u64..6), 0..6),
            zone in prop_oneof![Just(Zone::SMALL_DATA), Just(Zone::LARGE_DATA)],
        ) {
            let size = 1u64 << unit_shift(zone);
            let extents: Vec<_> = units.iter().map(|(at, len)| (at * size, len * size)).collect();
            let found = rules(zone, &extents);
            prop_assert_eq!(found.contains(&Rule::ExtentOverlap), clash(&extents));
            prop_assert!(!found.contains(&Rule::Layer2Sum));
        }
    }

    #[test]
    fn long_lists_become_bits() {
        let mut extents: Vec<_> = (0..LIST_MAX as u64 + 100).map(|i| (i * 32, 20)).collect();
        assert_eq!(rules(Zone::META, &extents), []);
        extents.push((32, 17));
        assert_eq!(rules(Zone::META, &extents), [Rule::ExtentOverlap]);
        let early: Vec<_> = [(16, 32)].into_iter().chain(extents).collect();
        assert!(rules(Zone::META, &early).contains(&Rule::ExtentOverlap));
    }

    #[test]
    fn sharing_is_for_file_data() {
        assert_eq!(rules(Zone::SMALL_DATA, &[(64, 100), (64, 100)]), []);
        assert_eq!(
            rules(Zone::META, &[(64, 100), (64, 100)]),
            [Rule::ExtentOverlap]
        );
    }

    #[test]
    fn a_node_is_visited_once() {
        let mut space = space(Zone::BTREE, 0);
        let node = Offset::new(Zone::BTREE, 0, 8192);
        assert!(space.visit(node) && !space.visit(node));
        let stray = Offset::new(Zone::BTREE, 0, BIGBLOCK + 4096);
        assert!(space.visit(stray) && !space.visit(stray));
    }
}
