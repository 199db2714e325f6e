//! Takes the seeds of the fuzz corpora out of the golden volumes and streams: single structures,
//! read straight from the device, without any of the code they will test but the types.

mod questions;
mod tables;

use super::common::golden;
use mallet::format::fifo;
use mallet::format::mrecord::{Body, HEAD, Head, Kind, append_mark, padded};
use mallet::format::node::{LeafElement, Node};
use mallet::format::volume::{HEADER_SIZE, VolumeHeader};
use mallet::format::{BUFFER, NODE_SIZE, Offset, Zone};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use zerocopy::IntoBytes;

/// A seed: target, file name, contents.
pub type Seed = (&'static str, String, Vec<u8>);

/// Largest record data that becomes a seed, in bytes.
const DATA_MAX: usize = 1200;
/// Records of one kind and type kept of each volume or stream.
const KEPT: usize = 2;

/// One volume, read raw.
struct Volume {
    name: String,
    file: File,
    header: VolumeHeader,
}

impl Volume {
    fn open(golden_dir: &Path, path: &str) -> Volume {
        let file = File::open(golden::file(golden_dir, path)).expect("an unpacked volume");
        let mut bytes = vec![0; HEADER_SIZE];
        file.read_exact_at(&mut bytes, 0).expect("a header");
        let name = path.rsplit('/').next().unwrap_or(path).replace(".img", "");
        let header = VolumeHeader::from_prefix(&bytes).expect("a header");
        Volume { name, file, header }
    }

    fn read(&self, at: Offset, len: usize) -> Vec<u8> {
        let at = if at.zone() == Zone::UNDO {
            let slot = self.header.undo_array[(at.short() >> 23) as usize].get();
            Offset(slot + at.in_bigblock())
        } else {
            at
        };
        let mut bytes = vec![0; len];
        let pos = self.header.buf_beg.get().cast_unsigned() + at.short();
        self.file
            .read_exact_at(&mut bytes, pos)
            .expect("bytes of the volume");
        bytes
    }

    fn node(&self, at: Offset) -> Node {
        *Node::from_bytes(&self.read(at, NODE_SIZE)).expect("a node")
    }

    fn root(&self) -> Offset {
        Offset(self.header.btree_root.get())
    }

    /// Every leaf element, as it is on the device.
    fn elements(&self, at: Offset, out: &mut Vec<LeafElement>) {
        let node = self.node(at);
        out.extend_from_slice(node.leaves());
        for child in node.children() {
            self.elements(Offset(child.subtree_offset.get()), out);
        }
    }
}

/// All seeds.
pub fn from_golden(golden_dir: &Path) -> Vec<Seed> {
    let mut seeds = Vec::new();
    for path in [
        "small/small-v1.img",
        "small/small-v1_2_3_4_5_6_7.img",
        "crash/crash-v3-n180.img",
        "crash/crash-v7-n151-drop2151.img",
        "crash/wrap-v7-n133.img",
        "mirror/pfs.img",
        "edge/edge.img",
        "skips/m.img",
        "multivol/vol0.img",
    ] {
        let volume = Volume::open(golden_dir, path);
        header_seed(&volume, &mut seeds);
        if !path.starts_with("crash") {
            node_seeds(&volume, &mut seeds);
        }
        fifo_seeds(&volume, &mut seeds);
        if !path.starts_with("multivol") {
            leaf_seeds(&volume, &mut seeds);
        }
    }
    for path in ["crash/crash-v4-n192.img", "crash/crash-v7-n174.img"] {
        fifo_seeds(&Volume::open(golden_dir, path), &mut seeds);
    }
    header_seed(&Volume::open(golden_dir, "multivol/vol2.img"), &mut seeds);
    for path in [
        "mirror/full-5.mir",
        "mirror/inc-10-20.mir",
        "skips/inc12.mir",
        "skips/none.mir",
    ] {
        stream_seed(&golden::bytes(golden_dir, path), path, &mut seeds);
    }
    image_seeds(&mut seeds);
    apply_seeds(&mut seeds);
    let tables = tables::seeds().into_iter();
    seeds.extend(tables.map(|(name, bytes)| ("probe", name.to_owned(), bytes)));
    let said = questions::seeds().into_iter();
    seeds.extend(said.map(|(name, bytes)| ("questions", name.to_owned(), bytes)));
    seeds
}

/// Each image whole, in each mode; and in turn with one structure of each kind changed.
fn image_seeds(seeds: &mut Vec<Seed>) {
    for base in 0..3u8 {
        for mode in [0, 0xC0, 1, 0x21, 2, 0x22, 3, 7] {
            seeds.push((
                "image",
                format!("{base}-{mode:02x}-whole"),
                vec![base, mode, 7],
            ));
        }
        for what in 0..8u8 {
            let mut bytes = vec![base, what, what];
            for index in 0..3u8 {
                // An element's fields, a size, a count: whatever lies at 64 and a little further.
                let offset = 64 + 20 * index;
                bytes.extend([
                    what,
                    3 + index,
                    5 * index,
                    0,
                    offset,
                    0,
                    1,
                    index,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                ]);
            }
            seeds.push(("image", format!("{base}-{what}-changed"), bytes));
        }
    }
}

/// Each stream whole, and with a record of each kind of change; and one of marks only.
fn apply_seeds(seeds: &mut Vec<Seed>) {
    for stream in 0..3u8 {
        for mode in [0, 3, 6] {
            seeds.push((
                "apply",
                format!("{stream}-{mode}-whole"),
                vec![stream, mode],
            ));
        }
        for how in 0..8u8 {
            let mut bytes = vec![stream, 6];
            for index in 0..3u8 {
                // A record's key and TIDs begin here.
                let offset = 8 * index;
                bytes.extend([how, 3, 5 + 9 * index, 0, offset, 0]);
                bytes.extend([0x30 + index, 0, 0, 0, 1, 0, 0, 0]);
            }
            seeds.push(("apply", format!("{stream}-{how}-changed"), bytes));
        }
    }
    let mut bytes = vec![3, 2];
    for kind in [Kind::Sync, Kind::Idle, Kind::Term] {
        append_mark(&mut bytes, kind);
    }
    seeds.push(("apply", "marks".to_owned(), bytes));
}

fn header_seed(volume: &Volume, seeds: &mut Vec<Seed>) {
    let bytes = volume.header.as_bytes().to_vec();
    seeds.push(("volume_header", volume.name.clone(), bytes));
}

/// The root and, where there is one, a node below it and a leaf below that.
fn node_seeds(volume: &Volume, seeds: &mut Vec<Seed>) {
    let mut at = volume.root();
    for depth in 0..3 {
        let node = volume.node(at);
        let name = format!("{}-{depth}", volume.name);
        seeds.push(("node", name, node.as_bytes().to_vec()));
        let Some(child) = node.children().get(node.count() / 2) else {
            break;
        };
        at = Offset(child.subtree_offset.get());
    }
}

/// For each kind of record (for REDO: each kind of those) the first sector that has one.
fn fifo_seeds(volume: &Volume, seeds: &mut Vec<Seed>) {
    let ring = volume.header.undo_bytes();
    let version = volume.header.version.get();
    let first = Offset(volume.header.zone(Zone::UNDO).first_offset.get());
    let mut found: BTreeMap<(u16, u32), Vec<u8>> = BTreeMap::new();
    // From well before the range to undo on, once around.
    let start = Offset((first.short() + ring - (1 << 20)) % ring).buffer().0;
    for step in (0..ring.min(4 << 20)).step_by(BUFFER) {
        let at = Offset::new(Zone::UNDO, 0, (start + step) % ring);
        let buffer = volume.read(at, BUFFER);
        for sector in buffer.chunks(fifo::SECTOR as usize) {
            let mut pos = 0;
            while let Ok(record) = fifo::Record::at(sector, pos, at, version) {
                let flags = record.redo().map_or(0, |redo| redo.flags.get());
                if record.kind != fifo::PAD {
                    found
                        .entry((record.kind, flags))
                        .or_insert_with(|| sector.to_vec());
                }
                pos += record.size();
            }
        }
    }
    for ((kind, flags), sector) in found {
        let same = |seed: &Seed| seed.0 == "fifo_record" && seed.1.ends_with(&suffix(kind, flags));
        if seeds.iter().filter(|seed| same(seed)).count() < KEPT {
            let name = format!("{}-{}", volume.name, suffix(kind, flags));
            seeds.push(("fifo_record", name, sector));
        }
    }
}

fn suffix(kind: u16, flags: u32) -> String {
    format!("{kind:04x}-{flags:02x}")
}

/// Elements with their data, a few of every record and object type.
fn leaf_seeds(volume: &Volume, seeds: &mut Vec<Seed>) {
    let mut elements = Vec::new();
    volume.elements(volume.root(), &mut elements);
    let mut kept: BTreeMap<(u16, u8, bool), usize> = BTreeMap::new();
    for leaf in elements {
        let base = &leaf.base;
        let deleted = !base.delete_tid().is_zero();
        let what = (base.rec_type.get(), base.obj_type, deleted);
        let len = usize::try_from(leaf.data_len.get()).unwrap_or(usize::MAX);
        let same = format!("{:02x}-{:02x}-{}", what.0, what.1, u8::from(deleted));
        let others = seeds
            .iter()
            .filter(|s| s.0 == "leaf_data" && s.1.contains(&same));
        let count = kept.entry(what).or_default();
        if len > DATA_MAX || *count > 0 || others.count() >= KEPT {
            continue;
        }
        *count += 1;
        let mut bytes = leaf.as_bytes().to_vec();
        bytes.extend_from_slice(&volume.read(leaf.data_offset(), len));
        let name = format!("{same}-{}", volume.name);
        seeds.push(("leaf_data", name, bytes));
    }
}

/// A short stream: all that frames it, and the first small records of each kind.
fn stream_seed(stream: &[u8], path: &str, seeds: &mut Vec<Seed>) {
    let mut out = Vec::new();
    let mut kept = BTreeMap::new();
    let mut at = 0;
    while let Some(head) = stream.get(at..).and_then(|rest| rest.first_chunk::<HEAD>()) {
        let head = Head::parse(head, at as u64).expect("a golden stream");
        let record = &stream[at..at + head.size()];
        let (code, limit) = match Body::parse(record, at as u64).expect("a golden record") {
            Body::Record { leaf, .. } => (u32::from(leaf.base.rec_type.get()) << 8, 3),
            Body::Pass(_) => (1, 6),
            Body::Skip { .. } => (2, 6),
            _ => (0, usize::MAX),
        };
        let count: &mut usize = kept.entry(code).or_default();
        if *count < limit && record.len() <= DATA_MAX {
            *count += 1;
            out.extend_from_slice(record);
            out.resize(out.len().next_multiple_of(8), 0);
        }
        at += padded(head.size());
    }
    let name = path.rsplit('/').next().unwrap_or(path).to_owned();
    if name.starts_with("none") {
        append_mark(&mut out, Kind::Term);
    }
    seeds.push(("stream", name, out));
}
