//! Changed metadata buffers of one transaction: what they were, what they are, and which of their
//! bytes need to be logged before the device may see the change.

use crate::format::{BUFFER, CrcKind, NODE_SIZE, Offset, Zone};
use crate::io::{Buf, Bytes};
use rustc_hash::FxHashMap;
use std::ops::Range;
use std::sync::Arc;
use zerocopy::FromBytes;

/// Granularity of what is known of a buffer's bytes.
const GRAIN: usize = 16;
const WORDS: usize = BUFFER / GRAIN / 64;
/// What is written of a changed buffer, in bytes: blocks with changes, each as large as the largest
/// sector there is.
pub(super) const BLOCK: usize = 4096;
/// Bytes of log that a run of old bytes takes beside them, at most: a frame, another where a sector
/// ends, and rounding.
const RUN_COST: usize = 112;
/// Runs of old bytes with fewer equal bytes in between than this are logged as one.
const GAP: usize = 40;

/// A set of grains of a buffer.
#[derive(Clone, Copy, Debug, Default)]
struct Grains([u64; WORDS]);

impl Grains {
    /// Adds the grains that `range` touches; gives how many are new.
    fn add(&mut self, range: &Range<usize>) -> usize {
        let mut new = 0;
        for grain in range.start / GRAIN..range.end.div_ceil(GRAIN) {
            let (word, bit) = (&mut self.0[grain / 64], 1 << (grain % 64));
            new += usize::from(*word & bit == 0);
            *word |= bit;
        }
        new
    }

    fn has(&self, grain: usize) -> bool {
        self.0[grain / 64] >> (grain % 64) & 1 != 0
    }
}

/// A changed buffer.
pub(super) struct Frame {
    /// The zone by which it was first reached.
    pub zone: Zone,
    /// What it is now.
    pub now: Arc<Buf>,
    /// What it was at the last checkpoint; `None` where nothing of it was in use.
    old: Option<Bytes>,
    touched: Grains,
    /// Allocated since the last checkpoint: nobody looks there after a crash.
    fresh: Grains,
    /// Which nodes were touched, a bit each.
    pub nodes: u8,
}

impl Frame {
    /// A buffer that was in use.
    pub fn of(zone: Zone, old: Bytes) -> Frame {
        Frame {
            zone,
            now: Arc::new(Buf::copy_of(&old)),
            old: Some(old),
            touched: Grains::default(),
            fresh: Grains::default(),
            nodes: 0,
        }
    }

    /// A buffer nothing of which was in use.
    pub fn fresh(zone: Zone) -> Frame {
        Frame {
            zone,
            now: Arc::new(Buf::zeroed(BUFFER)),
            old: None,
            touched: Grains::default(),
            fresh: Grains::default(),
            nodes: 0,
        }
    }

    /// Memory that it takes, in bytes.
    fn cost(&self) -> usize {
        BUFFER + self.old.as_ref().map_or(0, |_| BUFFER)
    }

    /// Whether any byte of block `block` (of [`BLOCK`] bytes) was changed.
    pub fn is_changed(&self, block: usize) -> bool {
        let words = WORDS * BLOCK / BUFFER;
        self.touched.0[block * words..(block + 1) * words]
            .iter()
            .any(|word| *word != 0)
    }

    /// Notes that `range` was allocated since the last checkpoint.
    pub fn allocated(&mut self, range: &Range<usize>) {
        self.fresh.add(range);
    }

    /// The bytes in `range`, to be changed, and what logging them costs more than before.
    fn change(&mut self, range: Range<usize>) -> (&mut [u8], usize) {
        let unlogged = self.old.is_some() && !self.is_fresh(&range);
        let new = self.touched.add(&range);
        let mut cost = match unlogged && new > 0 {
            true => RUN_COST + new * GRAIN * 5 / 4,
            false => 0,
        };
        if self.zone == Zone::BTREE {
            for node in range.start / NODE_SIZE..range.end.div_ceil(NODE_SIZE) {
                // Its CRC changes too.
                if self.nodes >> node & 1 == 0 && self.old.is_some() {
                    cost += RUN_COST + GRAIN;
                }
                self.nodes |= 1 << node;
            }
        }
        if Arc::get_mut(&mut self.now).is_none() {
            // Somebody still looks at the bytes as they were.
            self.now = Arc::new(Buf::copy_of(&self.now));
        }
        let bytes = Arc::get_mut(&mut self.now).map(|buf| &mut buf[range]);
        // A buffer that was made just now has one owner.
        (bytes.unwrap_or_default(), cost)
    }

    fn is_fresh(&self, range: &Range<usize>) -> bool {
        (range.start / GRAIN..range.end.div_ceil(GRAIN)).all(|grain| self.fresh.has(grain))
    }

    /// Sets the CRCs of the nodes that were touched.
    pub fn seal(&mut self, kind: CrcKind) {
        let nodes = self.nodes;
        for node in (0..BUFFER / NODE_SIZE).filter(|node| nodes >> node & 1 != 0) {
            let start = node * NODE_SIZE;
            self.change(start..start + GRAIN);
            let Some(buf) = Arc::get_mut(&mut self.now) else {
                continue;
            };
            let Some(bytes) = buf.get_mut(start..start + NODE_SIZE) else {
                continue;
            };
            if let Ok(sum) = crate::format::node::Node::ref_from_bytes(bytes).map(|n| n.sum(kind)) {
                bytes[..4].copy_from_slice(&sum.to_le_bytes());
            }
        }
    }

    /// The runs of bytes that changed and must be logged, with their old values.
    pub fn changes(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let mut from = 0;
        std::iter::from_fn(move || {
            let old = self.old.as_ref()?;
            let run = self.next_run(old, from)?;
            from = run.end;
            Some((run.start, &old[run]))
        })
    }

    fn next_run(&self, old: &[u8], from: usize) -> Option<Range<usize>> {
        let logged = |grain: usize| self.touched.has(grain) && !self.fresh.has(grain);
        let differs = |at: usize| logged(at / GRAIN) && old[at] != self.now[at];
        let start = self.next_where(from, &differs)?;
        let mut end = start + 1;
        while let Some(next) = self.next_where(end, &differs) {
            // What lies between may be fresh: its old value is as good as any.
            if next - end > GAP {
                break;
            }
            end = next + 1;
        }
        Some(start..end)
    }

    /// The first byte at or behind `from` that is `wanted`, passing quickly over untouched grains.
    fn next_where(&self, from: usize, wanted: &impl Fn(usize) -> bool) -> Option<usize> {
        let mut at = from;
        while at < BUFFER {
            let grain = at / GRAIN;
            if grain.is_multiple_of(64)
                && at.is_multiple_of(GRAIN)
                && self.touched.0[grain / 64] == 0
            {
                at += 64 * GRAIN;
            } else if !self.touched.has(grain) || self.fresh.has(grain) {
                at = (grain + 1) * GRAIN;
            } else if wanted(at) {
                return Some(at);
            } else {
                at += 1;
            }
        }
        None
    }
}

/// The changed buffers of a transaction, by zone-2 address.
#[derive(Default)]
pub(super) struct Frames {
    frames: FxHashMap<u64, Frame>,
    /// Memory that they take.
    bytes: usize,
    /// What logging their changes takes at most.
    log_bytes: usize,
}

impl Frames {
    /// Memory that they take, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The most that logging their changes takes, in bytes.
    pub fn log_bytes(&self) -> usize {
        self.log_bytes
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The buffer at the zone-2 address `at`.
    pub fn get(&self, at: Offset) -> Option<&Frame> {
        self.frames.get(&at.0)
    }

    /// Takes a buffer in.
    pub fn insert(&mut self, at: Offset, frame: Frame) {
        self.bytes += frame.cost();
        self.frames.insert(at.0, frame);
    }

    /// The bytes in `range` of the buffer at `at`, to be changed; `None` if it is not here.
    pub fn change(&mut self, at: Offset, range: Range<usize>) -> Option<&mut [u8]> {
        let (bytes, cost) = self.frames.get_mut(&at.0)?.change(range);
        self.log_bytes += cost;
        Some(bytes)
    }

    /// The buffer at `at`, for notes on it.
    pub fn get_mut(&mut self, at: Offset) -> Option<&mut Frame> {
        self.frames.get_mut(&at.0)
    }

    /// The buffers by address.
    pub fn sorted(&self) -> Vec<(Offset, &Frame)> {
        let mut all: Vec<(Offset, &Frame)> = self
            .frames
            .iter()
            .map(|(at, frame)| (Offset(*at), frame))
            .collect();
        all.sort_unstable_by_key(|(at, _)| *at);
        all
    }

    /// All buffers, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Frame> {
        self.frames.values_mut()
    }

    /// Takes all out.
    pub fn take(&mut self) -> Frames {
        std::mem::take(self)
    }

    /// All buffers.
    pub fn into_all(self) -> impl Iterator<Item = (Offset, Frame)> {
        self.frames
            .into_iter()
            .map(|(at, frame)| (Offset(at), frame))
    }
}
